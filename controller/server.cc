#include "controller/server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>

#include <atomic>
#include <deque>
#include <thread>

#include "controller/admin_service.h"
#include "controller/calls.h"
#include "controller/peer_address.h"
#include "controller/watch_stream.h"
#include "policy/from_proto.h"
#include "proto/controller.grpc.pb.h"
#include "proto/node.grpc.pb.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;

// An apply may carry several files of 1 MiB each; a report, 10,000 containers.
constexpr int kMaxMessageBytes = 32 << 20;
constexpr int kMaxJoinBytes = 64 << 10;
// Of a node: a report of 10,000 containers, or what it declares. gRPC would cut larger ones without
// a word on this side.
constexpr std::size_t kMaxNodeBytes = std::size_t{8} << 20;
// Half-open peers are found within 5 s: a ping after 2 s of silence, 2 s to answer it, and a
// second for a busy machine.
constexpr int kKeepaliveMs = 2000, kKeepaliveTimeoutMs = 2000;
// What a node has not read yet, before it is no longer read from.
constexpr std::size_t kMaxUnread = 256;
constexpr auto kShutdownLimit = std::chrono::seconds(3);

// --- sessions ------------------------------------------------------------------------

// Every member is the loop's alone: gRPC's callbacks only post.
class Session final : public grpc::ServerBidiReactor<pb::FromNode, pb::ToNode>, public NodeStream {
 public:
  explicit Session(Shared& shared) : shared_(shared) {}

  void start(pki::Peer peer) {
    name_ = peer.identity.name;
    shared_.post([this, peer = std::move(peer)](Handler& handler) {
      is_open_ = true;
      handler.opened(*this, peer);
      read();
    });
  }
  void refuse(grpc::Status status) { Finish(std::move(status)); }

  void send(pb::ToNode message) override {
    if (closing_ || !is_open_) return;
    unread_.push_back(std::move(message));
    write();
  }
  void close() override {
    if (closing_) return;
    closing_ = true;
    finish_if_done();
  }

  void OnReadDone(bool ok) override {
    shared_.post([this, ok](Handler& handler) {
      reading_ = false;
      if (!ok) return refuse_message("");
      if (closing_) return;
      if (message_.ByteSizeLong() > kMaxNodeBytes) {
        handler.turned_away("oversized", fmt::format("node {}: a message of more than {} bytes",
                                                     name_, kMaxNodeBytes));
        return refuse_message("a message that is too large");
      }
      handler.message(*this, message_);
      read();
    });
  }
  void OnWriteDone(bool ok) override {
    shared_.post([this, ok](Handler&) {
      writing_ = false;
      unread_.pop_front();
      if (!ok) {
        unread_.clear();
        closing_ = true;
      }
      write();
      finish_if_done();
      read();
    });
  }
  void OnCancel() override {
    shared_.post([this](Handler&) {
      cancelled_ = true;
      if (!writing_) unread_.clear();
      close();
    });
  }
  void OnDone() override {
    shared_.sessions.fetch_sub(1);
    shared_.post([this](Handler& handler) {
      // The connection was there, and nodes do not end their half: what came was no message.
      if (unreadable_ && !cancelled_) {
        handler.turned_away("unreadable",
                            fmt::format("node {}: a message that cannot be read", name_));
      }
      if (is_open_) handler.closed(*this);
      delete this;
    });
  }

 private:
  void read() {
    if (reading_ || closing_ || unread_.size() > kMaxUnread) return;
    reading_ = true;
    message_.Clear();
    StartRead(&message_);
  }
  void write() {
    if (writing_ || finished_ || unread_.empty()) return;
    writing_ = true;
    StartWrite(&unread_.front());
  }
  // Empty: what came could not be read, or the connection has ended; which, OnDone() knows.
  void refuse_message(const std::string& why) {
    if (closing_) return;
    unreadable_ = why.empty();
    status_ = {grpc::StatusCode::INVALID_ARGUMENT,
               unreadable_ ? "a message that cannot be read" : why};
    close();
  }
  // What was said before close() is sent first.
  void finish_if_done() {
    if (!closing_ || finished_ || writing_ || !unread_.empty()) return;
    finished_ = true;
    Finish(status_);
  }

  Shared& shared_;
  std::string name_;  // the node's
  grpc::Status status_ = grpc::Status::OK;
  pb::FromNode message_;
  std::deque<pb::ToNode> unread_;  // the first is being written while writing_
  bool is_open_ = false, reading_ = false, writing_ = false, closing_ = false, finished_ = false;
  bool unreadable_ = false, cancelled_ = false;
};

// --- calls ---------------------------------------------------------------------------

class ClusterService final : public pb::Cluster::CallbackService {
 public:
  explicit ClusterService(Shared& shared) : shared_(shared) {}

  grpc::ServerBidiReactor<pb::FromNode, pb::ToNode>* Session(Context* context) override {
    auto* const session = new controller::Session(shared_);
    if (shared_.sessions.fetch_add(1) >= Server::kMaxSessions) {
      shared_.turn_away("overload", "too many sessions");
      session->refuse({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many sessions"});
      return session;
    }
    auto peer = peer_of(*context, shared_);
    if (!peer) {
      shared_.turn_away("certificate", fmt::format("{}: {}", context->peer(), peer.error().what));
      session->refuse({grpc::StatusCode::UNAUTHENTICATED, peer.error().what});
    } else if (peer->identity.role != pki::Role::kNode) {
      shared_.turn_away("role",
                        peer->identity.to_string() + " opens a session, which is for nodes");
      session->refuse({grpc::StatusCode::PERMISSION_DENIED, "sessions are for nodes"});
    } else {
      session->start(*std::move(peer));
    }
    return session;
  }
  Reactor* Renew(Context* context, const pb::RenewRequest* q, pb::EnrolReply* r) override {
    auto* const call = new Call(shared_);
    if (!call->admitted()) return call;
    auto peer = peer_of(*context, shared_);
    if (!peer) {
      shared_.turn_away("certificate", fmt::format("{}: {}", context->peer(), peer.error().what));
      call->refuse({grpc::StatusCode::UNAUTHENTICATED, peer.error().what});
      return call;
    }
    shared_.post([=, peer = *std::move(peer)](Handler& handler) {
      handler.renew(peer, q->csr(), call->replies_to(r));
    });
    return call;
  }

 private:
  Shared& shared_;
};

class JoinService final : public pb::Join::CallbackService {
 public:
  explicit JoinService(Shared& shared) : shared_(shared) {}

  Reactor* Enrol(Context* context, const pb::EnrolRequest* q, pb::EnrolReply* r) override {
    auto* const call = new Call(shared_);
    if (!call->admitted()) return call;
    const auto source = peer_address(context->peer());
    if (!source) {
      call->refuse({grpc::StatusCode::PERMISSION_DENIED, source.error().what});
      return call;
    }
    shared_.post([=, source = *source](Handler& handler) {
      handler.enrol(*q, source, call->replies_to(r));
    });
    return call;
  }

 private:
  Shared& shared_;
};

class ControlService final : public pb::Control::CallbackService {
 public:
  explicit ControlService(Shared& shared) : shared_(shared) {}

  Reactor* Apply(Context* context, const pb::ApplyRequest* q, pb::ApplyReply* r) override {
    auto admitted = admit(*context, shared_, May::kDeclare);
    auto* const call = admitted.call;
    if (!admitted.peer) return call;
    // On gRPC's thread: a file of 1 MiB would hold the loop up for long.
    std::vector<policy::Declaration> all;
    for (const auto& file : q->files()) {
      auto declarations = policy::read_declarations(file.name(), file.text());
      if (!declarations) {
        call->refuse(to_status(declarations.error()));
        return call;
      }
      std::ranges::move(*declarations, std::back_inserter(all));
    }
    shared_.post([call, peer = *std::move(admitted.peer), all = std::move(all),
                  r](Handler& handler) mutable {
      handler.apply(peer, std::move(all), call->replies_to(r));
    });
    return call;
  }
  Reactor* Delete(Context* context, const pb::DeleteRequest* q, pb::DetachReply* r) override {
    return as_job(shared_, *context, May::kDeclare, q, r, &Handler::remove);
  }
  Reactor* ReleaseName(Context* context, const pb::NameRequest* q, pb::Empty* r) override {
    return as_job(shared_, *context, May::kDeclare, q, r, &Handler::release_name);
  }

 private:
  Shared& shared_;
};

class StatusService final : public pb::Status::CallbackService {
 public:
  explicit StatusService(Shared& shared) : shared_(shared) {}

  Reactor* ListWorkloads(Context* context, const pb::Empty*, pb::WorkloadList* r) override {
    return as_job(shared_, *context, May::kRead, r, &Handler::list_workloads);
  }
  Reactor* ListServices(Context* context, const pb::Empty*, pb::ServiceList* r) override {
    return as_job(shared_, *context, May::kRead, r, &Handler::list_services);
  }
  Reactor* ListPublished(Context* context, const pb::Empty*, pb::PublishedList* r) override {
    return as_job(shared_, *context, May::kRead, r, &Handler::list_published);
  }
  Reactor* ListNodes(Context* context, const pb::Empty*, pb::NodeList* r) override {
    return as_job(shared_, *context, May::kRead, r, &Handler::list_nodes);
  }
  Reactor* ListRefused(Context* context, const pb::Empty*, pb::RefusedList* r) override {
    return as_job(shared_, *context, May::kRead, r, &Handler::list_refused);
  }
  Reactor* GetStatus(Context* context, const pb::Empty*, pb::StatusReply* r) override {
    return as_job(shared_, *context, May::kRead, r, &Handler::get_status);
  }
  Reactor* Explain(Context* context, const pb::ExplainRequest* q, pb::ExplainReply* r) override {
    return as_job(shared_, *context, May::kRead, q, r, &Handler::explain);
  }
  grpc::ServerWriteReactor<pb::Event>* Watch(Context* context, const pb::WatchRequest* q) override {
    return start_watch(shared_, *context, *q);
  }

 private:
  Shared& shared_;
};

// --- the servers ---------------------------------------------------------------------

class GrpcServer final : public Server {
 public:
  Status serve(const ServerOptions& options) {
    shared_.cluster = options.cluster;
    if (!options.listen.empty()) {
      const auto credentials = TRY(pki::make_server_credentials(options.files));
      grpc::ServerBuilder builder;
      builder.RegisterService(&cluster_);
      builder.RegisterService(&control_);
      builder.RegisterService(&status_);
      builder.RegisterService(admin_.get());
      server_ = start(builder, options.listen, credentials, kMaxMessageBytes, port_);
      if (!server_) return fail(ErrorCode::kSystem, "listen: cannot bind " + options.listen);
    }
    if (!options.join_listen.empty()) {
      const auto credentials = TRY(pki::make_join_server_credentials(options.files));
      grpc::ServerBuilder builder;
      builder.RegisterService(&join_);
      join_server_ = start(builder, options.join_listen, credentials, kMaxJoinBytes, join_port_);
      if (!join_server_) {
        return fail(ErrorCode::kSystem, "join_listen: cannot bind " + options.join_listen);
      }
    }
    return {};
  }

  Mailbox<Job>& jobs() override { return shared_.jobs; }
  int port() const override { return port_; }
  int join_port() const override { return join_port_; }

  void shutdown(Handler& handler) override {
    // Shutdown() returns when every call has ended, and only jobs on this thread end them.
    const auto closed = std::make_shared<std::atomic<bool>>(false);
    std::thread closing([this, closed] {
      const auto cut = std::chrono::system_clock::now() + kShutdownGrace;
      if (join_server_) join_server_->Shutdown(cut);
      if (server_) server_->Shutdown(cut);
      *closed = true;
      shared_.post([](Handler&) {});
    });
    const auto end = std::chrono::steady_clock::now() + kShutdownLimit;
    while (!*closed && std::chrono::steady_clock::now() < end) {
      pollfd wait{shared_.jobs.fd(), POLLIN, 0};
      poll(&wait, 1, 100);
      for (auto& job : shared_.jobs.drain()) job(handler);
    }
    closing.join();
    for (auto& job : shared_.jobs.drain()) job(handler);
  }

 private:
  static std::unique_ptr<grpc::Server> start(
      grpc::ServerBuilder& builder, const std::string& address,
      const std::shared_ptr<grpc::ServerCredentials>& credentials, int max_bytes, int& port) {
    builder.AddListeningPort(address, credentials, &port);
    builder.SetMaxReceiveMessageSize(max_bytes);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // another one there is an error
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
    return builder.BuildAndStart();
  }

  Shared shared_;
  ClusterService cluster_{shared_};
  JoinService join_{shared_};
  ControlService control_{shared_};
  StatusService status_{shared_};
  const std::unique_ptr<grpc::Service> admin_ = make_admin_service(shared_);
  std::unique_ptr<grpc::Server> server_, join_server_;
  int port_ = 0, join_port_ = 0;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::make(const ServerOptions& options) {
  auto server = std::make_unique<GrpcServer>();
  CHECK_OK(server->serve(options));
  return server;
}

}  // namespace meshd::controller
