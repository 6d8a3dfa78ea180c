#include "meshd/node.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "meshd/addressing.h"
#include "meshd/readiness.h"
#include "meshd/report.h"

namespace meshd {

using policy::ServiceKey;
using policy::Touched;
namespace pb = mesh::v1;

namespace {

std::string addresses_text(const policy::Attachment& attachment) {
  std::string text;
  for (const auto family : kFamilies) {
    if (!attachment.address(family)) continue;
    if (!text.empty()) text += ' ';
    text += attachment.address(family)->to_string();
  }
  return text;
}

std::vector<StoreChange> to_store(const std::string& id, const policy::Attachment& attachment,
                                  TimePoint now) {
  std::vector<StoreChange> changes{DropAttachment{id}};
  for (const auto family : kFamilies) {
    const auto& address = attachment.address(family);
    if (address) changes.push_back(PutQuarantine{*address, now + kQuarantine});
  }
  return changes;
}

void append(std::vector<StoreChange>& to, std::vector<StoreChange> more) {
  std::ranges::move(more, std::back_inserter(to));
}

}  // namespace

Node::Node(policy::Settings settings, Store& store, Kernel& kernel, Names& names, EventSink sink,
           NodeOptions options)
    : store_(store),
      kernel_(kernel),
      names_(names),
      sink_(std::move(sink)),
      options_(std::move(options)) {
  world_.settings = std::move(settings);
}

Status Node::load(TimePoint now) {
  auto stored = TRY(store_.load());
  world_.workloads = std::move(stored.workloads);
  world_.services = std::move(stored.services);
  world_.node_ports = std::move(stored.node_ports);
  quarantine_ = std::move(stored.quarantine);
  if (!quarantine_.empty()) sweep_at_ = now + kRestSweep;
  idle_names_ = std::move(stored.idle_names);
  left_netns_ = std::move(stored.left_netns);
  world_.now = now;
  if (options_.cluster || stored.cluster) {
    cluster_ = std::make_unique<ClusterPart>(*this, options_.cluster.value_or(ClusterOptions()));
    cluster_->load(stored);
    world_.settings = cluster_->overlay(std::move(world_.settings));
  }
  for (auto& [id, workload] : world_.workloads) {
    if (workload.remote) continue;
    workload.ready |= is_ready(workload);
    if (workload.attachment) note_addresses(id, *workload.attachment);
  }
  generations_.stored = generations_.planned = stored.generation;
  if (in_cluster()) {
    // Names are the controller's.
  } else if (const auto idle = missing_idle(world_, idle_names_, wall_s()); !idle.empty()) {
    note_store(store_.amend(idle));
    note_idle(idle_names_, idle);
  }
  drop_doubles(now);
  auto plan = compiler_.rebuild(world_);
  // The kernel was left with the stored generation's rules, or with less: names of it can
  // be answered while the kernel is compared. What it lacks is refused until then.
  NameChanges names;
  names.merge(std::move(plan.views), std::move(plan.views_gone));
  names_.publish(std::move(names));
  generations_.named = generations_.stored;
  return {};
}

// Two attachments of one link or address cannot both be true, and which one is cannot be
// known: what either may do would be open to the other.
void Node::drop_doubles(TimePoint now) {
  std::map<std::string, std::set<std::string>> users;  // of each link and address
  for (const auto& [id, workload] : world_.workloads) {
    if (!workload.attachment) continue;
    users[workload.attachment->host_ifname].insert(id);
    for (const auto family : kFamilies) {
      const auto& address = workload.attachment->address(family);
      if (address) users[address->to_string()].insert(id);
    }
  }
  for (const auto& [what, ids] : users) {
    if (ids.size() < 2) continue;
    for (const auto& id : ids) {
      auto& workload = world_.workloads.find(id)->second;
      if (!workload.attachment) continue;
      const auto attachment = *std::exchange(workload.attachment, std::nullopt);
      workload.draining = workload.ready = false;
      workload.tcp_ready.clear();
      let_go(attachment, now);
      [[maybe_unused]] const auto kept = persist_or_keep(leave(id, attachment, now), now);
      const auto why = fmt::format("detached: the store gave {} to {}", what, fmt::join(ids, ", "));
      problems_[id] = {why};
      emit(pb::Event::Kind::PROBLEM, id, why);
    }
  }
  generations_.planned = generations_.stored;
}

Status Node::converge(TimePoint now) {
  world_.now = now;
  std::vector<std::string> gone;
  for (const auto& [id, workload] : world_.workloads) {
    if (!workload.attachment) continue;
    if (!TRY(kernel_.link_exists(workload.attachment->host_ifname))) gone.push_back(id);
  }
  // Until the first comparison nothing is known to be in the kernel.
  behind_ = "starting";
  for (const auto& id : gone) [[maybe_unused]]
    const auto kept = drop_attachment(id, now);
  catch_up(now);
  if (behind_.empty()) return {};
  return fail(ErrorCode::kSystem, behind_);
}

void Node::set_settings(policy::Settings settings, TimePoint now) {
  world_.now = now;
  world_.settings = cluster_ ? cluster_->overlay(std::move(settings)) : std::move(settings);
  if (cluster_) cluster_->note_all();
  bring_in_force(compiler_.rebuild(world_), now);
}

// --- commands ------------------------------------------------------------------------

Status Node::check_attach(const AttachSpec& spec) const {
  const auto found = world_.workloads.find(spec.id);
  if (found == world_.workloads.end()) {
    return fail(ErrorCode::kNotFound,
                fmt::format("attach {}: no workload of that id is declared here", spec.id));
  }
  if (!spec.default_route && !found->second.declaration.egress.empty()) {
    return fail(ErrorCode::kConflict,
                fmt::format("attach {}: egress needs the default route, and --no-default-route "
                            "leaves that to another interface",
                            spec.id));
  }
  for (const auto& [id, workload] : world_.workloads) {
    if (!workload.attachment) continue;
    const auto& attachment = *workload.attachment;
    if (id == spec.id && (attachment.netns != spec.netns || attachment.ifname != spec.ifname)) {
      return fail(ErrorCode::kConflict,
                  fmt::format("attach {}: it is attached to {} as {}; detach it first", id,
                              attachment.netns_path, attachment.ifname));
    }
    if (id == spec.id && attachment.default_route != spec.default_route) {
      return fail(
          ErrorCode::kConflict,
          fmt::format("attach {}: it is attached with{} --no-default-route; detach it first", id,
                      attachment.default_route ? "out" : ""));
    }
    if (id != spec.id && attachment.netns == spec.netns) {
      return fail(ErrorCode::kConflict,
                  fmt::format("attach {}: that network namespace is {}'s", spec.id, id));
    }
  }
  return {};
}

// A link's name is made of its address: one that somebody else's link has is passed over.
Result<policy::Attachment> Node::pick_address() {
  for (int pick = 1;; ++pick) {
    auto attachment = TRY(allocate(world_, quarantine_, last_index_));
    if (!TRY(kernel_.name_taken(attachment.host_ifname))) return attachment;
    if (pick == kMaxPicks) {
      return fail(ErrorCode::kConflict,
                  fmt::format("link {} and others of its kind are not meshd's: rename or remove "
                              "them",
                              attachment.host_ifname));
    }
    last_index_ = index_of(world_.settings, attachment);
  }
}

void Node::attach(const AttachSpec& spec, TimePoint now, Reply<policy::Attachment> reply) {
  world_.now = now;
  if (cluster_ && cluster_->must_ask(spec.id)) return cluster_->await(spec, now, std::move(reply));
  if (cluster_ && !world_.workloads.contains(spec.id)) {
    return reply(std::unexpected(cluster_->not_joined(spec.id)));
  }
  if (auto status = check_attach(spec); !status) {
    return reply(std::unexpected(std::move(status).error()));
  }
  auto& workload = world_.workloads.find(spec.id)->second;
  auto answer = [this, id = spec.id, reply = std::move(reply)](Status s) mutable {
    if (!s) return reply(std::unexpected(std::move(s).error()));
    const auto found = world_.workloads.find(id);
    if (found == world_.workloads.end() || !found->second.attachment) {
      return reply(fail(ErrorCode::kConflict, "attach " + id + ": detached meanwhile"));
    }
    reply(*found->second.attachment);
  };
  // Repeated: harmless.
  if (workload.attachment) return when_in_force(now, std::move(answer), spec.deadline);

  auto attachment = pick_address();
  if (!attachment) {
    return answer(std::unexpected(std::move(attachment).error().in("attach " + spec.id)));
  }
  attachment->netns = spec.netns;
  attachment->netns_path = spec.netns_path;
  attachment->ifname = spec.ifname;
  attachment->default_route = spec.default_route;
  attachment->prepared = spec.prepared;
  attachment->attached_at = now;
  const auto link = link_plan(spec.id, *attachment);
  workload.attachment = std::move(*attachment);
  workload.draining = workload.ready = false;
  workload.tcp_ready.clear();
  const auto before = worst_case(compiler_);
  auto compiled = compile(touched_by(spec.id), now);
  auto status = check_room(before, worst_case(compiler_));
  // The link before the store, and shut: its group is refused until its elements are there.
  // If the process dies in between, the next start sweeps it away.
  if (status) status = kernel_.connect(link, spec.netns_fd);
  if (status) {
    append(compiled.changes, {PutAttachment{spec.id, *workload.attachment}});
    if (is_ready(workload)) append(compiled.changes, {PutReady{spec.id, true, {}}});
    // Whatever was left under that name is not its namespace any more.
    if (left_netns_.contains(spec.id)) append(compiled.changes, {DropLeftNetns{spec.id}});
    status = persist(std::move(compiled.changes));
    // A link that stays behind is swept by the next audit; the caller hears of the store.
    if (!status) [[maybe_unused]]
      const auto undone = kernel_.disconnect(link.host_ifname);
  }
  if (!status) {
    workload.attachment.reset();
    take_back(compiled);
    return answer(std::unexpected(std::move(status).error().in("attach " + spec.id)));
  }
  left_netns_.erase(spec.id);
  note_addresses(spec.id, *workload.attachment);
  last_index_ = index_of(world_.settings, *workload.attachment);
  bring_in_force(std::move(compiled.delta), now);
  emit(pb::Event::Kind::ATTACHED, spec.id, addresses_text(*workload.attachment));
  refresh_ready(spec.id, now);
  when_in_force(now, std::move(answer), spec.deadline);
}

void Node::detach(const std::string& id, TimePoint now, Reply<pb::DetachReply> reply,
                  TimePoint by) {
  world_.now = now;
  const auto found = world_.workloads.find(id);
  if (found == world_.workloads.end()) {
    return reply(fail(ErrorCode::kNotFound, "detach " + id + ": no workload of that id"));
  }
  auto answer = left_netns(id);  // an earlier one, of which the client has not come to an end
  Status stored;
  if (found->second.attachment) {
    answer = detach_reply(*found->second.attachment);
    stored = drop_attachment(id, now);
  } else if (!unstored_.empty()) {
    stored = store_kept(now);
  }
  if (!stored) {
    return reply(
        std::unexpected(std::move(stored).error().in("detach " + id + ": shut, not stored")));
  }
  answer_detached(std::move(answer), now, std::move(reply), by);
}

void Node::answer_detached(pb::DetachReply answer, TimePoint now, Reply<pb::DetachReply> reply,
                           TimePoint by) {
  auto done = [answer = std::move(answer), reply = std::move(reply)](Status s) mutable {
    if (!s) return reply(std::unexpected(std::move(s).error()));
    reply(std::move(answer));
  };
  when_in_force(now, std::move(done), by);
}

pb::DetachReply Node::left_netns(const std::string& id) const {
  pb::DetachReply reply;
  const auto found = left_netns_.find(id);
  if (found == left_netns_.end()) return reply;
  reply.set_was_attached(true);
  reply.set_prepared(true);
  reply.set_netns(found->second.path);
  reply.set_netns_dev(found->second.netns.dev);
  reply.set_netns_ino(found->second.netns.ino);
  return reply;
}

void Node::forget_netns(const std::string& id, std::uint64_t ino, TimePoint now,
                        Reply<pb::DetachReply> reply) {
  world_.now = now;
  const auto found = left_netns_.find(id);
  // Another than that: a later detach has left it.
  if (found == left_netns_.end() || found->second.netns.ino != ino) return reply(pb::DetachReply());
  if (auto status = amend({DropLeftNetns{id}}); !status) {
    return reply(std::unexpected(std::move(status).error().in("detach " + id)));
  }
  left_netns_.erase(found);
  reply(pb::DetachReply());
}

void Node::drain(const std::string& id, TimePoint now, Reply<pb::Empty> reply) {
  world_.now = now;
  const auto found = world_.workloads.find(id);
  if (found == world_.workloads.end() || !found->second.attachment) {
    return reply(fail(ErrorCode::kNotFound, "drain " + id + ": no such workload is attached"));
  }
  auto done = [reply = std::move(reply)](Status s) mutable {
    if (!s) return reply(std::unexpected(std::move(s).error()));
    reply(pb::Empty{});
  };
  if (found->second.draining) return when_in_force(now, std::move(done));
  found->second.draining = true;
  auto compiled = compile(touched_by(id), now);
  append(compiled.changes, {PutDraining{id, true}});
  if (auto status = persist(std::move(compiled.changes)); !status) {
    found->second.draining = false;
    take_back(compiled);
    return done(std::unexpected(std::move(status).error().in("drain " + id)));
  }
  bring_in_force(std::move(compiled.delta), now);
  emit(pb::Event::Kind::DRAINING, id);
  when_in_force(now, std::move(done));
}

void Node::remove(const std::string& id, bool force, TimePoint now, Reply<pb::DetachReply> reply) {
  world_.now = now;
  if (in_cluster()) return cluster_->remove(id, force, now, std::move(reply));
  const auto found = world_.workloads.find(id);
  auto answer = left_netns(id);
  if (found == world_.workloads.end()) {
    // Deleted, and its client has not come to an end with it: see detach().
    if (answer.prepared()) return answer_detached(std::move(answer), now, std::move(reply));
    return reply(fail(ErrorCode::kNotFound, "delete " + id + ": no workload of that id"));
  }
  if (found->second.attachment && !force) {
    return reply(fail(ErrorCode::kConflict,
                      "delete " + id + ": it is attached; detach it first, or use --force"));
  }
  const auto before = found->second;
  std::vector<StoreChange> changes;
  if (before.attachment) {
    answer = detach_reply(*before.attachment);
    changes = leave(id, *before.attachment, now);
  }
  // A forced delete is one change: refused, it has not even detached.
  auto trial = try_out(policy::forget(world_, id, kQuarantine), now);
  append(changes, std::move(trial.changes));
  if (auto status = persist(std::move(changes)); !status) {
    world_.workloads.emplace(id, before);
    if (before.attachment) left_netns_.erase(id);
    take_back(std::move(trial));
    return reply(std::unexpected(std::move(status).error().in("delete " + id)));
  }
  problems_.erase(id);
  for (const auto& [address, until] : trial.resting) rest(address, until);
  if (before.attachment) let_go(*before.attachment, now);
  bring_in_force(std::move(trial.delta), now);
  if (before.attachment) emit(pb::Event::Kind::DETACHED, id);
  emit(pb::Event::Kind::DELETED, id);
  answer_detached(std::move(answer), now, std::move(reply));
}

// --- detaching -----------------------------------------------------------------------

std::vector<StoreChange> Node::leave(const std::string& id, const policy::Attachment& attachment,
                                     TimePoint now) {
  auto changes = to_store(id, attachment, now);
  if (attachment.prepared) {
    if (left_netns_.size() >= kMaxLeftNetns) {
      changes.push_back(DropLeftNetns{left_netns_.begin()->first});
      left_netns_.erase(left_netns_.begin());
    }
    left_netns_[id] = {attachment.netns, attachment.netns_path};
    changes.push_back(PutLeftNetns{id, left_netns_[id]});
  }
  return changes;
}

// Shuts, unnames and takes down, stored or not.
Status Node::drop_attachment(const std::string& id, TimePoint now) {
  auto& workload = world_.workloads.find(id)->second;
  const auto attachment = *std::exchange(workload.attachment, std::nullopt);
  workload.draining = workload.ready = false;
  workload.tcp_ready.clear();
  problems_.erase(id);
  auto compiled = compile(touched_by(id), now);
  append(compiled.changes, leave(id, attachment, now));
  auto stored = persist_or_keep(std::move(compiled.changes), now);
  let_go(attachment, now);
  bring_in_force(std::move(compiled.delta), now);
  emit(pb::Event::Kind::DETACHED, id);
  return stored;
}

void Node::let_go(const policy::Attachment& attachment, TimePoint now) {
  for (const auto family : kFamilies) {
    const auto& address = attachment.address(family);
    if (!address) continue;
    ids_.erase(*address);
    rest(*address, now + kQuarantine);
    pending_erase_.addresses.push_back(*address);
  }
  pending_disconnects_.push_back(attachment.host_ifname);
  if (attachment.default_route) return;
  if (const auto cleaned = kernel_.clean_container(attachment); !cleaned) {
    emit(pb::Event::Kind::PROBLEM, {},
         "policy rules may be left in the container: " + cleaned.error().what);
  }
}

void Node::note_addresses(const std::string& id, const policy::Attachment& attachment) {
  for (const auto family : kFamilies) {
    if (const auto& address = attachment.address(family)) ids_[*address] = id;
  }
}

void Node::rest(const IpAddress& address, TimePoint until) {
  quarantine_[address] = until;
  if (!sweep_at_) sweep_at_ = until + kRestSweep;
}

}  // namespace meshd
