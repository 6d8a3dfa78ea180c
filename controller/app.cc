#include "controller/app.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/log.h"
#include "controller/explain.h"
#include "controller/grpc_log.h"
#include "controller/report.h"
#include "policy/refused_list.h"

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

std::string key_text(const pki::Sha256& digest) { return {digest.begin(), digest.end()}; }

// Whoever has a certificate is answerable for each line of theirs: none is left out.
void App::audit(const pki::Peer& peer, std::string_view command, const std::string& what,
                const Status& outcome) {
  ++counts_.commands[{std::string(command), metrics::outcome_word(outcome)}];
  log::audit(fmt::format("audit {}: {}: {}", audit_name(peer), what,
                         outcome ? "done" : outcome.error().what));
}

pki::UtcTime App::utc() const { return pki::UtcTime(std::chrono::seconds(now_().wall_ms / 1000)); }

bool App::send_away(NodeStream& stream, const pki::Peer& peer) {
  const auto& name = peer.identity.name;
  if (!is_dismissed(controller_.cluster(), name, key_text(peer.key_digest), peer.since)) {
    return false;
  }
  turned_away("dismissed", fmt::format("node {}: dismissed, and has not joined since", name));
  mesh::v1::ToNode message;
  message.mutable_farewell()->set_reason(std::string(kDismissed));
  message.mutable_farewell()->set_retry_after_ms(static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(kDismissedPause).count()));
  stream.send(std::move(message));
  stream.close();
  return true;
}

void App::opened(NodeStream& stream, const pki::Peer& peer) {
  if (!send_away(stream, peer)) streams_.insert_or_assign(&stream, peer);
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
  // Not where a slow one is dropped: that is in the middle of being told.
  if (watchers_.empty()) controller_.tell_events({});
  const auto now = utc();
  for (const auto& [stream, peer] : streams_) {
    if (peer.until > now) {
      [[maybe_unused]] const bool away = send_away(*stream, peer);
      continue;
    }
    ++counts_.turned_away["expired"];
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
  if (is_dismissed(controller_.cluster(), peer.identity.name, key_text(peer.key_digest),
                   peer.since)) {
    audit(peer, "renew", "renew", fail(ErrorCode::kConflict, std::string(kDismissed)));
    return reply(fail(ErrorCode::kConflict, std::string(kDismissed)));
  }
  auto certificate = issue(csr, {.identity = peer.identity});
  audit(peer, "renew", "renew", certificate ? Status() : std::unexpected(certificate.error()));
  reply(std::move(certificate));
}

void App::enrol(const mesh::v1::EnrolRequest& request, const IpAddress& source,
                Reply<mesh::v1::EnrolReply> reply) {
  const auto judge = [&]() -> Status {
    if (const auto why = pki::label_problem(request.name()); !why.empty()) {
      return fail(ErrorCode::kInvalid, "name: " + why);
    }
    // Before a use of the token is counted.
    const auto key = TRY(pki::check_csr(request.csr()));
    return controller_.let_in(request.token(), source, request.name(), key_text(key), now_());
  };
  const auto status = judge();
  ++counts_.joins[metrics::outcome_word(status)];
  const auto line = fmt::format("audit {}: join as {}: {}", source.to_string(), request.name(),
                                status ? "done" : status.error().what);
  // Who is refused has no certificate and may ask all the time: those lines are limited, by what
  // stands before the first colon.
  if (status) {
    log::audit(line);
  } else {
    log::warning("{}", line);
  }
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
  audit(peer, "apply", fmt::format("apply {} workloads", count), status);
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
  audit(peer, "delete", "delete " + request.id(), status);
  if (!status) return reply(std::unexpected(status.error()));
  reply(std::move(answer));
}

void App::release_name(const pki::Peer& peer, const mesh::v1::NameRequest& request,
                       Reply<mesh::v1::Empty> reply) {
  const auto status = controller_.release(author_of(peer), request.name(), now_());
  audit(peer, "name release", "name release " + request.name(), status);
  if (!status) return reply(std::unexpected(status.error()));
  reply(mesh::v1::Empty());
}

void App::list_workloads(Reply<mesh::v1::WorkloadList> reply) { reply(workload_list(controller_)); }
void App::list_services(Reply<mesh::v1::ServiceList> reply) {
  reply(service_list(controller_.cluster(), controller_.stale()));
}
void App::list_published(Reply<mesh::v1::PublishedList> reply) {
  reply(published_list(controller_.cluster(), controller_.web()));
}
void App::list_nodes(Reply<mesh::v1::NodeList> reply) {
  reply(node_list(controller_.cluster(), controller_.node_status()));
}
void App::list_refused(Reply<mesh::v1::RefusedList> reply) {
  reply(policy::refused_list(controller_.refused_pairs()));
}
void App::get_status(Reply<mesh::v1::StatusReply> reply) { reply(status_reply(controller_)); }

void App::explain(const pki::Peer&, const mesh::v1::ExplainRequest& request,
                  Reply<mesh::v1::ExplainReply> reply) {
  reply(explain_reply(controller_, request, now_().steady));
}

// --- watching ------------------------------------------------------------------------

void App::tell(mesh::v1::Event event) {
  event.set_time(policy::time_text(now_().wall_ms));
  const bool refusal = event.kind() == mesh::v1::Event::Kind::REFUSED_FLOW ||
                       event.kind() == mesh::v1::Event::Kind::PROBLEM;
  std::erase_if(watchers_, [&](const Watching& one) {
    return (refusal || !one.refused_only) && !one.stream->send(event);
  });
}

void App::watch(std::shared_ptr<EventStream> stream, bool refused_only) {
  watchers_.push_back({std::move(stream), refused_only});
  controller_.tell_events([this](mesh::v1::Event event) { tell(std::move(event)); });
}

void App::unwatch(const EventStream& stream) {
  std::erase_if(watchers_, [&](const Watching& one) { return one.stream.get() == &stream; });
  if (watchers_.empty()) controller_.tell_events({});
}

void App::turned_away(std::string_view why, const std::string& text) {
  ++counts_.turned_away[std::string(why)];
  log::warning("turned away: {}", text);
}

std::string App::metrics_text(std::optional<proxy::EndpointCounts> web) const {
  auto counts = counts_;
  counts.web = std::move(web);
  counts.handshakes_refused = refused_handshakes();
  counts.watchers = watchers_.size();
  return render(controller_, counts);
}

}  // namespace meshd::controller
