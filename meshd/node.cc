#include "meshd/node.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "meshd/addressing.h"
#include "meshd/readiness.h"
#include "meshd/report.h"

namespace meshd {

using policy::ServiceKey;
using policy::Touched;
namespace pb = mesh::v1;

namespace {

std::vector<StoreChange> to_store(const policy::Outcome& outcome) {
  std::vector<StoreChange> changes;
  for (const auto& [id, declaration] : outcome.declarations) {
    changes.push_back(PutDeclaration{id, declaration});
  }
  for (const auto& id : outcome.forgotten) changes.push_back(DropDeclaration{id});
  for (const auto& [key, service] : outcome.services) changes.push_back(PutService{key, service});
  for (const auto& key : outcome.services_gone) changes.push_back(DropService{key});
  for (const auto& key : outcome.node_ports_gone) changes.push_back(DropNodePort{key});
  for (const auto& [key, port] : outcome.node_ports) changes.push_back(PutNodePort{key, port});
  for (const auto& [address, until] : outcome.quarantine) {
    changes.push_back(PutQuarantine{address, until});
  }
  return changes;
}

std::string addresses_text(const policy::Attachment& attachment) {
  std::string text;
  for (const auto family : kFamilies) {
    if (!attachment.address(family)) continue;
    if (!text.empty()) text += ' ';
    text += attachment.address(family)->to_string();
  }
  return text;
}

}  // namespace

Node::Node(policy::Settings settings, Store& store, Kernel& kernel, Names& names, EventSink sink)
    : store_(store), kernel_(kernel), names_(names), sink_(std::move(sink)) {
  world_.settings = std::move(settings);
}

Status Node::load(TimePoint now) {
  auto stored = TRY(store_.load());
  world_.workloads = std::move(stored.workloads);
  world_.services = std::move(stored.services);
  world_.node_ports = std::move(stored.node_ports);
  quarantine_ = std::move(stored.quarantine);
  world_.now = now;
  for (auto& [id, workload] : world_.workloads) workload.ready |= is_ready(workload);
  generations_.stored = generations_.planned = stored.generation;
  auto plan = compiler_.rebuild(world_);
  // The kernel was left with the stored generation's rules, or with less: names of it can
  // be answered while the kernel is compared. What it lacks is refused until then.
  NameChanges names;
  names.merge(std::move(plan.views), std::move(plan.views_gone));
  names_.publish(std::move(names));
  generations_.named = generations_.stored;
  return {};
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
  for (const auto& id : gone) drop_attachment(id, now);
  catch_up(now);
  if (behind_.empty()) return {};
  return fail(ErrorCode::kSystem, behind_);
}

void Node::set_settings(policy::Settings settings, TimePoint now) {
  world_.now = now;
  world_.settings = std::move(settings);
  bring_in_force(compiler_.rebuild(world_), now);
}

// --- commands ------------------------------------------------------------------------

void Node::apply(std::vector<policy::Declaration> declarations, TimePoint now,
                 Reply<pb::ApplyReply> reply) {
  world_.now = now;
  const auto listening = kernel_.listening();
  if (!listening) return reply(std::unexpected(listening.error()));
  auto outcome =
      policy::declare(world_, std::move(declarations), quarantine_, *listening, kQuarantine);
  if (!outcome) return reply(std::unexpected(std::move(outcome).error()));
  auto human = policy::describe(world_, *outcome);
  auto touched = touched_by(*outcome);  // what it was before
  const auto changes = to_store(*outcome);
  std::vector<std::string> ids;
  for (const auto& [id, declaration] : outcome->declarations) ids.push_back(id);
  for (const auto& id : ids) touched.workloads.insert(id);
  const auto back = policy::adopt(world_, quarantine_, *std::move(outcome));
  auto delta = compiler_.update(world_, touched);
  auto status = check_room();
  if (status) status = persist(changes);
  if (!status) {
    // Nothing of it has left this process: the plan goes back to what it was.
    policy::adopt(world_, quarantine_, back);
    [[maybe_unused]] const auto undone = compiler_.update(world_, touched);
    return reply(std::unexpected(std::move(status).error().in("apply")));
  }
  bring_in_force(std::move(delta), now);
  for (const auto& id : ids) {
    emit(pb::Event::Kind::DECLARED, id);
    refresh_ready(id, now);
  }
  when_in_force(now, [this, human = std::move(human), reply = std::move(reply)](Status s) mutable {
    if (!s) return reply(std::unexpected(std::move(s).error()));
    pb::ApplyReply answer;
    answer.set_generation(generations_.installed);
    for (const auto& change : human) *answer.add_changes() = change_message(change);
    reply(std::move(answer));
  });
}

Result<std::vector<policy::Change>> Node::plan(std::vector<policy::Declaration> declarations,
                                               TimePoint now) {
  world_.now = now;
  const auto listening = TRY(kernel_.listening());
  auto outcome =
      TRY(policy::declare(world_, std::move(declarations), quarantine_, listening, kQuarantine));
  return policy::describe(world_, outcome);
}

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
    if (id != spec.id && attachment.netns == spec.netns) {
      return fail(ErrorCode::kConflict,
                  fmt::format("attach {}: that network namespace is {}'s", spec.id, id));
    }
  }
  return {};
}

void Node::attach(const AttachSpec& spec, TimePoint now, Reply<policy::Attachment> reply) {
  world_.now = now;
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
  if (workload.attachment) return when_in_force(now, std::move(answer));  // repeated: harmless

  auto attachment = allocate(world_, quarantine_, last_index_);
  if (!attachment) {
    return answer(std::unexpected(std::move(attachment).error().in("attach " + spec.id)));
  }
  attachment->netns = spec.netns;
  attachment->netns_path = spec.netns_path;
  attachment->ifname = spec.ifname;
  attachment->default_route = spec.default_route;
  attachment->prepared = spec.prepared;
  attachment->attached_at = now;
  unheard_detaches_.erase(spec.id);
  const auto link = link_plan(spec.id, *attachment);
  const auto touched = touched_by(spec.id);
  workload.attachment = std::move(*attachment);
  workload.draining = workload.ready = false;
  workload.tcp_ready.clear();
  auto delta = compiler_.update(world_, touched);
  auto status = check_room();
  // The link before the store, and shut: its group is refused until its elements are there.
  // If the process dies in between, the next start sweeps it away.
  if (status) status = kernel_.connect(link, spec.netns_fd);
  if (status) {
    status = persist({PutAttachment{spec.id, *workload.attachment}});
    // A link that stays behind is swept by the next audit; the caller hears of the store.
    if (!status) [[maybe_unused]]
      const auto undone = kernel_.disconnect(link.host_ifname);
  }
  if (!status) {
    workload.attachment.reset();
    [[maybe_unused]] const auto undone = compiler_.update(world_, touched);
    return answer(std::unexpected(std::move(status).error().in("attach " + spec.id)));
  }
  last_index_ = index_of(world_.settings, *workload.attachment);
  bring_in_force(std::move(delta), now);
  emit(pb::Event::Kind::ATTACHED, spec.id, addresses_text(*workload.attachment));
  refresh_ready(spec.id, now);
  when_in_force(now, std::move(answer));
}

void Node::detach(const std::string& id, TimePoint now, Reply<pb::DetachReply> reply) {
  world_.now = now;
  const auto found = world_.workloads.find(id);
  if (found == world_.workloads.end()) {
    return reply(fail(ErrorCode::kNotFound, "detach " + id + ": no workload of that id"));
  }
  if (!found->second.attachment) {
    // An earlier detach may have ended "not in force": its caller has not heard yet that a
    // prepared namespace is to be removed.
    const auto unheard = unheard_detaches_.find(id);
    if (unheard == unheard_detaches_.end()) return reply(pb::DetachReply());
    pb::DetachReply answer = unheard->second;
    return when_in_force(now, [this, id, answer, reply = std::move(reply)](Status s) mutable {
      if (!s) return reply(std::unexpected(std::move(s).error()));
      unheard_detaches_.erase(id);
      reply(std::move(answer));
    });
  }
  pb::DetachReply answer;
  answer.set_was_attached(true);
  answer.set_netns(found->second.attachment->netns_path);
  answer.set_prepared(found->second.attachment->prepared);
  drop_attachment(id, now);
  when_in_force(now, [this, id, answer, reply = std::move(reply)](Status s) mutable {
    if (!s) {
      unheard_detaches_[id] = std::move(answer);
      return reply(std::unexpected(std::move(s).error()));
    }
    reply(std::move(answer));
  });
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
  if (auto status = persist({PutDraining{id, true}}); !status) {
    return done(std::unexpected(std::move(status).error().in("drain " + id)));
  }
  found->second.draining = true;
  note_endpoint_lost(found->second.declaration.service(), now);
  bring_in_force(touched_by(id), now);
  emit(pb::Event::Kind::DRAINING, id);
  when_in_force(now, std::move(done));
}

void Node::remove(const std::string& id, bool force, TimePoint now, Reply<pb::Empty> reply) {
  world_.now = now;
  const auto found = world_.workloads.find(id);
  if (found == world_.workloads.end()) {
    return reply(fail(ErrorCode::kNotFound, "delete " + id + ": no workload of that id"));
  }
  if (found->second.attachment && !force) {
    return reply(fail(ErrorCode::kConflict,
                      "delete " + id + ": it is attached; detach it first, or use --force"));
  }
  if (found->second.attachment) drop_attachment(id, now);
  auto touched = touched_by(id);
  auto outcome = policy::forget(world_, id, kQuarantine);
  if (auto status = persist(to_store(outcome)); !status) {
    return reply(std::unexpected(std::move(status).error().in("delete " + id)));
  }
  policy::adopt(world_, quarantine_, std::move(outcome));
  problems_.erase(id);
  bring_in_force(touched, now);
  emit(pb::Event::Kind::DELETED, id);
  answer_empty(now, std::move(reply));
}

void Node::release_name(const std::string& name, TimePoint now, Reply<pb::Empty> reply) {
  world_.now = now;
  const ServiceKey key{policy::Scope::kCluster, {}, name};
  auto outcome = policy::release(world_, key, kQuarantine);
  if (!outcome) return reply(std::unexpected(std::move(outcome).error()));
  if (auto status = persist(to_store(*outcome)); !status) {
    return reply(std::unexpected(std::move(status).error().in("name release " + name)));
  }
  policy::adopt(world_, quarantine_, std::move(*outcome));
  Touched touched;
  touched.services.insert(key);
  bring_in_force(touched, now);
  answer_empty(now, std::move(reply));
}

void Node::wait(const std::string& target, std::chrono::milliseconds limit, TimePoint now,
                Reply<pb::WaitReply> reply) {
  ready_waiters_.push_back({target, now + limit, std::move(reply)});
  answer_waiters(now);
}

}  // namespace meshd
