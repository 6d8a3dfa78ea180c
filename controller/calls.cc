#include "controller/calls.h"

#include <fmt/format.h>

#include <chrono>

#include "base/log.h"

namespace meshd::controller {
namespace {

// Whether people with that certificate may do that.
bool allows(pki::Role role, May may) {
  switch (role) {
    case pki::Role::kAdmin:
      return true;
    case pki::Role::kDispatcher:
      return may == May::kRead || may == May::kDeclare;
    case pki::Role::kReader:
      return may == May::kRead;
    case pki::Role::kNode:
    case pki::Role::kController:
      return false;
  }
  return false;
}

}  // namespace

grpc::Status to_status(const Error& error) {
  using grpc::StatusCode;
  switch (error.code) {
    case ErrorCode::kInvalid:
      return {StatusCode::INVALID_ARGUMENT, error.what};
    case ErrorCode::kNotFound:
      return {StatusCode::NOT_FOUND, error.what};
    case ErrorCode::kConflict:
      return {StatusCode::FAILED_PRECONDITION, error.what};
    case ErrorCode::kUnsupported:
      return {StatusCode::UNIMPLEMENTED, error.what};
    case ErrorCode::kExhausted:
      return {StatusCode::RESOURCE_EXHAUSTED, error.what};
    case ErrorCode::kNotInForce:
      return {StatusCode::ABORTED, error.what};
    case ErrorCode::kSystem:
      return {StatusCode::UNAVAILABLE, error.what};
    case ErrorCode::kInternal:
      break;
  }
  return {StatusCode::INTERNAL, error.what};
}

void Shared::post(Server::Job job) {
  if (!jobs.post(std::move(job))) log::error("server: the job queue is full: a job is lost");
}

Result<pki::Peer> peer_of(const grpc::CallbackServerContext& context, const Shared& shared) {
  const auto authentication = context.auth_context();
  if (!authentication) return fail(ErrorCode::kInvalid, "no certificate");
  return pki::peer_of(*authentication, shared.cluster,
                      std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()));
}

Call::Call(Shared& shared) : shared_(shared) {
  admitted_ = shared_.calls.fetch_add(1) < Server::kMaxCalls;
  if (!admitted_) refuse({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many calls in flight"});
}

void Call::refuse(grpc::Status status) {
  admitted_ = false;
  Finish(std::move(status));
}

void Call::OnDone() {
  shared_.calls.fetch_sub(1);
  delete this;
}

Admitted admit(const grpc::CallbackServerContext& context, Shared& shared, May may) {
  auto* const call = new Call(shared);
  if (!call->admitted()) return {call, {}};
  auto peer = peer_of(context, shared);
  if (!peer) {
    call->refuse({grpc::StatusCode::UNAUTHENTICATED, peer.error().what});
    return {call, {}};
  }
  if (!allows(peer->identity.role, may)) {
    call->refuse({grpc::StatusCode::PERMISSION_DENIED,
                  fmt::format("{} may not do that", peer->identity.to_string())});
    return {call, {}};
  }
  return {call, *std::move(peer)};
}

}  // namespace meshd::controller
