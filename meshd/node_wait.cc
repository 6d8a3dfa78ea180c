// The part of Node that answers `wait`: what a target means, and when it is ready.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "meshd/node.h"
#include "meshd/readiness.h"
#include "policy/allocate.h"
#include "policy/name.h"

namespace meshd {

using policy::Scope;
using policy::ServiceKey;
namespace pb = mesh::v1;

namespace {

bool is_up(const policy::Workload& workload) { return workload.ready && !workload.drains(); }

// "db" where a CLUSTER name is none, of one workflow only.
Result<std::optional<ServiceKey>> bare_name(const policy::World& world, const std::string& name) {
  const ServiceKey cluster{Scope::kCluster, {}, name};
  if (world.services.contains(cluster)) return std::optional(cluster);
  std::vector<std::string> choices;
  std::optional<ServiceKey> key;
  for (const auto& [candidate, service] : world.services) {
    if (candidate.name != name) continue;
    key = candidate;
    choices.push_back(name + "." + candidate.workflow);
  }
  if (choices.size() < 2) return key;
  return fail(ErrorCode::kInvalid, fmt::format("wait {}: several workflows have one: say which: {}",
                                               name, fmt::join(choices, ", ")));
}

}  // namespace

Result<WaitTarget> Node::wait_target(const std::string& text) const {
  const auto unknown = [&] {
    return fail(ErrorCode::kNotFound, "wait " + text + ": no workload or service of that name");
  };
  WaitTarget target;
  if (const auto full = policy::parse_fqdn(world_.settings.zone, text)) {
    target = {full->id, full->service};
  } else if (const auto dot = text.find('.'); dot != std::string::npos) {
    target.service = ServiceKey{Scope::kWorkflow, text.substr(dot + 1), text.substr(0, dot)};
  } else if (world_.workloads.contains(text)) {
    target.id = text;
  } else {
    target.service = TRY(bare_name(world_, text));
  }
  if (!is_known(target)) return unknown();
  return target;
}

bool Node::is_known(const WaitTarget& target) const {
  return target.service ? world_.services.contains(*target.service)
                        : world_.workloads.contains(target.id);
}

bool Node::is_ready_now(const WaitTarget& target) const {
  const auto up = [this](const std::string& id) {
    const auto found = world_.workloads.find(id);
    return found != world_.workloads.end() && is_up(found->second);
  };
  // In force, too: a client that was told "ready" calls at once.
  if (!behind_.empty()) return false;
  if (!target.service) return up(target.id);
  return std::ranges::any_of(policy::members(world_, *target.service), up);
}

void Node::wait(const std::string& target, std::chrono::milliseconds limit, std::uint64_t call,
                TimePoint now, Reply<pb::WaitReply> reply) {
  world_.now = now;
  auto meant = wait_target(target);
  if (!meant) return reply(std::unexpected(std::move(meant).error()));
  if (ready_waiters_.size() >= kMaxReadyWaiters) {
    return reply(fail(ErrorCode::kExhausted, fmt::format("wait {}: {} others wait already", target,
                                                         ready_waiters_.size())));
  }
  const auto deadline = now + std::min<Duration>(limit, kMaxWait);
  ready_waiters_.push_back({call, target, *std::move(meant), deadline, std::move(reply)});
  answer_waiters(now);
}

void Node::cancel_wait(std::uint64_t call) {
  const auto found = std::ranges::find(ready_waiters_, call, &ReadyWaiter::call);
  if (found == ready_waiters_.end()) return;
  auto waiter = std::move(*found);
  ready_waiters_.erase(found);
  waiter.reply(fail(ErrorCode::kNotInForce, "wait " + waiter.text + ": nobody listens any more"));
}

void Node::give_up_waiting(std::string_view why) {
  for (auto& command : std::exchange(waiting_, {})) {
    command.done(
        fail(ErrorCode::kNotInForce, fmt::format("stored, not in force: {}; {}", behind_, why)));
  }
  if (cluster_) cluster_->give_up(why);
  for (auto& waiter : std::exchange(ready_waiters_, {})) {
    waiter.reply(fail(ErrorCode::kNotInForce, fmt::format("wait {}: {}", waiter.text, why)));
  }
}

void Node::refresh_ready(const std::string& id, TimePoint now) {
  const auto found = world_.workloads.find(id);
  if (found == world_.workloads.end() || found->second.ready || !is_ready(found->second)) return;
  found->second.ready = true;
  emit(pb::Event::Kind::READY, id);
  if (cluster_) {
    cluster_->note({id});
    cluster_->on_installed();
  }
  answer_waiters(now);
}

void Node::answer_waiters(TimePoint now) {
  // An answer may ask for something itself: take each waiter out before it is called.
  for (std::size_t i = 0; i < ready_waiters_.size();) {
    const auto& next = ready_waiters_[i];
    const bool known = is_known(next.target), ready = known && is_ready_now(next.target);
    if (known && !ready && next.deadline > now) {
      ++i;
      continue;
    }
    auto waiter = std::move(ready_waiters_[i]);
    ready_waiters_.erase(ready_waiters_.begin() + static_cast<std::ptrdiff_t>(i));
    if (!known) {
      waiter.reply(fail(ErrorCode::kNotFound, "wait " + waiter.text + ": it was deleted"));
      continue;
    }
    pb::WaitReply answer;
    answer.set_ready(ready);
    if (!ready) answer.set_reason(why_not_ready(waiter));
    waiter.reply(std::move(answer));
  }
}

std::string Node::why_not_ready(const ReadyWaiter& waiter) const {
  if (!behind_.empty()) return "rules are not in force: " + behind_;
  if (waiter.target.service) return "no instance of " + waiter.text + " is ready";
  const auto& id = waiter.target.id;
  const auto& workload = world_.workloads.find(id)->second;
  if (!workload.attachment) return id + " is not attached";
  const auto problem = problems_.find(id);
  if (problem != problems_.end() && !problem->second.empty()) return problem->second.front();
  for (const auto port : ports_to_watch(workload.declaration)) {
    if (!workload.tcp_ready.contains(port)) return fmt::format("nothing listens on {}/tcp", port);
  }
  return id + " is draining";
}

}  // namespace meshd
