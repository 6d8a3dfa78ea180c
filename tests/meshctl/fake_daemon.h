// A meshd that only talks: gRPC on both sockets of a run_dir, every call noted and answered
// as the test says.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "proto/node.grpc.pb.h"

namespace meshd::ctl {

// What a test sets before the call and reads after it. Handlers run on gRPC's threads; a
// test sets them before it connects.
struct Script {
  grpc::Status status = grpc::Status::OK;  // of every unary call without a handler of its own
  std::function<grpc::Status(const mesh::v1::AttachRequest&, mesh::v1::AttachReply*)> attach;
  std::function<void(grpc::ServerContext*, grpc::ServerWriter<mesh::v1::Event>*)> watch;
  mesh::v1::ApplyReply apply_reply;
  mesh::v1::DetachReply detach_reply;
  mesh::v1::WorkloadList workloads;
  mesh::v1::FlowList flows;
  mesh::v1::ServiceList services;
  mesh::v1::PublishedList published;
  mesh::v1::ExplainReply explain_reply;
  mesh::v1::ResolveReply resolve_reply;
  mesh::v1::StatusReply status_reply;
  mesh::v1::WaitReply wait_reply;
  std::atomic<bool> hang = false;  // answer only when the client has given up
};

class FakeDaemon {
 public:
  explicit FakeDaemon(const std::string& run_dir) : control_(*this), status_(*this) {
    control_server_ = serve(run_dir + "/control.sock", control_);
    status_server_ = serve(run_dir + "/status.sock", status_);
  }
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;
  ~FakeDaemon() { stop(); }

  void stop() {
    const auto now = std::chrono::system_clock::now();
    control_server_->Shutdown(now);
    status_server_->Shutdown(now);
  }

  Script script;

  // "attach web", "wait db 60000", in the order of arrival.
  [[nodiscard]] std::vector<std::string> calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

 private:
  grpc::Status note(grpc::ServerContext* context, std::string call) {
    {
      const std::lock_guard lock(mutex_);
      calls_.push_back(std::move(call));
    }
    while (script.hang && !context->IsCancelled()) usleep(1000);
    return script.status;
  }

  class Control final : public mesh::v1::Control::Service {
   public:
    explicit Control(FakeDaemon& daemon) : daemon_(daemon) {}
    template <class T>
    using In = const T*;
    grpc::Status Apply(grpc::ServerContext* c, In<mesh::v1::ApplyRequest> in,
                       mesh::v1::ApplyReply* out) override {
      std::string call = "apply";
      for (const auto& file : in->files()) call += " " + file.name() + "=" + file.text();
      *out = daemon_.script.apply_reply;
      return daemon_.note(c, call);
    }
    grpc::Status Attach(grpc::ServerContext* c, In<mesh::v1::AttachRequest> in,
                        mesh::v1::AttachReply* out) override {
      auto status = daemon_.note(c, "attach " + in->id());
      return daemon_.script.attach ? daemon_.script.attach(*in, out) : status;
    }
    grpc::Status Detach(grpc::ServerContext* c, In<mesh::v1::WorkloadRequest> in,
                        mesh::v1::DetachReply* out) override {
      *out = daemon_.script.detach_reply;
      return daemon_.note(c, "detach " + in->id());
    }
    grpc::Status Drain(grpc::ServerContext* c, In<mesh::v1::WorkloadRequest> in,
                       mesh::v1::Empty*) override {
      return daemon_.note(c, "drain " + in->id());
    }
    grpc::Status Delete(grpc::ServerContext* c, In<mesh::v1::DeleteRequest> in,
                        mesh::v1::Empty*) override {
      return daemon_.note(c, "delete " + in->id() + (in->force() ? " force" : ""));
    }
    grpc::Status ReleaseName(grpc::ServerContext* c, In<mesh::v1::NameRequest> in,
                             mesh::v1::Empty*) override {
      return daemon_.note(c, "release " + in->name());
    }

   private:
    FakeDaemon& daemon_;
  };

  class Status final : public mesh::v1::Status::Service {
   public:
    explicit Status(FakeDaemon& daemon) : daemon_(daemon) {}
    template <class T>
    using In = const T*;
    grpc::Status Plan(grpc::ServerContext* c, In<mesh::v1::ApplyRequest>,
                      mesh::v1::PlanReply* out) override {
      *out->mutable_changes() = daemon_.script.apply_reply.changes();
      return daemon_.note(c, "plan");
    }
    grpc::Status ListWorkloads(grpc::ServerContext* c, In<mesh::v1::Empty>,
                               mesh::v1::WorkloadList* out) override {
      *out = daemon_.script.workloads;
      return daemon_.note(c, "list workloads");
    }
    grpc::Status ListServices(grpc::ServerContext* c, In<mesh::v1::Empty>,
                              mesh::v1::ServiceList* out) override {
      *out = daemon_.script.services;
      return daemon_.note(c, "list services");
    }
    grpc::Status ListFlows(grpc::ServerContext* c, In<mesh::v1::Empty>,
                           mesh::v1::FlowList* out) override {
      *out = daemon_.script.flows;
      return daemon_.note(c, "list flows");
    }
    grpc::Status ListPublished(grpc::ServerContext* c, In<mesh::v1::Empty>,
                               mesh::v1::PublishedList* out) override {
      *out = daemon_.script.published;
      return daemon_.note(c, "list published");
    }
    grpc::Status Explain(grpc::ServerContext* c, In<mesh::v1::ExplainRequest> in,
                         mesh::v1::ExplainReply* out) override {
      *out = daemon_.script.explain_reply;
      return daemon_.note(c, "explain " + in->src() + " " + in->dst() + " " +
                                 std::to_string(in->port()) + "/" +
                                 mesh::v1::Protocol::Value_Name(in->protocol()));
    }
    grpc::Status Resolve(grpc::ServerContext* c, In<mesh::v1::ResolveRequest> in,
                         mesh::v1::ResolveReply* out) override {
      *out = daemon_.script.resolve_reply;
      return daemon_.note(c, "resolve " + in->id() + " " + in->name() + " " + in->type());
    }
    grpc::Status GetStatus(grpc::ServerContext* c, In<mesh::v1::Empty>,
                           mesh::v1::StatusReply* out) override {
      *out = daemon_.script.status_reply;
      return daemon_.note(c, "status");
    }
    grpc::Status Wait(grpc::ServerContext* c, In<mesh::v1::WaitRequest> in,
                      mesh::v1::WaitReply* out) override {
      *out = daemon_.script.wait_reply;
      return daemon_.note(c, "wait " + in->target() + " " + std::to_string(in->timeout_ms()));
    }
    grpc::Status Watch(grpc::ServerContext* c, In<mesh::v1::WatchRequest> in,
                       grpc::ServerWriter<mesh::v1::Event>* writer) override {
      const auto status = daemon_.note(c, in->refused_only() ? "watch refused" : "watch");
      if (daemon_.script.watch) daemon_.script.watch(c, writer);
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
  std::vector<std::string> calls_;
  Control control_;
  Status status_;
  std::unique_ptr<grpc::Server> control_server_, status_server_;
};

}  // namespace meshd::ctl
