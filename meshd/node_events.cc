// The second half of Node: events, and how what is planned comes in force.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
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
  merged.swap(workload.tcp_ready);
  const bool was_ready = std::exchange(workload.ready, workload.ready || is_ready(workload));
  const auto before = planned_now(compiler_);
  auto compiled = compile(touched_by(id), now);
  if (const auto room = check_room(before, planned_now(compiler_)); !room) {
    // Refused by the kernel, it would keep everybody's changes out. The next look tries again.
    workload.tcp_ready = std::move(merged);
    workload.ready = was_ready;
    take_back(compiled);
    const auto why = "ready, but not taken into service: " + room.error().what;
    if (auto& told = problems_[id]; told != std::vector{why}) {
      told = {why};
      emit(pb::Event::Kind::PROBLEM, id, why);
    }
    return;
  }
  // A readiness that the store does not take is found again by the next poll after a start.
  compiled.changes.push_back(PutReady{id, workload.ready, workload.tcp_ready});
  [[maybe_unused]] const auto kept = persist_or_keep(std::move(compiled.changes), now);
  bring_in_force(std::move(compiled.delta), now);
  if (workload.ready && !was_ready) emit(pb::Event::Kind::READY, id);
  answer_waiters(now);
}

void Node::on_link_gone(const std::string& host_ifname, TimePoint now) {
  world_.now = now;
  for (const auto& [id, workload] : world_.workloads) {
    if (!workload.attachment || workload.attachment->host_ifname != host_ifname) continue;
    const auto gone = id;  // drop_attachment() changes the entry
    [[maybe_unused]] const auto kept = drop_attachment(gone, now);
    return;
  }
}

// The first at once; somebody who goes on changing things does not keep us at comparing.
void Node::on_drift(TimePoint now) {
  world_.now = now;
  if (now < drift_not_before_) {
    drift_at_ = drift_not_before_;
    return;
  }
  drift_at_.reset();
  drift_not_before_ = now + kDriftEvery;
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
  for (const auto& what : repaired->trouble) emit(pb::Event::Kind::PROBLEM, {}, "audit: " + what);
  for (const auto& what : repaired->what) emit(pb::Event::Kind::REPAIRED, {}, what);
  repairs_ += repaired->what.size();
  // Renamed, or gone without an event that was heard.
  for (const auto& host_ifname : repaired->missing) on_link_gone(host_ifname, now);
}

void Node::on_timer(TimePoint now) {
  world_.now = now;
  if (retry_at_ && *retry_at_ <= now) catch_up(now);
  if (drift_at_ && *drift_at_ <= now) on_drift(now);
  if (const auto deadline = compiler_.next_deadline(); deadline && *deadline <= now) {
    bring_in_force(compiler_.update(world_, compiler_.due(now)), now);
  }
  if (store_again_at_ && *store_again_at_ <= now) {
    [[maybe_unused]] const auto kept = store_kept(now);
  }
  if (sweep_at_ && *sweep_at_ <= now) sweep_quarantine(now);
  release_idle_names(now);
  if (cluster_) cluster_->on_timer(now);
  while (!waiting_.empty() && waiting_.front().deadline <= now) {
    auto late = std::move(waiting_.front());
    waiting_.pop_front();
    late.done(fail(ErrorCode::kNotInForce, "stored, not in force: " + behind_));
  }
  answer_waiters(now);
}

// Nothing is compiled from it: the generation stays.
void Node::sweep_quarantine(TimePoint now) {
  std::vector<StoreChange> rested;
  for (const auto& [address, until] : quarantine_) {
    if (until <= now) rested.push_back(DropQuarantine{address});
  }
  std::erase_if(quarantine_, [&](const auto& entry) { return entry.second <= now; });
  // What the store does not forget now, it forgets at the next start.
  if (!rested.empty()) note_store(amend(std::move(rested)));
  sweep_at_.reset();
  for (const auto& [address, until] : quarantine_) {
    if (!sweep_at_ || until + kRestSweep < *sweep_at_) sweep_at_ = until + kRestSweep;
  }
}

std::optional<TimePoint> Node::next_timer() const {
  std::optional<TimePoint> next;
  const auto sooner = [&](const std::optional<TimePoint>& when) {
    if (when && (!next || *when < *next)) next = when;
  };
  sooner(retry_at_);
  sooner(drift_at_);
  sooner(compiler_.next_deadline());
  sooner(sweep_at_);
  sooner(store_again_at_);
  if (cluster_) sooner(cluster_->next_timer());
  if (const auto end = next_idle_end(idle_names_, options_.idle_release)) {
    const auto left = std::chrono::seconds(std::max<std::int64_t>(0, *end - wall_s()));
    sooner(std::max(world_.now + left, idle_not_before_));
  }
  if (!waiting_.empty()) sooner(waiting_.front().deadline);
  for (const auto& waiter : ready_waiters_) sooner(waiter.deadline);
  return next;
}

// --- in force ------------------------------------------------------------------------

Status Node::persist(std::vector<StoreChange> changes) {
  // As much as is kept has happened before.
  changes.insert(changes.begin(), unstored_.begin(), unstored_.end());
  CHECK_OK(store_.apply(changes, generations_.stored + 1));
  ++generations_.stored;
  note_idle(idle_names_, changes);
  unstored_.clear();
  store_again_at_.reset();
  store_trouble_.clear();
  return {};
}

Status Node::persist_or_keep(std::vector<StoreChange> changes, TimePoint now) {
  auto status = persist(changes);
  if (!status) {
    std::ranges::move(changes, std::back_inserter(unstored_));
    store_again_at_ = now + kRetryStore;
  }
  note_store(status);
  return status;
}

Status Node::store_kept(TimePoint now) {
  auto status = persist({});
  if (!status) {
    store_again_at_ = now + kRetryStore;
    note_store(status);
    return status;
  }
  follow_stored();
  return {};
}

Status Node::amend(std::vector<StoreChange> changes) {
  if (unstored_.empty()) return store_.amend(changes);
  CHECK_OK(persist(std::move(changes)));
  follow_stored();
  return {};
}

// Nothing new is compiled from what was stored last.
void Node::follow_stored() {
  generations_.planned = generations_.stored;
  if (behind_.empty()) generations_.installed = generations_.named = generations_.planned;
}

// The kernel's own words for a full set are "Too many open files in system".
Error Node::plainly(Error error) const {
  if (error.sys_errno != ENFILE && error.sys_errno != ENOSPC) return error;
  const auto room = check_room({}, planned_now(compiler_));
  return std::move(error).in(room ? "a set of the kernel is full" : room.error().what);
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
      return fall_behind(plainly(std::move(status).error()), now);
    }
  }
  installed(now);
}

// Puts right whatever differs, known or not: dump, compare, one transaction.
void Node::catch_up(TimePoint now) {
  const bool was_behind = !behind_.empty();
  auto links_repaired = kernel_.audit(links());
  if (!links_repaired) return fall_behind(links_repaired.error(), now);
  for (const auto& host_ifname : links_repaired->missing) on_link_gone(host_ifname, now);
  auto table_repaired = kernel_.converge(compiler_.elements());
  if (!table_repaired) return fall_behind(plainly(std::move(table_repaired).error()), now);
  if (!was_behind) {  // else the difference is our own
    for (auto& what : table_repaired->what) links_repaired->what.push_back(std::move(what));
  }
  for (const auto& what : links_repaired->trouble) {
    emit(pb::Event::Kind::PROBLEM, {}, "audit: " + what);
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
  if (!outlived_erased_) pending_erase_.also = outlived(world_, compiler_.elements());
  if (!pending_erase_.empty()) {
    // Without this an open flow would go on to an endpoint that is gone: not yet in force.
    if (auto status = kernel_.erase_conntrack(pending_erase_); !status) {
      return fall_behind(status.error(), now);
    }
    pending_erase_ = {};
  }
  outlived_erased_ = true;
  behind_.clear();
  retry_at_.reset();
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
  if (cluster_) cluster_->on_installed();
}

void Node::when_in_force(TimePoint now, std::move_only_function<void(Status)> done, TimePoint by) {
  if (behind_.empty()) return done({});
  by = std::min(by, now + kInForceLimit);
  const auto later = std::ranges::upper_bound(waiting_, by, {}, &Waiting::deadline);
  waiting_.insert(later, {by, std::move(done)});
}

void Node::answer_empty(TimePoint now, Reply<pb::Empty> reply) {
  when_in_force(now, [reply = std::move(reply)](Status s) mutable {
    if (!s) return reply(std::unexpected(std::move(s).error()));
    reply(pb::Empty{});
  });
}

// What is kept stays a trouble until it is stored, whatever else is.
void Node::note_store(const Status& status) {
  if (status && !unstored_.empty()) return;
  const auto before = std::exchange(store_trouble_, status ? std::string() : status.error().what);
  if (!status && store_trouble_ != before) {
    emit(pb::Event::Kind::PROBLEM, {}, "store: " + store_trouble_);
  }
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
  const auto found = ids_.find(address);
  return found == ids_.end() ? std::string() : found->second;
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
