#include "meshd/admin.h"

#include <grp.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <deque>

#include "base/log.h"
#include "proto/node.grpc.pb.h"

namespace meshd {
namespace {

namespace pb = mesh::v1;

// A client that reads slower than events happen is dropped at this many unread events:
// it would otherwise grow the daemon.
constexpr std::size_t kMaxUnread = 4096;
// One apply may carry several files of 1 MiB each.
constexpr int kMaxRequestBytes = 32 << 20;
// How long shutdown waits for calls that are being answered.
constexpr auto kShutdownGrace = std::chrono::milliseconds(500);

grpc::Status to_status(const Error& error) {
  using grpc::StatusCode;
  const auto code = [&] {
    switch (error.code) {
      case ErrorCode::kInvalid:
        return StatusCode::INVALID_ARGUMENT;
      case ErrorCode::kNotFound:
        return StatusCode::NOT_FOUND;
      case ErrorCode::kConflict:
        return StatusCode::FAILED_PRECONDITION;
      case ErrorCode::kUnsupported:
        return StatusCode::UNIMPLEMENTED;
      case ErrorCode::kExhausted:
        return StatusCode::RESOURCE_EXHAUSTED;
      case ErrorCode::kNotInForce:
        return StatusCode::ABORTED;
      case ErrorCode::kSystem:
      case ErrorCode::kInternal:
        break;
    }
    return StatusCode::INTERNAL;
  }();
  return {code, error.what};
}

// Turns one unary call into a Job. Request and reply live until Finish(), whatever the
// client does meanwhile, so the job may refer to them.
template <class Request, class Response>
grpc::ServerUnaryReactor* as_job(Mailbox<Admin::Job>& jobs, grpc::CallbackServerContext* context,
                                 const Request* request, Response* response,
                                 void (Api::*method)(const Request&, Reply<Response>)) {
  auto* reactor = context->DefaultReactor();
  const bool taken = jobs.post([=](Api& api) {
    (api.*method)(*request, [=](Result<Response> result) {
      if (!result) return reactor->Finish(to_status(result.error()));
      *response = std::move(*result);
      reactor->Finish(grpc::Status::OK);
    });
  });
  if (!taken) {
    reactor->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "meshd: too many calls in flight"});
  }
  return reactor;
}

class ControlService final : public pb::Control::CallbackService {
 public:
  explicit ControlService(Mailbox<Admin::Job>& jobs) : jobs_(jobs) {}
  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

  Reactor* Apply(Context* c, const pb::ApplyRequest* q, pb::ApplyReply* r) override {
    return as_job(jobs_, c, q, r, &Api::apply);
  }
  Reactor* Attach(Context* c, const pb::AttachRequest* q, pb::AttachReply* r) override {
    return as_job(jobs_, c, q, r, &Api::attach);
  }
  Reactor* Detach(Context* c, const pb::WorkloadRequest* q, pb::DetachReply* r) override {
    return as_job(jobs_, c, q, r, &Api::detach);
  }
  Reactor* Drain(Context* c, const pb::WorkloadRequest* q, pb::Empty* r) override {
    return as_job(jobs_, c, q, r, &Api::drain);
  }
  Reactor* Delete(Context* c, const pb::DeleteRequest* q, pb::Empty* r) override {
    return as_job(jobs_, c, q, r, &Api::remove);
  }
  Reactor* ReleaseName(Context* c, const pb::NameRequest* q, pb::Empty* r) override {
    return as_job(jobs_, c, q, r, &Api::release_name);
  }

 private:
  Mailbox<Admin::Job>& jobs_;
};

// One `watch` call. All of its state belongs to the main loop: gRPC's threads post what
// happened as a job. `self_` keeps it alive until gRPC is done with it.
class Watcher final : public grpc::ServerWriteReactor<pb::Event>,
                      public EventStream,
                      public std::enable_shared_from_this<Watcher> {
 public:
  Watcher(Mailbox<Admin::Job>& jobs, std::atomic<std::size_t>& count)
      : jobs_(jobs), count_(count) {}

  void start(std::shared_ptr<Watcher> self) { self_ = std::move(self); }

  bool send(const pb::Event& event) override {
    if (finished_) return false;
    if (unread_.size() >= kMaxUnread) {
      finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "watch: this client reads too slowly"});
      return false;
    }
    unread_.push_back(event);
    write_next();
    return true;
  }

  void OnWriteDone(bool ok) override {
    post([watcher = self_, ok](Api&) {
      watcher->writing_ = false;
      watcher->unread_.pop_front();
      if (!ok) return watcher->finish(grpc::Status::CANCELLED);
      watcher->write_next();
    });
  }
  void OnCancel() override {
    post([watcher = self_](Api&) { watcher->finish(grpc::Status::CANCELLED); });
  }
  void OnDone() override {
    count_.fetch_sub(1);
    self_.reset();
  }

 private:
  void post(Admin::Job job) {
    // Each watcher has at most three of these under way, and the box is larger than all
    // watchers together plus the calls that as_job() admits in practice; a refusal here
    // only delays the end of this stream until the client or the daemon closes it.
    if (!jobs_.post(std::move(job))) log::warning("watch: the job queue is full");
  }
  void write_next() {
    if (writing_ || finished_ || unread_.empty()) return;
    writing_ = true;
    StartWrite(&unread_.front());
  }
  void finish(grpc::Status status) {
    if (std::exchange(finished_, true)) return;
    Finish(std::move(status));
  }

  Mailbox<Admin::Job>& jobs_;
  std::atomic<std::size_t>& count_;
  std::shared_ptr<Watcher> self_;
  std::deque<pb::Event> unread_;  // the front one is being written
  bool writing_ = false;
  bool finished_ = false;
};

class StatusService final : public pb::Status::CallbackService {
 public:
  explicit StatusService(Mailbox<Admin::Job>& jobs) : jobs_(jobs) {}
  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

  Reactor* Plan(Context* c, const pb::ApplyRequest* q, pb::PlanReply* r) override {
    return as_job(jobs_, c, q, r, &Api::plan);
  }
  Reactor* ListWorkloads(Context* c, const pb::Empty* q, pb::WorkloadList* r) override {
    return as_job(jobs_, c, q, r, &Api::list_workloads);
  }
  Reactor* ListServices(Context* c, const pb::Empty* q, pb::ServiceList* r) override {
    return as_job(jobs_, c, q, r, &Api::list_services);
  }
  Reactor* ListFlows(Context* c, const pb::Empty* q, pb::FlowList* r) override {
    return as_job(jobs_, c, q, r, &Api::list_flows);
  }
  Reactor* ListPublished(Context* c, const pb::Empty* q, pb::PublishedList* r) override {
    return as_job(jobs_, c, q, r, &Api::list_published);
  }
  Reactor* Explain(Context* c, const pb::ExplainRequest* q, pb::ExplainReply* r) override {
    return as_job(jobs_, c, q, r, &Api::explain);
  }
  Reactor* Resolve(Context* c, const pb::ResolveRequest* q, pb::ResolveReply* r) override {
    return as_job(jobs_, c, q, r, &Api::resolve);
  }
  Reactor* GetStatus(Context* c, const pb::Empty* q, pb::StatusReply* r) override {
    return as_job(jobs_, c, q, r, &Api::get_status);
  }
  Reactor* Wait(Context* c, const pb::WaitRequest* q, pb::WaitReply* r) override {
    return as_job(jobs_, c, q, r, &Api::wait);
  }
  grpc::ServerWriteReactor<pb::Event>* Watch(Context*, const pb::WatchRequest* q) override {
    auto watcher = std::make_shared<Watcher>(jobs_, watchers_);
    watcher->start(watcher);
    if (watchers_.fetch_add(1) >= Admin::kMaxWatchers) {
      watcher->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "watch: too many watchers"});
    } else if (!jobs_.post([watcher, request = *q](Api& api) { api.watch(request, watcher); })) {
      watcher->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "meshd: too many calls in flight"});
    }
    return watcher.get();
  }

 private:
  Mailbox<Admin::Job>& jobs_;
  std::atomic<std::size_t> watchers_{0};
};

Status open_to_group(const std::string& path) {
  // Without a group meshd the socket stays root's: closed when in doubt.
  char buffer[4096];
  group entry{};
  group* found = nullptr;
  if (getgrnam_r("meshd", &entry, buffer, sizeof buffer, &found) != 0 || found == nullptr) {
    return {};
  }
  if (chown(path.c_str(), static_cast<uid_t>(-1), found->gr_gid) != 0) {
    return fail_errno("chown " + path, errno);
  }
  if (chmod(path.c_str(), 0660) != 0) return fail_errno("chmod " + path, errno);
  return {};
}

class GrpcAdmin final : public Admin {
 public:
  GrpcAdmin() : jobs_(kMaxJobs), control_(jobs_), status_(jobs_) {}
  ~GrpcAdmin() override { shutdown(); }

  Status bind(const std::string& run_dir) {
    const auto old = umask(0177);
    control_server_ = serve(run_dir + "/control.sock", control_);
    status_server_ = serve(run_dir + "/status.sock", status_);
    umask(old);
    if (!control_server_ || !status_server_) {
      return fail(ErrorCode::kSystem, "cannot bind control.sock and status.sock in " + run_dir);
    }
    return open_to_group(run_dir + "/status.sock");
  }

  Mailbox<Job>& jobs() override { return jobs_; }
  void shutdown() override {
    const auto deadline = std::chrono::system_clock::now() + kShutdownGrace;
    if (control_server_) control_server_->Shutdown(deadline);
    if (status_server_) status_server_->Shutdown(deadline);
  }

 private:
  static std::unique_ptr<grpc::Server> serve(const std::string& path, grpc::Service& service) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
    builder.RegisterService(&service);
    builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
    return builder.BuildAndStart();
  }

  Mailbox<Job> jobs_;
  ControlService control_;
  StatusService status_;
  std::unique_ptr<grpc::Server> control_server_, status_server_;
};

}  // namespace

Result<std::unique_ptr<Admin>> Admin::make(const std::string& run_dir) {
  auto admin = std::make_unique<GrpcAdmin>();
  CHECK_OK(admin->bind(run_dir));
  return admin;
}

}  // namespace meshd
