// A call of people and programs at the server: who asks, whether they may, and the Job that
// answers. For controller/server.cc and the services that have files of their own.
//
// Threads:   gRPC's; of all of it only Jobs run on the controller's loop.
// Invariant: a call is answered exactly once: refused here, or by the Job that it became.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "controller/server.h"

namespace meshd::controller {

[[nodiscard]] grpc::Status to_status(const Error& error);

// What sessions and calls share.
struct Shared {
  // A session has at most one read, one write and one end to tell of; a call its start, or that
  // it was turned away; a watcher what a session has.
  Mailbox<Server::Job> jobs{5 * Server::kMaxSessions + 4 * Server::kMaxCalls};
  std::atomic<std::size_t> sessions{0}, calls{0}, watchers{0};
  std::string cluster;

  void post(Server::Job job);
  // Told to the loop, which counts and logs it. What it has no room for is lost: a storm.
  void turn_away(std::string_view why, std::string text);
};

[[nodiscard]] Result<pki::Peer> peer_of(const grpc::CallbackServerContext& context,
                                        const Shared& shared);

class Call final : public grpc::ServerUnaryReactor {
 public:
  explicit Call(Shared& shared);
  [[nodiscard]] bool admitted() const { return admitted_; }
  void refuse(grpc::Status status);
  template <class Response>
  Reply<Response> replies_to(Response* response) {
    return [this, response](Result<Response> result) {
      if (!result) return Finish(to_status(result.error()));
      *response = std::move(*result);
      Finish(grpc::Status::OK);
    };
  }
  void OnDone() override;

 private:
  Shared& shared_;
  bool admitted_ = false;
};

enum class May { kRead, kDeclare, kAdminister };

// Why somebody may not; absent: they may, and `peer` is who they are.
[[nodiscard]] std::optional<grpc::Status> refusal_of(const grpc::CallbackServerContext& context,
                                                     Shared& shared, May may,
                                                     std::optional<pki::Peer>* peer = nullptr);

// A call by somebody who may, or one that is refused already.
struct Admitted {
  Call* call = nullptr;
  std::optional<pki::Peer> peer;
};
[[nodiscard]] Admitted admit(const grpc::CallbackServerContext& context, Shared& shared, May may);

using Reactor = grpc::ServerUnaryReactor;
using Context = grpc::CallbackServerContext;

template <class Request, class Response>
Reactor* as_job(Shared& shared, const Context& context, May may, const Request* request,
                Response* response,
                void (Handler::*method)(const pki::Peer&, const Request&, Reply<Response>)) {
  auto admitted = admit(context, shared, may);
  auto* const call = admitted.call;
  if (!admitted.peer) return call;
  shared.post([=, peer = *std::move(admitted.peer)](Handler& handler) {
    (handler.*method)(peer, *request, call->replies_to(response));
  });
  return call;
}
template <class Response>
Reactor* as_job(Shared& shared, const Context& context, May may, Response* response,
                void (Handler::*method)(Reply<Response>)) {
  const auto admitted = admit(context, shared, may);
  auto* const call = admitted.call;
  if (!admitted.peer) return call;
  shared.post([=](Handler& handler) { (handler.*method)(call->replies_to(response)); });
  return call;
}

}  // namespace meshd::controller
