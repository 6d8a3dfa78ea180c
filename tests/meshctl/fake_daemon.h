// A meshd that only talks: gRPC on both sockets, every call noted and answered as told.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "proto/node.grpc.pb.h"

namespace meshd::ctl {

namespace pb = mesh::v1;

// Set before the client connects, since handlers run on gRPC's threads; read after the call.
struct Script {
  grpc::Status status = grpc::Status::OK;  // of every unary call without a handler of its own
  std::function<grpc::Status(const pb::AttachRequest&, pb::AttachReply*)> attach;
  std::function<void(grpc::ServerWriter<pb::Event>*)> watch;
  pb::ApplyReply apply_reply;
  pb::DetachReply detach_reply;
  pb::WorkloadList workloads;
  pb::FlowList flows;
  pb::ServiceList services;
  pb::PublishedList published;
  pb::ExplainReply explain_reply;
  pb::ResolveReply resolve_reply;
  pb::StatusReply status_reply;
  pb::WaitReply wait_reply;
  std::atomic<bool> hang = false;  // answer only at stop()
};
class FakeDaemon {
  template <class T>
  using In = const T*;
  using Context = grpc::ServerContext;

 public:
  explicit FakeDaemon(const std::string& run_dir) : control_(*this), status_(*this) {
    control_server_ = serve(run_dir + "/control.sock", control_);
    status_server_ = serve(run_dir + "/status.sock", status_);
  }
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;
  ~FakeDaemon() { stop(); }

  // Ends what hangs, then every call and both sockets.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    stopping_.notify_all();
    const auto now = std::chrono::system_clock::now();
    control_server_->Shutdown(now);
    status_server_->Shutdown(now);
  }

  // For handlers: keeps a call open until the test stops the daemon.
  void wait_for_stop() {
    std::unique_lock lock(mutex_);
    stopping_.wait_for(lock, std::chrono::seconds(60), [this] { return stopped_; });
  }

  Script script;
  // "attach web", "wait db 60000", in the order of arrival.
  [[nodiscard]] std::vector<std::string> calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

 private:
  grpc::Status note(std::string call) {
    {
      const std::lock_guard lock(mutex_);
      calls_.push_back(std::move(call));
    }
    if (script.hang) wait_for_stop();
    return script.status;
  }

  class Control final : public pb::Control::Service {
   public:
    explicit Control(FakeDaemon& daemon) : daemon_(daemon) {}
    grpc::Status Apply(Context*, In<pb::ApplyRequest> in, pb::ApplyReply* out) override {
      std::string call = "apply";
      for (const auto& file : in->files()) call += " " + file.name() + "=" + file.text();
      *out = daemon_.script.apply_reply;
      return daemon_.note(call);
    }
    grpc::Status Attach(Context*, In<pb::AttachRequest> in, pb::AttachReply* out) override {
      auto status = daemon_.note("attach " + in->id());
      return daemon_.script.attach ? daemon_.script.attach(*in, out) : status;
    }
    grpc::Status Detach(Context*, In<pb::DetachRequest> in, pb::DetachReply* out) override {
      const auto ino = in->removed_netns_ino();
      if (ino != 0) return daemon_.note("removed " + in->id() + " " + std::to_string(ino));
      *out = daemon_.script.detach_reply;
      return daemon_.note((in->left_only() ? "left " : "detach ") + in->id());
    }
    grpc::Status Drain(Context*, In<pb::WorkloadRequest> in, pb::Empty*) override {
      return daemon_.note("drain " + in->id());
    }
    grpc::Status Delete(Context*, In<pb::DeleteRequest> in, pb::DetachReply* out) override {
      if (in->force()) *out = daemon_.script.detach_reply;
      return daemon_.note("delete " + in->id() + (in->force() ? " force" : ""));
    }
    grpc::Status ReleaseName(Context*, In<pb::NameRequest> in, pb::Empty*) override {
      return daemon_.note("release " + in->name());
    }

   private:
    FakeDaemon& daemon_;
  };

  class Status final : public pb::Status::Service {
   public:
    explicit Status(FakeDaemon& daemon) : daemon_(daemon) {}
    grpc::Status Plan(Context*, In<pb::ApplyRequest>, pb::PlanReply* out) override {
      *out->mutable_changes() = daemon_.script.apply_reply.changes();
      return daemon_.note("plan");
    }
    grpc::Status ListWorkloads(Context*, In<pb::Empty>, pb::WorkloadList* out) override {
      *out = daemon_.script.workloads;
      return daemon_.note("list workloads");
    }
    grpc::Status ListServices(Context*, In<pb::Empty>, pb::ServiceList* out) override {
      *out = daemon_.script.services;
      return daemon_.note("list services");
    }
    grpc::Status ListFlows(Context*, In<pb::Empty>, pb::FlowList* out) override {
      *out = daemon_.script.flows;
      return daemon_.note("list flows");
    }
    grpc::Status ListPublished(Context*, In<pb::Empty>, pb::PublishedList* out) override {
      *out = daemon_.script.published;
      return daemon_.note("list published");
    }
    grpc::Status ListNodes(Context*, In<pb::Empty>, pb::NodeList*) override {
      return daemon_.note("list nodes");
    }
    grpc::Status ListRefused(Context*, In<pb::Empty>, pb::RefusedList*) override {
      return daemon_.note("list refused");
    }
    grpc::Status Explain(Context*, In<pb::ExplainRequest> in, pb::ExplainReply* out) override {
      *out = daemon_.script.explain_reply;
      return daemon_.note("explain " + in->src() + " " + in->dst() + " " +
                          std::to_string(in->port()) + "/" +
                          pb::Protocol::Value_Name(in->protocol()));
    }
    grpc::Status Resolve(Context*, In<pb::ResolveRequest> in, pb::ResolveReply* out) override {
      *out = daemon_.script.resolve_reply;
      return daemon_.note("resolve " + in->id() + " " + in->name() + " " + in->type());
    }
    grpc::Status GetStatus(Context*, In<pb::Empty>, pb::StatusReply* out) override {
      *out = daemon_.script.status_reply;
      return daemon_.note("status");
    }
    grpc::Status Wait(Context*, In<pb::WaitRequest> in, pb::WaitReply* out) override {
      *out = daemon_.script.wait_reply;
      return daemon_.note("wait " + in->target() + " " + std::to_string(in->timeout_ms()));
    }
    grpc::Status Watch(Context*, In<pb::WatchRequest> in,
                       grpc::ServerWriter<pb::Event>* writer) override {
      const auto status = daemon_.note(in->refused_only() ? "watch refused" : "watch");
      if (daemon_.script.watch) daemon_.script.watch(writer);
      return status;
    }

   private:
    FakeDaemon& daemon_;
  };

  static std::unique_ptr<grpc::Server> serve(const std::string& path, grpc::Service& service) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
    builder.RegisterService(&service);
    auto server = builder.BuildAndStart();
    EXPECT_NE(server, nullptr);
    return server;
  }

  std::mutex mutex_;
  std::condition_variable stopping_;
  bool stopped_ = false;
  std::vector<std::string> calls_;
  Control control_;
  Status status_;
  std::unique_ptr<grpc::Server> control_server_, status_server_;
};

}  // namespace meshd::ctl
