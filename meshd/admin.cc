#include "meshd/admin.h"

#include <grp.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/server_posix.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <deque>
#include <thread>
#include <utility>

#include "base/log.h"
#include "meshd/local_socket.h"
#include "policy/authored.h"
#include "policy/from_proto.h"
#include "policy/read_yaml.h"
#include "proto/node.grpc.pb.h"

namespace meshd {
namespace {

namespace pb = mesh::v1;

// A client that reads slower than events happen is dropped at this many unread events:
// it would otherwise grow the daemon.
constexpr std::size_t kMaxUnread = 4096;
// One apply may carry several files of 1 MiB each; a plan, which more people may ask for, fewer.
constexpr int kMaxControlBytes = 32 << 20;
constexpr int kMaxStatusBytes = 8 << 20;
// Calls at the same time on one connection to the status socket; more wait in the client.
constexpr int kMaxStreams = 128;
// Connections to the control socket at a time: a launcher has one for each command it runs,
// and the daemon keeps most of its 1,024 descriptors for itself.
constexpr std::size_t kMaxControlConnections = 256;
// How long shutdown waits for answers to reach clients before it cuts the connections.
constexpr auto kShutdownGrace = std::chrono::milliseconds(500);
constexpr std::string_view kStopping = "meshd is stopping";
// Before a caller's deadline, by when it is to be answered, so that it hears the reason: a tenth
// of the time that it gives, at most this.
constexpr Duration kAnswerTime = std::chrono::milliseconds(500);

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

// What all calls share.
struct Calls {
  // A call posts its start and perhaps its end; a watcher besides that what it wrote. So the
  // box cannot be full while the counts below hold.
  Mailbox<Admin::Job> jobs{2 * Admin::kMaxJobs + 8 * Admin::kMaxWatchers};
  std::atomic<std::size_t> count{0}, bytes{0}, plans{0}, watchers{0};
  std::atomic<CallNumber> last{0};

  void post(Admin::Job job) {
    if (!jobs.post(std::move(job))) log::error("api: the job queue is full: a call is lost");
  }
};

// One unary call from its arrival to the last byte of its answer. Request and response live
// as long as it, whatever the client does meanwhile, so jobs may refer to them.
class Call final : public grpc::ServerUnaryReactor {
 public:
  Call(Calls& calls, std::size_t bytes) : calls_(calls), bytes_(bytes), number_(++calls.last) {
    const auto before = calls_.count.fetch_add(1);
    const auto held = calls_.bytes.fetch_add(bytes_);
    admitted_ = before < Admin::kMaxJobs && (held == 0 || held + bytes_ <= Admin::kMaxRequestBytes);
    if (!admitted_) refuse("too many calls in flight");
  }
  [[nodiscard]] bool admitted() const { return admitted_; }
  [[nodiscard]] CallNumber number() const { return number_; }
  // Of those that may wait for long: the daemon is told when the client gives up.
  void may_be_cancelled() { cancellable_ = true; }
  [[nodiscard]] bool count_as_plan() {
    is_plan_ = true;
    if (calls_.plans.fetch_add(1) < Admin::kMaxPlans) return true;
    refuse("too many plans in flight");
    return false;
  }
  template <class Response>
  Reply<Response> replies_to(Response* response) {
    return [this, response](Result<Response> result) {
      if (!result) return Finish(to_status(result.error()));
      *response = std::move(*result);
      Finish(grpc::Status::OK);
    };
  }

  void OnCancel() override {
    if (!admitted_ || !cancellable_) return;
    calls_.post([number = number_](Api& api) { api.cancel_wait(number); });
  }
  void OnDone() override {
    calls_.count.fetch_sub(1);
    calls_.bytes.fetch_sub(bytes_);
    if (is_plan_) calls_.plans.fetch_sub(1);
    delete this;
  }

 private:
  void refuse(const std::string& why) {
    Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "meshd: " + why});
  }
  Calls& calls_;
  const std::size_t bytes_;
  const CallNumber number_;
  bool admitted_ = false, cancellable_ = false, is_plan_ = false;
};

template <class Request, class Response>
grpc::ServerUnaryReactor* as_job(Calls& calls, const Request* request, Response* response,
                                 void (Api::*method)(const Request&, Reply<Response>)) {
  auto* const call = new Call(calls, request->ByteSizeLong());
  if (call->admitted()) {
    calls.post([=](Api& api) { (api.*method)(*request, call->replies_to(response)); });
  }
  return call;
}

// gRPC calls the other end of a descriptor that it was given "fd:N" (1.51). N is that
// connection's as long as one of its calls lives, for a call holds its transport and that the
// descriptor; so N may be asked here and must not be kept.
Caller caller_of(const grpc::CallbackServerContext& context) {
  constexpr std::string_view kPrefix = "fd:";
  const auto peer = context.peer();
  int fd = -1;
  if (peer.starts_with(kPrefix)) {
    std::from_chars(peer.data() + kPrefix.size(), peer.data() + peer.size(), fd);
  }
  auto caller = meshd::caller_of(fd).value_or(kUnknownCaller);
  const auto deadline = context.deadline();
  if (deadline != std::chrono::system_clock::time_point::max()) {
    const Duration left = deadline - std::chrono::system_clock::now();
    caller.deadline = BootClock::now() + left - std::min(left / 10, kAnswerTime);
  }
  return caller;
}

template <class Request, class Response>
grpc::ServerUnaryReactor* as_change(Calls& calls, const grpc::CallbackServerContext& context,
                                    const Request* request, Response* response,
                                    void (Api::*method)(const Request&, Caller, Reply<Response>)) {
  auto* const call = new Call(calls, request->ByteSizeLong());
  if (call->admitted()) {
    calls.post([=, caller = caller_of(context)](Api& api) {
      (api.*method)(*request, caller, call->replies_to(response));
    });
  }
  return call;
}

using Declarations = std::vector<policy::Declaration>;

Result<Declarations> read_files(const pb::ApplyRequest& request) {
  Declarations all;
  for (const auto& file : request.files()) {
    if (file.has_launched()) {
      const auto& by = file.launched();
      const auto text = TRY(policy::read_yaml(file.name(), file.text()));
      all.push_back(
          TRY(policy::read_authored(file.name(), text, {by.id(), by.owner(), by.workflow()})));
      continue;
    }
    auto declarations = TRY(policy::read_declarations(file.name(), file.text()));
    std::ranges::move(declarations, std::back_inserter(all));
  }
  if (request.files().empty()) return fail(ErrorCode::kInvalid, "no file given");
  return all;
}

// Reads declarations, one call after the other, and makes jobs of them.
class Reading {
 public:
  using Task = std::move_only_function<void()>;
  Reading()
      : tasks_(Admin::kMaxJobs), thread_([this](const std::stop_token& stop) { run(stop); }) {}
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;
  ~Reading() {
    thread_.request_stop();
    [[maybe_unused]] const bool woken = tasks_.post([] {});
  }

  // `job`: what the main loop is to do with what was read.
  template <class Job>
  void start(Calls& calls, Call* call, const pb::ApplyRequest* request, Job job) {
    const bool taken = tasks_.post([=, &calls] {
      auto declarations = read_files(*request);
      if (!declarations) return call->Finish(to_status(declarations.error()));
      calls.post(
          [=, read = *std::move(declarations)](Api& api) mutable { job(api, std::move(read)); });
    });
    // Every task is a call, and those are counted.
    if (!taken) log::error("api: the reading queue is full: a call is lost");
  }

 private:
  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      pollfd wait{tasks_.fd(), POLLIN, 0};
      poll(&wait, 1, -1);
      for (auto& task : tasks_.drain()) task();
    }
  }
  Mailbox<Task> tasks_;
  std::jthread thread_;  // after what it uses
};

class ControlService final : public pb::Control::CallbackService {
 public:
  ControlService(Calls& calls, Reading& reading) : calls_(calls), reading_(reading) {}
  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

  Reactor* Apply(Context* context, const pb::ApplyRequest* q, pb::ApplyReply* r) override {
    auto* const call = new Call(calls_, q->ByteSizeLong());
    if (!call->admitted()) return call;
    reading_.start(calls_, call, q,
                   [=, caller = caller_of(*context)](Api& api, Declarations declarations) {
                     api.apply(std::move(declarations), caller, call->replies_to(r));
                   });
    return call;
  }
  Reactor* Attach(Context* context, const pb::AttachRequest* q, pb::AttachReply* r) override {
    return as_change(calls_, *context, q, r, &Api::attach);
  }
  Reactor* Detach(Context* context, const pb::DetachRequest* q, pb::DetachReply* r) override {
    return as_change(calls_, *context, q, r, &Api::detach);
  }
  Reactor* Drain(Context* context, const pb::WorkloadRequest* q, pb::Empty* r) override {
    return as_change(calls_, *context, q, r, &Api::drain);
  }
  Reactor* Delete(Context* context, const pb::DeleteRequest* q, pb::DetachReply* r) override {
    return as_change(calls_, *context, q, r, &Api::remove);
  }
  Reactor* ReleaseName(Context* context, const pb::NameRequest* q, pb::Empty* r) override {
    return as_change(calls_, *context, q, r, &Api::release_name);
  }

 private:
  Calls& calls_;
  Reading& reading_;
};

// One `watch` call. All of its state belongs to the main loop: gRPC's threads post what
// happened as a job. `self_` keeps it alive until gRPC is done with it.
class Watcher final : public grpc::ServerWriteReactor<pb::Event>,
                      public EventStream,
                      public std::enable_shared_from_this<Watcher> {
 public:
  explicit Watcher(Calls& calls) : calls_(calls) {}

  void start(std::shared_ptr<Watcher> self, const pb::WatchRequest& request) {
    self_ = std::move(self);
    if (calls_.watchers.fetch_add(1) < Admin::kMaxWatchers) {
      return calls_.post([self = self_, request](Api& api) { api.watch(request, self); });
    }
    refused_ = true;
    Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "watch: too many watchers"});
  }

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

  void end(std::string_view why) override {
    finish({grpc::StatusCode::UNAVAILABLE, std::string(why)});
  }

  void OnWriteDone(bool ok) override {
    calls_.post([watcher = self_, ok](Api&) {
      watcher->writing_ = false;
      watcher->unread_.pop_front();
      if (!ok) return watcher->finish(grpc::Status::CANCELLED);
      watcher->write_next();
    });
  }
  void OnCancel() override {
    if (refused_) return;
    calls_.post([watcher = self_](Api& api) {
      watcher->finish(grpc::Status::CANCELLED);
      api.unwatch(*watcher);
    });
  }
  void OnDone() override {
    calls_.watchers.fetch_sub(1);
    self_.reset();
  }

 private:
  void write_next() {
    if (writing_ || finished_ || unread_.empty()) return;
    writing_ = true;
    StartWrite(&unread_.front());
  }
  void finish(grpc::Status status) {
    if (std::exchange(finished_, true)) return;
    Finish(std::move(status));
  }

  Calls& calls_;
  bool refused_ = false;  // set before gRPC calls anything
  std::shared_ptr<Watcher> self_;
  std::deque<pb::Event> unread_;  // the front one is being written
  bool writing_ = false;
  bool finished_ = false;
};

class StatusService final : public pb::Status::CallbackService {
 public:
  StatusService(Calls& calls, Reading& reading) : calls_(calls), reading_(reading) {}
  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

  Reactor* Plan(Context*, const pb::ApplyRequest* q, pb::PlanReply* r) override {
    auto* const call = new Call(calls_, q->ByteSizeLong());
    if (call->admitted() && call->count_as_plan()) {
      reading_.start(calls_, call, q, [=](Api& api, Declarations declarations) {
        api.plan(std::move(declarations), call->replies_to(r));
      });
    }
    return call;
  }
  Reactor* ListWorkloads(Context*, const pb::Empty* q, pb::WorkloadList* r) override {
    return as_job(calls_, q, r, &Api::list_workloads);
  }
  Reactor* ListServices(Context*, const pb::Empty* q, pb::ServiceList* r) override {
    return as_job(calls_, q, r, &Api::list_services);
  }
  Reactor* ListFlows(Context*, const pb::Empty* q, pb::FlowList* r) override {
    return as_job(calls_, q, r, &Api::list_flows);
  }
  Reactor* ListPublished(Context*, const pb::Empty* q, pb::PublishedList* r) override {
    return as_job(calls_, q, r, &Api::list_published);
  }
  Reactor* ListNodes(Context*, const pb::Empty* q, pb::NodeList* r) override {
    return as_job(calls_, q, r, &Api::list_nodes);
  }
  Reactor* ListRefused(Context*, const pb::Empty* q, pb::RefusedList* r) override {
    return as_job(calls_, q, r, &Api::list_refused);
  }
  Reactor* Explain(Context*, const pb::ExplainRequest* q, pb::ExplainReply* r) override {
    return as_job(calls_, q, r, &Api::explain);
  }
  Reactor* Resolve(Context*, const pb::ResolveRequest* q, pb::ResolveReply* r) override {
    return as_job(calls_, q, r, &Api::resolve);
  }
  Reactor* GetStatus(Context*, const pb::Empty* q, pb::StatusReply* r) override {
    return as_job(calls_, q, r, &Api::get_status);
  }
  Reactor* Wait(Context*, const pb::WaitRequest* q, pb::WaitReply* r) override {
    auto* const call = new Call(calls_, q->ByteSizeLong());
    if (!call->admitted()) return call;
    call->may_be_cancelled();
    calls_.post([=](Api& api) { api.wait(*q, call->number(), call->replies_to(r)); });
    return call;
  }
  grpc::ServerWriteReactor<pb::Event>* Watch(Context*, const pb::WatchRequest* q) override {
    auto watcher = std::make_shared<Watcher>(calls_);
    watcher->start(watcher, *q);
    return watcher.get();
  }

 private:
  Calls& calls_;
  Reading& reading_;
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
  GrpcAdmin() : control_(calls_, reading_), status_(calls_, reading_) {}

  Status bind(const std::string& run_dir, std::chrono::milliseconds idle) {
    const auto path = run_dir + "/status.sock";
    const auto old = umask(0177);
    status_server_ = serve(status_, kMaxStatusBytes, [&](grpc::ServerBuilder& builder) {
      builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
      builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
    });
    umask(old);
    if (!status_server_) return fail(ErrorCode::kSystem, "cannot bind " + path);
    control_server_ = serve(control_, kMaxControlBytes, [&](grpc::ServerBuilder& builder) {
      builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, static_cast<int>(idle.count()));
    });
    if (!control_server_) return fail(ErrorCode::kInternal, "cannot serve control.sock");
    control_socket_ = TRY(LocalSocket::listen(
        run_dir + "/control.sock", kMaxControlConnections, [this](UniqueFd connection) {
          grpc::AddInsecureChannelFromFd(control_server_.get(), connection.release());
        }));
    return open_to_group(path);
  }

  Mailbox<Job>& jobs() override { return calls_.jobs; }

  bool shutdown(Api& api) override {
    control_socket_.reset();  // a server that is shut down must not be given connections
    // Shutdown() returns when every call has its answer, and only jobs on this thread give
    // answers: it runs on another one meanwhile.
    const auto closed = std::make_shared<std::atomic<bool>>(false);
    std::thread closing([this, closed] {
      const auto cut = std::chrono::system_clock::now() + kShutdownGrace;
      control_server_->Shutdown(cut);
      status_server_->Shutdown(cut);
      *closed = true;
      calls_.post([](Api&) {});
    });
    const auto end = std::chrono::steady_clock::now() + kShutdownLimit;
    while (!*closed) {
      api.stop(kStopping);
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      if (left.count() <= 0) {
        closing.detach();
        return false;
      }
      pollfd wait{calls_.jobs.fd(), POLLIN, 0};
      poll(&wait, 1, static_cast<int>(left.count()));
      for (auto& job : calls_.jobs.drain()) job(api);
    }
    closing.join();
    return true;
  }

 private:
  static std::unique_ptr<grpc::Server> serve(
      grpc::Service& service, int max_bytes,
      const std::function<void(grpc::ServerBuilder&)>& more) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service);
    builder.SetMaxReceiveMessageSize(max_bytes);
    more(builder);
    return builder.BuildAndStart();
  }

  Calls calls_;
  Reading reading_;
  ControlService control_;
  StatusService status_;
  std::unique_ptr<grpc::Server> control_server_, status_server_;
  std::unique_ptr<LocalSocket> control_socket_;  // after the server that it feeds
};

}  // namespace

Result<std::unique_ptr<Admin>> Admin::make(const std::string& run_dir,
                                           std::chrono::milliseconds idle) {
  auto admin = std::make_unique<GrpcAdmin>();
  CHECK_OK(admin->bind(run_dir, idle));
  return admin;
}

}  // namespace meshd
