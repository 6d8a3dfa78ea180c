#include "controller/app.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/log.h"
#include "controller/report.h"

namespace meshd::controller {
namespace {

// The roles that the server lets declare.
Author author_of(const pki::Peer& peer) {
  return {
      peer.identity.role == pki::Role::kAdmin ? Author::Role::kAdmin : Author::Role::kDispatcher,
      peer.identity.name};
}

}  // namespace

std::string audit_name(const pki::Peer& peer) {
  return fmt::format("{}/{}", pki::role_name(peer.identity.role), peer.identity.name);
}

void audit(const std::string& subject, const std::string& what, const Status& outcome) {
  // The subject before the first colon: whoever asks all the time, such as a machine with a wrong
  // token, uses up its own share of the log's lines and nobody else's.
  log::info("audit {}: {}: {}", subject, what, outcome ? "done" : outcome.error().what);
}

pki::UtcTime App::utc() const { return pki::UtcTime(std::chrono::seconds(now_().wall_ms / 1000)); }

void App::opened(NodeStream& stream, const pki::Peer& peer) {
  streams_.insert_or_assign(&stream, peer);
}

void App::message(NodeStream& stream, const mesh::v1::FromNode& message) {
  const auto found = streams_.find(&stream);
  if (found == streams_.end()) return stream.close();
  controller_.on_message(found->second.identity.name, stream, message, now_());
}

void App::closed(NodeStream& stream) {
  controller_.on_closed(stream, now_());
  streams_.erase(&stream);
}

void App::end_expired() {
  const auto now = utc();
  for (const auto& [stream, peer] : streams_) {
    if (peer.until > now) continue;
    log::warning("node {}: its certificate has ended", peer.identity.name);
    stream->close();
  }
}

Result<mesh::v1::EnrolReply> App::issue(const std::string& csr, const pki::Holder& holder) const {
  const auto certificate =
      TRY(pki::issue(authority_.certificate, authority_.key, csr, holder, utc()));
  mesh::v1::EnrolReply reply;
  reply.set_certificate(certificate.to_pem());
  reply.set_ca(authority_.certificate.to_pem());
  return reply;
}

void App::renew(const pki::Peer& peer, const std::string& csr, Reply<mesh::v1::EnrolReply> reply) {
  if (peer.identity.role != pki::Role::kNode) {
    return reply(fail(ErrorCode::kConflict, "renew: for nodes only"));
  }
  auto certificate = issue(csr, {.identity = peer.identity});
  audit(audit_name(peer), "renew", certificate ? Status() : std::unexpected(certificate.error()));
  reply(std::move(certificate));
}

void App::enrol(const mesh::v1::EnrolRequest& request, const IpAddress& source,
                Reply<mesh::v1::EnrolReply> reply) {
  const auto judge = [&]() -> Status {
    if (const auto why = pki::label_problem(request.name()); !why.empty()) {
      return fail(ErrorCode::kInvalid, "name: " + why);
    }
    // Before a use of the token is counted.
    CHECK_OK(pki::check_csr(request.csr()));
    return controller_.let_in(request.token(), source, request.name(), now_());
  };
  const auto status = judge();
  audit(source.to_string(), fmt::format("join as {}", request.name()), status);
  if (!status) {
    // Whoever has no token learns nothing about tokens and nodes.
    const bool store_away = status.error().code == ErrorCode::kSystem;
    return reply(fail(store_away ? ErrorCode::kSystem : ErrorCode::kConflict,
                      store_away ? "join: the store is away" : std::string(kTokenRefused)));
  }
  reply(issue(request.csr(), {.identity = {authority_.cluster, pki::Role::kNode, request.name()}}));
}

void App::apply(const pki::Peer& peer, std::vector<policy::Declaration> declarations,
                Reply<mesh::v1::ApplyReply> reply) {
  using Change = mesh::v1::Change::Kind;
  mesh::v1::ApplyReply answer;
  for (const auto& declaration : declarations) {
    const auto* before = controller_.cluster().declaration(declaration.id);
    auto& change = *answer.add_changes();
    change.set_subject(declaration.id);
    change.set_kind(before == nullptr        ? Change::WORKLOAD_ADDED
                    : *before == declaration ? Change::WORKLOAD_UNCHANGED
                                             : Change::WORKLOAD_CHANGED);
  }
  std::ranges::sort(*answer.mutable_changes(), [](const auto& a, const auto& b) {
    return std::pair(a.kind(), a.subject()) < std::pair(b.kind(), b.subject());
  });
  const auto count = declarations.size();
  const auto status = controller_.declare(author_of(peer), std::move(declarations), "", now_());
  audit(audit_name(peer), fmt::format("apply {} workloads", count), status);
  if (!status) return reply(std::unexpected(status.error()));
  answer.set_generation(controller_.revision());
  reply(std::move(answer));
}

void App::remove(const pki::Peer& peer, const mesh::v1::DeleteRequest& request,
                 Reply<mesh::v1::DetachReply> reply) {
  const auto* placement = controller_.cluster().placement(request.id());
  mesh::v1::DetachReply answer;
  answer.set_was_attached(placement != nullptr && !placement->reported.addresses().empty());
  const auto status = controller_.forget(author_of(peer), request.id(), request.force(), now_());
  audit(audit_name(peer), "delete " + request.id(), status);
  if (!status) return reply(std::unexpected(status.error()));
  reply(std::move(answer));
}

void App::release_name(const pki::Peer& peer, const mesh::v1::NameRequest& request,
                       Reply<mesh::v1::Empty> reply) {
  const auto status = controller_.release(author_of(peer), request.name(), now_());
  audit(audit_name(peer), "name release " + request.name(), status);
  if (!status) return reply(std::unexpected(status.error()));
  reply(mesh::v1::Empty());
}

void App::list_workloads(Reply<mesh::v1::WorkloadList> reply) {
  reply(workload_list(controller_.cluster()));
}
void App::list_services(Reply<mesh::v1::ServiceList> reply) {
  reply(service_list(controller_.cluster()));
}
void App::list_published(Reply<mesh::v1::PublishedList> reply) {
  reply(published_list(controller_.cluster()));
}
void App::list_nodes(Reply<mesh::v1::NodeList> reply) {
  reply(node_list(controller_.cluster(), controller_.node_status()));
}
void App::get_status(Reply<mesh::v1::StatusReply> reply) { reply(status_reply(controller_)); }

}  // namespace meshd::controller
