// The second half of Daemon: what the API's calls do.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "meshd/audit_text.h"
#include "meshd/daemon.h"
#include "meshd/report.h"
#include "netlink/netns.h"
#include "policy/from_proto.h"

namespace meshd {

namespace pb = mesh::v1;

namespace {

Proto read_protocol(pb::Protocol::Value value) {
  return value == pb::Protocol::UDP ? Proto::kUdp : Proto::kTcp;
}

pb::Verdict::Value verdict_message(policy::FlowVerdict verdict) {
  switch (verdict) {
    case policy::FlowVerdict::kAllowed:
      return pb::Verdict::ALLOWED;
    case policy::FlowVerdict::kHeld:
      return pb::Verdict::HELD;
    case policy::FlowVerdict::kRefused:
      break;
  }
  return pb::Verdict::REFUSED;
}

std::string with_owner(const policy::World& world, const std::string& id) {
  const auto found = world.workloads.find(id);
  if (found == world.workloads.end()) return id;
  return fmt::format("{} of {}", id, found->second.declaration.owner);
}

// Of containers, whoever knows of them.
Problems problems_of(const Node& node) {
  auto all = node.problems();
  if (node.cluster() == nullptr) return all;
  for (auto& [id, problems] : node.cluster()->problems()) {
    std::ranges::move(problems, std::back_inserter(all[id]));
  }
  return all;
}

}  // namespace

// Who changed what, line by line, and counted. Only root can open control.sock, but root is many.
template <class T>
Reply<T> Daemon::audited(Caller caller, std::string_view command, std::vector<std::string> lines,
                         Reply<T> reply) {
  return [this, caller, command = std::string(command), lines = std::move(lines),
          reply = std::move(reply)](Result<T> result) mutable {
    const auto status = result ? Status() : Status(std::unexpected(result.error()));
    ++counts_.commands[{command, metrics::outcome_word(status)}];
    const auto outcome = status ? "done" : "refused: " + status.error().what;
    for (const auto& line : lines) {
      log::audit(fmt::format("control.sock: {}: {}: {}", caller_text(caller), line, outcome));
    }
    reply(std::move(result));
  };
}

void Daemon::apply(std::vector<policy::Declaration> declarations, Caller caller,
                   Reply<pb::ApplyReply> reply) {
  auto lines = apply_lines(declarations);
  // Whoever hears that it is declared starts it next, and by then engines must know.
  auto noted = [this, reply = std::move(reply)](Result<pb::ApplyReply> result) mutable {
    const auto told = note_declared();
    if (result && !told) {
      return reply(fail(ErrorCode::kNotInForce, "stored, not in force: " + told.error().what));
    }
    reply(std::move(result));
  };
  node_->apply(std::move(declarations), BootClock::now(),
               audited<pb::ApplyReply>(caller, "apply", std::move(lines), std::move(noted)),
               caller.deadline);
}

void Daemon::plan(std::vector<policy::Declaration> declarations, Reply<pb::PlanReply> reply) {
  const auto changes = node_->plan(std::move(declarations), BootClock::now());
  if (!changes) return reply(std::unexpected(changes.error()));
  pb::PlanReply answer;
  for (const auto& change : *changes) *answer.add_changes() = change_message(change);
  reply(std::move(answer));
}

void Daemon::attach(const pb::AttachRequest& request, Caller caller,
                    Reply<pb::AttachReply> unaudited) {
  auto reply = audited(caller, "attach", {"attach " + with_owner(node_->world(), request.id())},
                       std::move(unaudited));
  const auto netns =
      netlink::Netns::open_handed_over(request.pid(), request.fd(), request.netns_ino());
  if (!netns) return reply(std::unexpected(Error(netns.error()).in("attach " + request.id())));
  const auto own = netlink::Netns::own();
  if (!own) return reply(std::unexpected(own.error()));
  if (own->id() == netns->id()) {
    return reply(fail(ErrorCode::kInvalid,
                      "attach " + request.id() + ": that is the node's own network namespace"));
  }
  AttachSpec spec;
  spec.id = request.id();
  spec.netns_fd = netns->fd();
  spec.netns = {netns->id().dev, netns->id().ino};
  spec.netns_path = request.netns();
  spec.ifname = request.ifname().empty() ? "eth0" : request.ifname();
  if (!netlink::valid_link_name(spec.ifname)) {
    return reply(fail(ErrorCode::kInvalid, "attach " + spec.id + ": ifname: not a link's name"));
  }
  spec.default_route = !request.no_default_route();
  spec.prepared = request.prepared();
  spec.deadline = caller.deadline;
  node_->attach(spec, BootClock::now(),
                [this, id = spec.id,
                 reply = std::move(reply)](Result<policy::Attachment> attachment) mutable {
                  if (!attachment) return reply(std::unexpected(std::move(attachment).error()));
                  reply(attach_reply(node_->world(), id, node_->mtu()));
                });
}

bool Daemon::is_attached_as(const std::string& id, const std::string& netns) const {
  const auto found = node_->world().workloads.find(id);
  if (found == node_->world().workloads.end()) return false;
  const auto& attachment = found->second.attachment;
  return attachment && attachment->netns_path == netns;
}

void Daemon::detach(const pb::DetachRequest& request, Caller caller, Reply<pb::DetachReply> reply) {
  if (request.removed_netns_ino() != 0) {
    return node_->forget_netns(request.id(), request.removed_netns_ino(), BootClock::now(),
                               std::move(reply));
  }
  if (request.left_only()) return reply(node_->left_netns(request.id()));
  if (!request.only_netns().empty() && !is_attached_as(request.id(), request.only_netns())) {
    return reply(pb::DetachReply());
  }
  node_->detach(request.id(), BootClock::now(),
                audited(caller, "detach", {"detach " + with_owner(node_->world(), request.id())},
                        std::move(reply)),
                caller.deadline);
}
void Daemon::drain(const pb::WorkloadRequest& request, Caller caller, Reply<pb::Empty> reply) {
  node_->drain(request.id(), BootClock::now(),
               audited(caller, "drain", {"drain " + with_owner(node_->world(), request.id())},
                       std::move(reply)));
}
void Daemon::remove(const pb::DeleteRequest& request, Caller caller, Reply<pb::DetachReply> reply) {
  node_->remove(request.id(), request.force(), BootClock::now(),
                audited(caller, "delete", {"delete " + with_owner(node_->world(), request.id())},
                        std::move(reply)));
}
void Daemon::release_name(const pb::NameRequest& request, Caller caller, Reply<pb::Empty> reply) {
  node_->release_name(
      request.name(), BootClock::now(),
      audited(caller, "name release", {"name release " + request.name()}, std::move(reply)));
}

void Daemon::list_workloads(const pb::Empty&, Reply<pb::WorkloadList> reply) {
  reply(workload_list(node_->world(), problems_of(*node_)));
}
void Daemon::list_services(const pb::Empty&, Reply<pb::ServiceList> reply) {
  reply(service_list(node_->world()));
}
void Daemon::list_published(const pb::Empty&, Reply<pb::PublishedList> reply) {
  reply(published_list(node_->world()));
}
void Daemon::list_nodes(const pb::Empty&, Reply<pb::NodeList> reply) {
  auto list = node_list(node_->world());
  list.mutable_nodes(0)->set_version(std::string(kVersion));
  list.mutable_nodes(0)->set_generation(node_->generations().named);
  list.mutable_nodes(0)->set_problem(node_->behind());
  reply(std::move(list));
}
void Daemon::list_flows(const pb::Empty&, Reply<pb::FlowList> reply) {
  std::vector<ElementCount> counts;
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    const auto set = static_cast<policy::SetId>(i);
    if (!policy::set_info(set).counter) continue;
    auto some = kernel_->counters(set);
    if (!some) return reply(std::unexpected(std::move(some).error()));
    std::ranges::move(*some, std::back_inserter(counts));
  }
  reply(flow_list(node_->world(), counts));
}

void Daemon::explain(const pb::ExplainRequest& request, Reply<pb::ExplainReply> reply) {
  if (request.port() == 0 || request.port() > 65535) {
    return reply(fail(ErrorCode::kInvalid, "explain: port: must be 1 to 65535"));
  }
  const auto why = node_->explain(request.src(), request.dst(), read_protocol(request.protocol()),
                                  static_cast<std::uint16_t>(request.port()), BootClock::now());
  if (!why) return reply(std::unexpected(why.error()));
  pb::ExplainReply answer;
  answer.set_verdict(verdict_message(why->verdict));
  answer.set_reason(why->reason);
  for (const auto& line : why->lines) answer.add_lines(line);
  if (!why->missing.empty()) answer.add_lines("missing " + why->missing);
  reply(std::move(answer));
}

void Daemon::resolve(const pb::ResolveRequest& request, Reply<pb::ResolveReply> reply) {
  const auto found = node_->world().workloads.find(request.id());
  if (found == node_->world().workloads.end()) {
    return reply(fail(ErrorCode::kNotFound, "resolve: no workload " + request.id()));
  }
  const auto type = dns::type_number(request.type().empty() ? "A" : request.type());
  if (!type) return reply(fail(ErrorCode::kInvalid, "resolve: unknown type " + request.type()));
  if (!found->second.attachment) {
    // What the resolver does with an address that is nobody's.
    pb::ResolveReply answer;
    answer.set_rcode("DROPPED");
    answer.set_reason(request.id() + " is not attached, so it cannot ask");
    return reply(std::move(answer));
  }
  const auto& attachment = *found->second.attachment;
  const auto& client = attachment.v4 ? *attachment.v4 : *attachment.v6;
  const auto resolved = names_->resolve(client, request.name(), *type);
  pb::ResolveReply answer;
  answer.set_rcode(resolved.rcode);
  answer.set_ede(resolved.ede);
  answer.set_reason(resolved.reason);
  for (const auto& record : resolved.answers) {
    auto& entry = *answer.add_answers();
    entry.set_name(record.name);
    entry.set_type(record.type);
    entry.set_ttl(record.ttl);
    entry.set_data(record.data);
  }
  reply(std::move(answer));
}

void Daemon::get_status(const pb::Empty&, Reply<pb::StatusReply> reply) { reply(status_reply()); }

pb::StatusReply Daemon::status_reply() const {
  pb::StatusReply answer;
  const auto& generations = node_->generations();
  auto& shown = *answer.mutable_generations();
  shown.set_stored(generations.stored);
  shown.set_planned(generations.planned);
  shown.set_installed(generations.installed);
  shown.set_named(generations.named);
  const auto* const cluster = node_->cluster();
  // With nobody to report to it is as good as reported.
  shown.set_reported(cluster && cluster->terms() ? cluster->reported() : generations.named);
  const auto add = [&](std::string subject, std::string detail) {
    auto& problem = *answer.add_problems();
    problem.set_subject(std::move(subject));
    problem.set_detail(std::move(detail));
  };
  if (!node_->behind().empty()) add("rules", node_->behind());
  if (const auto& trouble = node_->store_trouble(); !trouble.empty()) add("store", trouble);
  if (cluster && !cluster->trouble().empty()) add("cluster", cluster->trouble());
  if (!engine_trouble_.empty()) add("engines", engine_trouble_);
  if (!log_trouble_.empty()) add("refusals", log_trouble_);
  add_upstreams(dns_->upstream_states(), answer);
  for (const auto& trouble : underlay_trouble_) add("underlay", trouble);
  answer.set_healthy(answer.problems().empty() && generations.stored == generations.named);
  // Neither of these is the node's own: of others' rules not all is understood, and the rest are
  // the containers'.
  for (const auto& trouble : firewall_trouble_) add("firewall", trouble);
  for (const auto& [id, problems] : problems_of(*node_)) {
    for (const auto& problem : problems) add(id, problem);
  }
  for (auto& limit : limits_of(node_->world())) answer.add_limits(std::move(limit));
  answer.set_node(config_.node_name);
  answer.set_version(std::string(kVersion));
  answer.set_zone(settings_.zone);
  answer.set_workloads(static_cast<std::uint32_t>(node_->world().workloads.size()));
  answer.set_attached(static_cast<std::uint32_t>(node_->links().size()));
  answer.set_repairs(node_->repairs());
  answer.set_controller(cluster ? cluster->text() : "none");
  answer.set_watching(static_cast<std::uint32_t>(watchers_.size() + refusal_watchers_.size()));
  answer.set_waiting(static_cast<std::uint32_t>(node_->waiting()));
  return answer;
}

void Daemon::wait(const pb::WaitRequest& request, CallNumber call, Reply<pb::WaitReply> reply) {
  node_->wait(request.target(), std::chrono::milliseconds(request.timeout_ms()), call,
              BootClock::now(), std::move(reply));
}
void Daemon::cancel_wait(CallNumber call) { node_->cancel_wait(call); }

void Daemon::watch(const pb::WatchRequest& request, std::shared_ptr<EventStream> stream) {
  (request.refused_only() ? refusal_watchers_ : watchers_).push_back(std::move(stream));
}
void Daemon::unwatch(const EventStream& stream) {
  const auto is_it = [&](const auto& one) { return one.get() == &stream; };
  std::erase_if(watchers_, is_it);
  std::erase_if(refusal_watchers_, is_it);
}

void Daemon::stop(std::string_view why) {
  for (auto& job : std::exchange(jobs_, {})) job(*this);
  node_->give_up_waiting(why);
  for (auto* const streams : {&watchers_, &refusal_watchers_}) {
    for (const auto& stream : std::exchange(*streams, {})) stream->end(why);
  }
}

}  // namespace meshd
