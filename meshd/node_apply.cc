// The part of Node that declares: apply, plan, and names given up.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "meshd/lost_endpoints.h"
#include "meshd/node.h"
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

// Egress needs the default route, and that is another interface's there.
Status check_egress(const policy::World& world,
                    const std::vector<policy::Declaration>& declarations) {
  for (const auto& declaration : declarations) {
    if (declaration.egress.empty()) continue;
    const auto found = world.workloads.find(declaration.id);
    if (found == world.workloads.end() || !found->second.attachment) continue;
    if (found->second.attachment->default_route) continue;
    return fail(ErrorCode::kConflict,
                fmt::format("workload {}: egress: it is attached with --no-default-route, which "
                            "leaves the default route to another interface; detach it first",
                            declaration.id));
  }
  return {};
}

}  // namespace

// --- a change in memory --------------------------------------------------------------

Compiled Node::compile(Touched touched, TimePoint now) {
  Compiled compiled;
  compiled.touched = std::move(touched);
  if (cluster_) {
    cluster_->prune(compiled);
    cluster_->note(compiled.touched.workloads);
  }
  compiled.delta = compiler_.update(world_, compiled.touched);
  Touched held;
  for (const auto& key : lost_endpoints(world_, compiler_, compiled.delta.elements)) {
    auto& service = world_.services.at(key);
    compiled.services.emplace(key, service);
    service.endpoint_lost_at = now;
    compiled.changes.push_back(PutService{key, service});
    held.services.insert(key);
    compiled.touched.services.insert(key);
  }
  if (!held.services.empty()) merge(compiled.delta, compiler_.update(world_, held));
  return compiled;
}

void Node::take_back(const Compiled& compiled) {
  if (cluster_) cluster_->take_back(compiled);
  for (const auto& [key, service] : compiled.services) {
    const auto found = world_.services.find(key);
    if (found != world_.services.end()) found->second = service;
  }
  [[maybe_unused]] const auto undone = compiler_.update(world_, compiled.touched);
}

Trial Node::try_out(policy::Outcome outcome, TimePoint now) {
  Trial trial;
  trial.changes = to_store(outcome);
  std::ranges::move(idle_changes(world_, outcome, idle_names_, wall_s()),
                    std::back_inserter(trial.changes));
  auto touched = touched_by(outcome);  // what it was before
  for (const auto& [id, declaration] : outcome.declarations) touched.workloads.insert(id);
  trial.back = policy::adopt(world_, trial.resting, std::move(outcome));
  auto compiled = compile(std::move(touched), now);
  std::ranges::move(compiled.changes, std::back_inserter(trial.changes));
  trial.touched = std::move(compiled.touched);
  trial.delta = std::move(compiled.delta);
  trial.services = std::move(compiled.services);
  trial.confirmed = std::move(compiled.confirmed);
  return trial;
}

void Node::take_back(Trial trial) {
  policy::Quarantine none;
  policy::adopt(world_, none, std::move(trial.back));
  take_back(static_cast<const Compiled&>(trial));
}

// --- apply and plan ------------------------------------------------------------------

Result<policy::Outcome> Node::declare(std::vector<policy::Declaration> declarations) {
  const auto listening = TRY(kernel_.listening());
  CHECK_OK(check_egress(world_, declarations));
  return policy::declare(world_, std::move(declarations), quarantine_, &listening, kQuarantine);
}

// For people, in the order of Change::Kind.
Result<std::vector<policy::Change>> Node::describe(const policy::Outcome& outcome) {
  auto changes = policy::describe(world_, outcome);
  if (!policy::may_cut(world_, outcome)) return changes;
  const auto connections = TRY(kernel_.connections());
  auto cuts = policy::cut_connections(world_, outcome, connections.list);
  if (cuts.size() > kMaxCuts || connections.more) {
    const auto rest = cuts.size() - std::min(cuts.size(), kMaxCuts);
    cuts.resize(cuts.size() - rest);
    cuts.push_back({policy::Change::Kind::kConnectionCut, "and more",
                    connections.more ? "connection tracking holds more than were looked at"
                                     : fmt::format("{} further lines", rest)});
  }
  const auto after = std::ranges::find_if(changes, [](const policy::Change& change) {
    return change.kind > policy::Change::Kind::kConnectionCut;
  });
  changes.insert(after, cuts.begin(), cuts.end());
  return changes;
}

void Node::apply(std::vector<policy::Declaration> declarations, TimePoint now,
                 Reply<pb::ApplyReply> reply, TimePoint by) {
  world_.now = now;
  if (in_cluster()) return cluster_->declare(declarations, now, std::move(reply), by);
  auto outcome = declare(std::move(declarations));
  if (!outcome) return reply(std::unexpected(std::move(outcome).error()));
  auto human = describe(*outcome);
  if (!human) return reply(std::unexpected(std::move(human).error()));
  std::vector<std::string> ids;
  for (const auto& [id, declaration] : outcome->declarations) ids.push_back(id);
  const auto before = worst_case(compiler_);
  auto trial = try_out(*std::move(outcome), now);
  for (const auto& id : ids) {
    const auto& workload = world_.workloads.find(id)->second;
    if (workload.attachment && !workload.ready && is_ready(workload)) {
      trial.changes.emplace_back(PutReady{id, true, workload.tcp_ready});
    }
  }
  auto status = check_room(before, worst_case(compiler_));
  if (status) status = persist(trial.changes);
  if (!status) {
    // Nothing of it has left this process: the plan goes back to what it was.
    take_back(std::move(trial));
    return reply(std::unexpected(std::move(status).error().in("apply")));
  }
  for (const auto& [address, until] : trial.resting) rest(address, until);
  bring_in_force(std::move(trial.delta), now);
  for (const auto& id : ids) {
    emit(pb::Event::Kind::DECLARED, id);
    refresh_ready(id, now);
  }
  auto done = [this, human = *std::move(human), reply = std::move(reply)](Status s) mutable {
    if (!s) return reply(std::unexpected(std::move(s).error()));
    pb::ApplyReply answer;
    answer.set_generation(generations_.installed);
    for (const auto& change : human) *answer.add_changes() = change_message(change);
    reply(std::move(answer));
  };
  when_in_force(now, std::move(done), by);
}

Result<std::vector<policy::Change>> Node::plan(std::vector<policy::Declaration> declarations,
                                               TimePoint now) {
  world_.now = now;
  if (in_cluster()) {
    return fail(ErrorCode::kUnsupported, "plan: in a cluster the controller decides");
  }
  auto outcome = TRY(declare(std::move(declarations)));
  auto human = TRY(describe(outcome));
  // A plan fails where the apply would.
  const auto before = worst_case(compiler_);
  auto trial = try_out(std::move(outcome), now);
  auto status = check_room(before, worst_case(compiler_));
  take_back(std::move(trial));
  if (!status) return std::unexpected(std::move(status).error().in("plan"));
  return human;
}

// --- names given up ------------------------------------------------------------------

Status Node::give_up_name(const std::string& name, TimePoint now) {
  const ServiceKey key{policy::Scope::kCluster, {}, name};
  auto trial = try_out(TRY(policy::release(world_, key, kQuarantine)), now);
  if (auto status = persist(trial.changes); !status) {
    take_back(std::move(trial));
    return std::unexpected(std::move(status).error().in("name release " + name));
  }
  for (const auto& [address, until] : trial.resting) rest(address, until);
  bring_in_force(std::move(trial.delta), now);
  return {};
}

void Node::release_name(const std::string& name, TimePoint now, Reply<pb::Empty> reply) {
  world_.now = now;
  if (in_cluster()) return cluster_->release(name, now, std::move(reply));
  if (auto status = give_up_name(name, now); !status) {
    return reply(std::unexpected(std::move(status).error()));
  }
  emit(pb::Event::Kind::NAME_RELEASED, name, "by command");
  answer_empty(now, std::move(reply));
}

void Node::release_idle_names(TimePoint now) {
  if (now < idle_not_before_ || in_cluster()) return;
  for (const auto& name : idle_for(idle_names_, options_.idle_release, wall_s())) {
    if (auto status = give_up_name(name, now); !status) {
      note_store(status);
      idle_not_before_ = now + kRetryIdle;
      return;
    }
    emit(pb::Event::Kind::NAME_RELEASED, name,
         fmt::format("nobody has declared it for {} days", options_.idle_release.count()));
  }
}

std::int64_t Node::wall_s() const {
  return std::chrono::system_clock::to_time_t(options_.wall_clock());
}

}  // namespace meshd
