#include "policy/allocate.h"

#include <fmt/format.h>

#include <algorithm>

#include "policy/node_ports.h"

namespace meshd::policy {
namespace {

std::string key_text(const ServiceKey& key) {
  return key.scope == Scope::kCluster ? key.name : key.name + " in workflow " + key.workflow;
}

std::unexpected<Error> refuse(ErrorCode code, const std::string& id, std::string_view reason) {
  return fail(code, fmt::format("workload {}: {}", id, reason));
}

// A directory made of the world.
struct Walk {
  explicit Walk(const World& world) {
    for (const auto& [id, workload] : world.workloads) {
      const auto& declaration = workload.declaration;
      if (const auto key = declaration.service()) members[*key].insert(id);
      if (!declaration.workflow.empty()) workflows[declaration.workflow].insert(id);
    }
    for (const auto& [key, service] : world.services) {
      for (const auto family : kFamilies) {
        if (service.vip(family)) vips.add(*service.vip(family));
      }
    }
  }
  Members members;
  std::map<std::string, std::set<std::string>> workflows;
  AddressRuns vips;
};

// One apply being checked. Sees the world as it would be afterwards.
class Apply {
 public:
  Apply(const World& world, const Quarantine& resting, const ListeningPorts* listening,
        Duration quarantine_time, const Directory& directory)
      : world_(world),
        resting_(resting),
        listening_(listening),
        rest_(quarantine_time),
        directory_(directory) {}

  Status take(std::vector<Declaration> declarations) {
    for (auto& declaration : declarations) {
      const auto id = declaration.id;
      if (!after_.try_emplace(id, std::move(declaration)).second) {
        return refuse(ErrorCode::kInvalid, id, "id: declared twice in this apply");
      }
    }
    for (const auto& [id, declaration] : after_) {
      if (const auto key = declaration.service()) members_named_[*key].push_back(&declaration);
    }
    return {};
  }

  Result<Outcome> finish() {
    for (const auto& [id, declaration] : after_) {
      CHECK_OK(check_identity(declaration));
      const auto before = world_.workloads.find(id);
      if (before != world_.workloads.end() && before->second.declaration == declaration) {
        outcome_.unchanged.push_back(id);
      } else {
        outcome_.declarations.emplace(id, declaration);
      }
    }
    CHECK_OK(check_owners());
    CHECK_OK(settle_services());
    if (listening_ != nullptr) CHECK_OK(settle_node_ports());
    return std::move(outcome_);
  }

 private:
  Status check_identity(const Declaration& declaration) const {
    if (std::ranges::find(world_.settings.reserved_names, declaration.name) !=
        world_.settings.reserved_names.end()) {
      return refuse(ErrorCode::kInvalid, declaration.id,
                    fmt::format("name: \"{}\" is reserved by names.reserved", declaration.name));
    }
    const auto before = world_.workloads.find(declaration.id);
    if (before == world_.workloads.end() || !before->second.attachment) return {};
    const auto& old = before->second.declaration;
    if (old.owner != declaration.owner) {
      return refuse(ErrorCode::kConflict, declaration.id,
                    fmt::format("owner: stays {} while attached", old.owner));
    }
    if (old.workflow != declaration.workflow) {
      return refuse(ErrorCode::kConflict, declaration.id,
                    fmt::format("workflow: stays \"{}\" while attached", old.workflow));
    }
    return {};
  }

  // A workflow belongs to the first owner that declares in it.
  Status check_owners() const {
    std::map<std::string_view, const Declaration*> owners;
    for (const auto& [id, declaration] : after_) {
      if (declaration.workflow.empty()) continue;
      const auto [entry, fresh] = owners.try_emplace(declaration.workflow, nullptr);
      if (fresh) entry->second = unnamed_in(declaration.workflow);
      if (entry->second == nullptr) entry->second = &declaration;
      if (entry->second->owner != declaration.owner) {
        return refuse(ErrorCode::kConflict, id,
                      fmt::format("workflow: {} belongs to another owner", declaration.workflow));
      }
    }
    return {};
  }

  // A declaration of the workflow that this apply leaves as it is.
  const Declaration* unnamed_in(const std::string& workflow) const {
    const auto found = directory_.workflows.find(workflow);
    if (found == directory_.workflows.end()) return nullptr;
    const auto unnamed = std::ranges::find_if(
        found->second, [this](const std::string& id) { return !after_.contains(id); });
    return unnamed == found->second.end() ? nullptr
                                          : &world_.workloads.find(*unnamed)->second.declaration;
  }

  // Every declaration of a service as it would be after the apply.
  std::vector<const Declaration*> members_after(const ServiceKey& key) const {
    std::vector<const Declaration*> result;
    if (const auto before = directory_.members.find(key); before != directory_.members.end()) {
      for (const auto& id : before->second) {
        if (!after_.contains(id)) {
          result.push_back(&world_.workloads.find(id)->second.declaration);
        }
      }
    }
    if (const auto named = members_named_.find(key); named != members_named_.end()) {
      result.insert(result.end(), named->second.begin(), named->second.end());
    }
    return result;
  }

  static Status check_replicas(const std::vector<const Declaration*>& members) {
    auto owners_of = [](const Declaration& d) {
      return std::set<std::string>(d.admit_owners.begin(), d.admit_owners.end());
    };
    for (const auto* other : members) {
      const auto& first = *members.front();
      const char* field = nullptr;
      if (other->owner != first.owner)
        field = "owner";
      else if (other->admit != first.admit)
        field = "admit";
      else if (owners_of(*other) != owners_of(first))
        field = "admit_owners";
      else if (other->hold != first.hold)
        field = "hold";
      if (field != nullptr) {
        return refuse(ErrorCode::kConflict, other->id,
                      fmt::format("{}: replicas of {} must agree, and {} says otherwise", field,
                                  key_text(*first.service()), first.id));
      }
      if (first.admit == Admit::kWorkflow && other->workflow != first.workflow) {
        // Each would admit its own run alone, and the VIP would lead to either by chance.
        return refuse(ErrorCode::kConflict, other->id,
                      fmt::format("workflow: replicas of {} with admit: WORKFLOW must be of one "
                                  "workflow, and {} is of {}",
                                  key_text(*first.service()), first.id, first.workflow));
      }
    }
    return {};
  }

  Status settle_services() {
    std::set<ServiceKey> concerned;
    for (const auto& [id, declaration] : outcome_.declarations) {
      if (const auto key = declaration.service()) concerned.insert(*key);
      const auto before = world_.workloads.find(id);
      if (before == world_.workloads.end()) continue;
      if (const auto key = before->second.declaration.service()) concerned.insert(*key);
    }
    for (const auto& key : concerned) {
      const auto members = members_after(key);
      const auto known = world_.services.find(key);
      if (members.empty()) {
        if (key.scope == Scope::kWorkflow && known != world_.services.end()) drop(key);
        continue;
      }
      CHECK_OK(check_replicas(members));
      if (known == world_.services.end()) {
        CHECK_OK(add_service(key, *members.front()));
        continue;
      }
      if (known->second.owner != members.front()->owner) {
        return refuse(ErrorCode::kConflict, members.front()->id,
                      fmt::format("name: {} belongs to another owner", key_text(key)));
      }
      if (!directory_.members.contains(key)) {
        // Declared again after a pause: holds count from now.
        auto service = known->second;
        service.declared_at = world_.now;
        outcome_.services.emplace(key, std::move(service));
      }
    }
    return {};
  }

  void drop(const ServiceKey& key) {
    const auto& service = world_.services.at(key);
    for (const auto family : kFamilies) {
      if (service.vip(family)) outcome_.quarantine[*service.vip(family)] = world_.now + rest_;
    }
    outcome_.services_gone.push_back(key);
  }

  Status add_service(const ServiceKey& key, const Declaration& first) {
    Service service;
    service.owner = first.owner;
    service.declared_at = world_.now;
    for (const auto family : kFamilies) {
      const auto& pool = world_.settings.vip_pool(family);
      if (!pool) continue;
      const auto vip = free_vip(*pool, family);
      if (!vip) {
        return refuse(ErrorCode::kExhausted, first.id,
                      fmt::format("name: no VIP is free in {}", pool->to_string()));
      }
      (family == Family::kV4 ? service.vip4 : service.vip6) = vip;
    }
    outcome_.services.emplace(key, std::move(service));
    return {};
  }

  std::optional<IpAddress> free_vip(const Prefix& pool, Family family) {
    // The first and the last address of a prefix look like network and broadcast to people.
    auto& from = vips_from_[family == Family::kV4 ? 0 : 1];
    if (!from) from = pool.address().plus(1);
    const auto last = pool.address().plus((std::uint64_t{1} << std::min(pool.host_bits(), 32)) - 2);
    for (;;) {
      const auto vip = directory_.vips.free_from(*from);
      if (vip > last) return std::nullopt;
      from = vip.plus(1);
      const auto rests = resting_.find(vip);
      if (rests == resting_.end() || rests->second <= world_.now) return vip;
    }
  }

  Status settle_node_ports() {
    auto ports = policy::settle_node_ports(world_, after_, *listening_);
    if (!ports.refused.empty()) return std::unexpected(std::move(ports.refused.front().second));
    outcome_.node_ports = std::move(ports.given);
    outcome_.node_ports_gone = std::move(ports.gone);
    return {};
  }

  const World& world_;
  const Quarantine& resting_;
  const ListeningPorts* const listening_;
  const Duration rest_;
  const Directory& directory_;
  std::map<std::string, Declaration, std::less<>> after_;  // everything named in the apply
  std::map<ServiceKey, std::vector<const Declaration*>> members_named_;  // of it
  std::optional<IpAddress> vips_from_[2];  // what comes before is taken, or was given out here
  Outcome outcome_;
};

void give_up(const World& world, const ServiceKey& key, Duration rest, Outcome& outcome) {
  const auto found = world.services.find(key);
  if (found == world.services.end()) return;
  for (const auto family : kFamilies) {
    const auto& vip = found->second.vip(family);
    if (vip) outcome.quarantine[*vip] = world.now + rest;
  }
  outcome.services_gone.push_back(key);
}

}  // namespace

std::vector<std::string> members(const World& world, const ServiceKey& key) {
  std::vector<std::string> result;
  for (const auto& [id, workload] : world.workloads) {
    if (workload.declaration.service() == key) result.push_back(id);
  }
  return result;
}

Result<Outcome> declare(const World& world, std::vector<Declaration> declarations,
                        const Quarantine& resting, const ListeningPorts* listening,
                        Duration quarantine_time, const Directory* directory) {
  std::optional<Walk> walk;
  std::optional<Directory> made;
  if (directory == nullptr) {
    walk.emplace(world);
    made.emplace(walk->members, walk->workflows, walk->vips);
    directory = &*made;
  }
  Apply apply(world, resting, listening, quarantine_time, *directory);
  CHECK_OK(apply.take(std::move(declarations)));
  return apply.finish();
}

Outcome forget(const World& world, const std::string& id, Duration quarantine_time,
               const Directory* directory) {
  Outcome outcome;
  outcome.forgotten.push_back(id);
  for (const auto& [key, port] : world.node_ports) {
    if (key.id == id) outcome.node_ports_gone.push_back(key);
  }
  const auto key = world.workloads.find(id)->second.declaration.service();
  const auto declaring = [&] {
    if (directory == nullptr) return members(world, *key).size();
    const auto found = directory->members.find(*key);
    return found == directory->members.end() ? 0 : found->second.size();
  };
  if (key && key->scope == Scope::kWorkflow && declaring() == 1) {
    give_up(world, *key, quarantine_time, outcome);
  }
  return outcome;
}

Result<Outcome> release(const World& world, const ServiceKey& key, Duration quarantine_time) {
  if (key.scope != Scope::kCluster || !world.services.contains(key)) {
    return fail(ErrorCode::kNotFound, "name release: no CLUSTER name " + key.name);
  }
  const auto declaring = members(world, key);
  if (!declaring.empty()) {
    return fail(ErrorCode::kConflict,
                fmt::format("name release: {} is declared by {}", key.name, declaring.front()));
  }
  Outcome outcome;
  give_up(world, key, quarantine_time, outcome);
  return outcome;
}

Outcome adopt(World& world, Quarantine& resting, Outcome outcome) {
  Outcome back;
  for (auto& [id, declaration] : outcome.declarations) {
    const auto [entry, added] = world.workloads.try_emplace(id);
    if (added) {
      back.forgotten.push_back(id);
    } else {
      back.declarations.emplace(id, std::move(entry->second.declaration));
    }
    entry->second.declaration = std::move(declaration);
  }
  for (const auto& id : outcome.forgotten) {
    const auto entry = world.workloads.find(id);
    if (entry == world.workloads.end()) continue;
    // Not attached, so its declaration is all there is of it.
    back.declarations.emplace(id, std::move(entry->second.declaration));
    world.workloads.erase(entry);
  }
  for (auto& [key, service] : outcome.services) {
    const auto [entry, added] = world.services.try_emplace(key, service);
    if (added) {
      back.services_gone.push_back(key);
    } else {
      back.services.emplace(key, std::exchange(entry->second, std::move(service)));
    }
  }
  for (const auto& key : outcome.services_gone) {
    const auto entry = world.services.find(key);
    if (entry == world.services.end()) continue;
    back.services.emplace(key, std::move(entry->second));
    world.services.erase(entry);
  }
  for (const auto& key : outcome.node_ports_gone) {
    const auto entry = world.node_ports.find(key);
    if (entry == world.node_ports.end()) continue;
    back.node_ports.emplace(key, entry->second);
    world.node_ports.erase(entry);
  }
  for (const auto& [key, port] : outcome.node_ports) {
    const auto [entry, added] = world.node_ports.try_emplace(key, port);
    if (added) {
      back.node_ports_gone.push_back(key);
    } else {
      back.node_ports.emplace(key, std::exchange(entry->second, port));
    }
  }
  for (const auto& address : outcome.quarantine_gone) {
    const auto entry = resting.find(address);
    if (entry == resting.end()) continue;
    back.quarantine.emplace(*entry);
    resting.erase(entry);
  }
  for (const auto& [address, until] : outcome.quarantine) {
    const auto [entry, added] = resting.try_emplace(address, until);
    if (added) {
      back.quarantine_gone.push_back(address);
    } else {
      back.quarantine.emplace(address, std::exchange(entry->second, until));
    }
  }
  return back;
}

}  // namespace meshd::policy
