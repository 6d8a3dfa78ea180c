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

void Shared::turn_away(std::string_view why, std::string text) {
  [[maybe_unused]] const bool told = jobs.post(
      [why, text = std::move(text)](Handler& handler) { handler.turned_away(why, text); });
}

Call::Call(Shared& shared) : shared_(shared) {
  admitted_ = shared_.calls.fetch_add(1) < Server::kMaxCalls;
  if (admitted_) return;
  shared_.turn_away("overload", "too many calls in flight");
  refuse({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many calls in flight"});
}

void Call::refuse(grpc::Status status) {
  admitted_ = false;
  Finish(std::move(status));
}

void Call::OnDone() {
  shared_.calls.fetch_sub(1);
  delete this;
}

std::optional<grpc::Status> refusal_of(const grpc::CallbackServerContext& context, Shared& shared,
                                       May may, std::optional<pki::Peer>* peer) {
  auto known = peer_of(context, shared);
  if (!known) {
    shared.turn_away("certificate", fmt::format("{}: {}", context.peer(), known.error().what));
    return grpc::Status(grpc::StatusCode::UNAUTHENTICATED, known.error().what);
  }
  if (!allows(known->identity.role, may)) {
    const auto text = fmt::format("{} may not do that", known->identity.to_string());
    shared.turn_away("role", text);
    return grpc::Status(grpc::StatusCode::PERMISSION_DENIED, text);
  }
  if (peer != nullptr) *peer = *std::move(known);
  return std::nullopt;
}

Admitted admit(const grpc::CallbackServerContext& context, Shared& shared, May may) {
  auto* const call = new Call(shared);
  if (!call->admitted()) return {call, {}};
  std::optional<pki::Peer> peer;
  if (const auto refusal = refusal_of(context, shared, may, &peer)) call->refuse(*refusal);
  return {call, std::move(peer)};
}

}  // namespace meshd::controller
