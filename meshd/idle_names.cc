#include "meshd/idle_names.h"

#include <algorithm>
#include <set>

namespace meshd {
namespace {

using policy::Scope;
using policy::ServiceKey;

std::optional<ServiceKey> cluster_name(const policy::Declaration& declaration) {
  auto key = declaration.service();
  if (!key || key->scope != Scope::kCluster) return std::nullopt;
  return key;
}

std::int64_t seconds_in(std::chrono::days limit) { return std::chrono::seconds(limit).count(); }

}  // namespace

std::vector<StoreChange> idle_changes(const policy::World& before, const policy::Outcome& outcome,
                                      const IdleNames& idle, std::int64_t now_s) {
  std::vector<StoreChange> changes;
  const auto end_idleness = [&](const ServiceKey& key) {
    if (key.scope == Scope::kCluster && idle.contains(key.name)) {
      changes.push_back(DropIdleName{key.name});
    }
  };
  for (const auto& [key, service] : outcome.services) end_idleness(key);
  for (const auto& key : outcome.services_gone) end_idleness(key);
  std::set<ServiceKey> left, declared;  // by some workload of the outcome
  const auto leaves = [&](const std::string& id) {
    const auto found = before.workloads.find(id);
    if (found == before.workloads.end()) return;
    if (const auto key = cluster_name(found->second.declaration)) left.insert(*key);
  };
  for (const auto& [id, declaration] : outcome.declarations) {
    leaves(id);
    if (const auto key = cluster_name(declaration)) declared.insert(*key);
  }
  for (const auto& id : outcome.forgotten) leaves(id);
  for (const auto& key : left) {
    if (declared.contains(key)) continue;
    const auto stays = [&](const std::string& id) {
      return !outcome.declarations.contains(id) &&
             std::ranges::find(outcome.forgotten, id) == outcome.forgotten.end();
    };
    if (std::ranges::any_of(policy::members(before, key), stays)) continue;
    changes.push_back(PutIdleName{key.name, now_s});
  }
  return changes;
}

std::vector<StoreChange> missing_idle(const policy::World& world, const IdleNames& idle,
                                      std::int64_t now_s) {
  std::set<std::string> declared;
  for (const auto& [id, workload] : world.workloads) {
    if (const auto key = cluster_name(workload.declaration)) declared.insert(key->name);
  }
  std::vector<StoreChange> changes;
  for (const auto& [key, service] : world.services) {
    if (key.scope != Scope::kCluster || declared.contains(key.name)) continue;
    if (!idle.contains(key.name)) changes.push_back(PutIdleName{key.name, now_s});
  }
  for (const auto& [name, since] : idle) {
    const bool there = world.services.contains({Scope::kCluster, {}, name});
    if (!there || declared.contains(name)) changes.push_back(DropIdleName{name});
  }
  return changes;
}

void note_idle(IdleNames& idle, const std::vector<StoreChange>& stored) {
  for (const auto& change : stored) {
    if (const auto* put = std::get_if<PutIdleName>(&change)) idle[put->name] = put->since_s;
    if (const auto* drop = std::get_if<DropIdleName>(&change)) idle.erase(drop->name);
  }
}

std::optional<std::int64_t> next_idle_end(const IdleNames& idle, std::chrono::days limit) {
  if (idle.empty() || limit.count() == 0) return std::nullopt;
  const auto first = std::ranges::min_element(idle, {}, &IdleNames::value_type::second);
  return first->second + seconds_in(limit);
}

std::vector<std::string> idle_for(const IdleNames& idle, std::chrono::days limit,
                                  std::int64_t now_s) {
  std::vector<std::string> names;
  if (limit.count() == 0) return names;
  for (const auto& [name, since] : idle) {
    if (since + seconds_in(limit) <= now_s) names.push_back(name);
  }
  return names;
}

}  // namespace meshd
