// The second half of Node: events, and how what is planned comes in force.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "meshd/addressing.h"
#include "meshd/node.h"
#include "meshd/readiness.h"
#include "policy/allocate.h"

namespace meshd {

using policy::ServiceKey;
using policy::Touched;
namespace pb = mesh::v1;

// --- events --------------------------------------------------------------------------

void Node::on_listening(const std::string& id,
                        const std::map<std::uint16_t, policy::FamilyReady>& ready,
                        std::vector<std::string> problems, TimePoint now) {
  world_.now = now;
  const auto found = world_.workloads.find(id);
  if (found == world_.workloads.end() || !found->second.attachment) return;
  auto& workload = found->second;
  if (problems.empty()) {
    problems_.erase(id);
  } else {
    problems_[id] = std::move(problems);
  }
  // Once seen ready, a port stays ready until the detach: a server that restarts keeps
  // its name, its clients are refused by the kernel of the container meanwhile.
  auto merged = workload.tcp_ready;
  for (const auto& [port, families] : ready) {
    merged[port].v4 |= families.v4;
    merged[port].v6 |= families.v6;
  }
  if (merged == workload.tcp_ready) return;
  workload.tcp_ready = std::move(merged);
  refresh_ready(id, now);
  // A readiness that the store does not take is found again by the next poll after a start.
  note_store(persist({PutReady{id, workload.ready, workload.tcp_ready}}));
  bring_in_force(touched_by(id), now);
}

void Node::on_link_gone(const std::string& host_ifname, TimePoint now) {
  world_.now = now;
  for (const auto& [id, workload] : world_.workloads) {
    if (!workload.attachment || workload.attachment->host_ifname != host_ifname) continue;
    const auto gone = id;  // drop_attachment() changes the entry
    drop_attachment(gone, now);
    return;
  }
}

void Node::on_drift(TimePoint now) {
  world_.now = now;
  catch_up(now);
}

void Node::on_audit(TimePoint now) {
  world_.now = now;
  if (!behind_.empty()) return;  // the retry that is set looks at everything
  const auto repaired = kernel_.audit(links());
  if (!repaired) {
    emit(pb::Event::Kind::PROBLEM, {}, "audit: " + repaired.error().what);
    return;
  }
  for (const auto& what : repaired->what) emit(pb::Event::Kind::REPAIRED, {}, what);
  repairs_ += repaired->what.size();
}

void Node::on_timer(TimePoint now) {
  world_.now = now;
  if (retry_at_ && *retry_at_ <= now) catch_up(now);
  if (const auto deadline = compiler_.next_deadline(); deadline && *deadline <= now) {
    bring_in_force(compiler_.due(now), now);
  }
  std::vector<StoreChange> rested;
  for (const auto& [address, until] : quarantine_) {
    if (until <= now) rested.push_back(DropQuarantine{address});
  }
  std::erase_if(quarantine_, [&](const auto& entry) { return entry.second <= now; });
  if (!rested.empty()) note_store(persist(std::move(rested)));
  while (!waiting_.empty() && waiting_.front().deadline <= now) {
    auto late = std::move(waiting_.front());
    waiting_.pop_front();
    late.done(fail(ErrorCode::kNotInForce, "stored, not in force: " + behind_));
  }
  answer_waiters(now);
}

std::optional<TimePoint> Node::next_timer() const {
  std::optional<TimePoint> next;
  const auto sooner = [&](const std::optional<TimePoint>& when) {
    if (when && (!next || *when < *next)) next = when;
  };
  sooner(retry_at_);
  sooner(compiler_.next_deadline());
  if (!waiting_.empty()) sooner(waiting_.front().deadline);
  for (const auto& waiter : ready_waiters_) sooner(waiter.deadline);
  return next;
}

// --- in force ------------------------------------------------------------------------

Status Node::persist(std::vector<StoreChange> changes) {
  CHECK_OK(store_.apply(changes, generations_.stored + 1));
  ++generations_.stored;
  return {};
}

Status Node::check_room() const {
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    const auto set = static_cast<policy::SetId>(i);
    const auto& info = policy::set_info(set);
    const auto count = compiler_.element_count(set);
    if (info.size == 0 || count <= info.size) continue;
    return fail(ErrorCode::kExhausted,
                fmt::format("the kernel's set {} would need {} elements and holds {}", info.name,
                            count, info.size));
  }
  return {};
}

void Node::bring_in_force(const Touched& touched, TimePoint now) {
  bring_in_force(compiler_.update(world_, touched), now);
}

void Node::bring_in_force(policy::PlanDelta delta, TimePoint now) {
  generations_.planned = generations_.stored;
  note_translations(
      world_, delta.elements, [&](const policy::Element& e) { return compiler_.contains(e); },
      pending_erase_);
  pending_names_.merge(std::move(delta.views), std::move(delta.views_gone));
  if (!behind_.empty()) return;  // the retry that is set compares the whole table
  if (!delta.elements.empty()) {
    if (auto status = kernel_.commit(delta.elements); !status) {
      return fall_behind(status.error(), now);
    }
  }
  installed(now);
}

// Puts right whatever differs, known or not: dump, compare, one transaction.
void Node::catch_up(TimePoint now) {
  const bool was_behind = !behind_.empty();
  auto links_repaired = kernel_.audit(links());
  if (!links_repaired) return fall_behind(links_repaired.error(), now);
  auto table_repaired = kernel_.converge(compiler_.elements());
  if (!table_repaired) return fall_behind(table_repaired.error(), now);
  if (!was_behind) {  // else the difference is our own
    for (auto& what : table_repaired->what) links_repaired->what.push_back(std::move(what));
  }
  for (const auto& what : links_repaired->what) emit(pb::Event::Kind::REPAIRED, {}, what);
  repairs_ += links_repaired->what.size();
  installed(now);
}

void Node::fall_behind(const Error& error, TimePoint now) {
  if (behind_.empty()) retry_after_ = kRetryFirst;
  if (behind_ != error.what) emit(pb::Event::Kind::PROBLEM, {}, "rules: " + error.what);
  behind_ = error.what;
  retry_at_ = now + retry_after_;
  retry_after_ = std::min<Duration>(retry_after_ * 2, kRetryLast);
}

// The rules of the planned generation are in the kernel: what follows from that.
void Node::installed(TimePoint now) {
  behind_.clear();
  retry_at_.reset();
  if (!pending_erase_.empty()) {
    // Without this an open flow would go on to an endpoint that is gone: not yet in force.
    if (auto status = kernel_.erase_conntrack(pending_erase_); !status) {
      return fall_behind(status.error(), now);
    }
    pending_erase_ = {};
  }
  generations_.installed = generations_.planned;
  names_.publish(std::exchange(pending_names_, {}));
  generations_.named = generations_.planned;
  for (const auto& host_ifname : std::exchange(pending_disconnects_, {})) {
    // What stays is shut already and swept by the audit.
    if (auto status = kernel_.disconnect(host_ifname); !status) {
      emit(pb::Event::Kind::PROBLEM, {}, status.error().what);
    }
  }
  while (!waiting_.empty()) {
    auto done = std::move(waiting_.front().done);
    waiting_.pop_front();
    done({});
  }
  answer_waiters(now);
}

void Node::when_in_force(TimePoint now, std::move_only_function<void(Status)> done) {
  if (behind_.empty()) return done({});
  waiting_.push_back({now + kInForceLimit, std::move(done)});
}

void Node::answer_empty(TimePoint now, Reply<pb::Empty> reply) {
  when_in_force(now, [reply = std::move(reply)](Status s) mutable {
    if (!s) return reply(std::unexpected(std::move(s).error()));
    reply(pb::Empty{});
  });
}

// --- attachments ---------------------------------------------------------------------

// Shuts, unnames and takes down; what could not be stored is found by the next start,
// which sees that the link is gone.
void Node::drop_attachment(const std::string& id, TimePoint now) {
  auto& workload = world_.workloads.find(id)->second;
  const auto attachment = *workload.attachment;
  auto touched = touched_by(id);
  workload.attachment.reset();
  workload.draining = workload.ready = false;
  workload.tcp_ready.clear();
  problems_.erase(id);
  std::vector<StoreChange> changes{DropAttachment{id}};
  for (const auto family : kFamilies) {
    const auto& address = attachment.address(family);
    if (!address) continue;
    quarantine_[*address] = now + kQuarantine;
    changes.push_back(PutQuarantine{*address, now + kQuarantine});
    pending_erase_.addresses.push_back(*address);
  }
  note_store(persist(std::move(changes)));
  note_endpoint_lost(workload.declaration.service(), now);
  pending_disconnects_.push_back(attachment.host_ifname);
  bring_in_force(touched, now);
  emit(pb::Event::Kind::DETACHED, id);
}

// When a service's last endpoint goes, its consumers are held again, from now.
void Node::note_endpoint_lost(const std::optional<ServiceKey>& key, TimePoint now) {
  if (!key) return;
  const auto service = world_.services.find(*key);
  if (service == world_.services.end()) return;
  for (const auto& id : policy::members(world_, *key)) {
    const auto& workload = world_.workloads.find(id)->second;
    if (workload.attachment && workload.ready && !workload.draining) return;
  }
  service->second.endpoint_lost_at = now;
  note_store(persist({PutService{*key, service->second}}));
}

// A change that nobody waits for: the store is behind the world until the next one is
// taken, and a start finds out by itself what this would have said.
void Node::note_store(const Status& status) {
  store_trouble_ = status ? std::string() : status.error().what;
  if (!status) emit(pb::Event::Kind::PROBLEM, {}, "store: " + store_trouble_);
}

void Node::refresh_ready(const std::string& id, TimePoint now) {
  const auto found = world_.workloads.find(id);
  if (found == world_.workloads.end() || found->second.ready || !is_ready(found->second)) return;
  found->second.ready = true;
  emit(pb::Event::Kind::READY, id);
  answer_waiters(now);
}

// --- waiting for readiness -----------------------------------------------------------

namespace {

enum class Wanted { kUnknown, kNotYet, kReady };

Wanted look_up(const policy::World& world, const std::string& target) {
  auto found = Wanted::kUnknown;
  for (const auto& [id, workload] : world.workloads) {
    const auto& declaration = workload.declaration;
    const bool named =
        !declaration.name.empty() &&
        (target == declaration.name || target == declaration.name + "." + declaration.workflow);
    if (id != target && !named) continue;
    if (workload.ready && !workload.draining) return Wanted::kReady;
    found = Wanted::kNotYet;
  }
  return found;
}

}  // namespace

void Node::answer_waiters(TimePoint now) {
  // An answer may ask for something itself: take each waiter out before it is called.
  for (std::size_t i = 0; i < ready_waiters_.size();) {
    const auto state = look_up(world_, ready_waiters_[i].target);
    if (state == Wanted::kNotYet && ready_waiters_[i].deadline > now) {
      ++i;
      continue;
    }
    auto waiter = std::move(ready_waiters_[i]);
    ready_waiters_.erase(ready_waiters_.begin() + static_cast<std::ptrdiff_t>(i));
    if (state == Wanted::kUnknown) {
      waiter.reply(fail(ErrorCode::kNotFound,
                        "wait " + waiter.target + ": no workload or service of that name"));
      continue;
    }
    pb::WaitReply answer;
    answer.set_ready(state == Wanted::kReady);
    if (state != Wanted::kReady) answer.set_reason(why_not_ready(waiter.target));
    waiter.reply(std::move(answer));
  }
}

std::string Node::why_not_ready(const std::string& target) const {
  const auto found = world_.workloads.find(target);
  if (found == world_.workloads.end()) return "no instance of " + target + " is ready";
  if (!found->second.attachment) return target + " is not attached";
  const auto problem = problems_.find(target);
  if (problem != problems_.end() && !problem->second.empty()) return problem->second.front();
  for (const auto port : ports_to_watch(found->second.declaration)) {
    if (!found->second.tcp_ready.contains(port)) {
      return fmt::format("nothing listens on {}/tcp", port);
    }
  }
  return target + " is draining";
}

// --- small things --------------------------------------------------------------------

Touched Node::touched_by(const std::string& id) const {
  Touched touched;
  touched.workloads.insert(id);
  const auto found = world_.workloads.find(id);
  if (found != world_.workloads.end()) {
    if (const auto key = found->second.declaration.service()) touched.services.insert(*key);
  }
  return touched;
}

Touched Node::touched_by(const policy::Outcome& outcome) const {
  Touched touched;
  const auto add = [&](const std::string& id) {
    auto one = touched_by(id);
    touched.workloads.merge(one.workloads);
    touched.services.merge(one.services);
  };
  for (const auto& [id, declaration] : outcome.declarations) {
    add(id);  // as it was before; what it becomes is its new service
    if (const auto key = declaration.service()) touched.services.insert(*key);
  }
  for (const auto& id : outcome.forgotten) add(id);
  for (const auto& [key, service] : outcome.services) touched.services.insert(key);
  for (const auto& key : outcome.services_gone) touched.services.insert(key);
  for (const auto& [key, port] : outcome.node_ports) touched.workloads.insert(key.id);
  for (const auto& key : outcome.node_ports_gone) touched.workloads.insert(key.id);
  return touched;
}

LinkPlan Node::link_plan(const std::string& id, const policy::Attachment& attachment) const {
  LinkPlan plan;
  plan.id = id;
  plan.host_ifname = attachment.host_ifname;
  plan.ifname = attachment.ifname;
  plan.mac = attachment.mac;
  plan.v4 = attachment.v4;
  plan.v6 = attachment.v6;
  plan.default_route = attachment.default_route;
  plan.mtu = mtu_;
  return plan;
}

std::vector<LinkPlan> Node::links() const {
  std::vector<LinkPlan> plans;
  for (const auto& [id, workload] : world_.workloads) {
    if (workload.attachment) plans.push_back(link_plan(id, *workload.attachment));
  }
  return plans;
}

std::string Node::id_at(const IpAddress& address) const {
  for (const auto& [id, workload] : world_.workloads) {
    if (!workload.attachment) continue;
    if (workload.attachment->v4 == address || workload.attachment->v6 == address) return id;
  }
  return {};
}

Result<policy::Explanation> Node::explain(std::string_view source, std::string_view destination,
                                          Proto proto, std::uint16_t port, TimePoint now) {
  world_.now = now;  // holds end with time
  return policy::explain(world_, source, destination, proto, port);
}

void Node::emit(pb::Event::Kind::Value kind, std::string id, std::string detail) {
  pb::Event event;
  event.set_kind(kind);
  event.set_id(std::move(id));
  event.set_detail(std::move(detail));
  sink_(std::move(event));
}

}  // namespace meshd
