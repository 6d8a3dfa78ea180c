#include <algorithm>
#include <array>
#include <utility>

#include "policy/diff.h"
#include "policy/element_index.h"
#include "policy/fragment.h"
#include "policy/plan.h"
#include "policy/truth.h"

namespace meshd::policy {
namespace {

// What the plans of others depend on. As long as it stays, a change is the workload's own
// affair: a provider with a thousand consumers may gain a peer at the cost of that peer.
struct Face {
  Declaration declaration;  // without what concerns nobody else
  std::optional<IpAddress> v4, v6;
  std::string host_ifname;
  std::optional<Remote> remote;
  bool attached = false, draining = false, ready = false;
  std::map<std::uint16_t, FamilyReady> tcp_ready;
  bool operator==(const Face&) const = default;
};

Face face_of(const Workload& workload) {
  Face face{
      workload.declaration, {}, {}, {}, workload.remote, false, workload.drains(), workload.ready,
      workload.tcp_ready};
  face.declaration.peers.clear();
  face.declaration.egress.clear();
  if (workload.attachment) {
    face.attached = true;
    face.v4 = workload.attachment->v4;
    face.v6 = workload.attachment->v6;
    face.host_ifname = workload.attachment->host_ifname;
  }
  return face;
}

// The same of a service: null when it does not exist.
const Service* service_in(const World& world, const ServiceKey& key) {
  const auto found = world.services.find(key);
  return found == world.services.end() ? nullptr : &found->second;
}

// What an indexed workload refers to, so that it can be taken out of the index again.
struct References {
  Face face;
  std::optional<ServiceKey> service;
  std::vector<ServiceKey> peers;
  std::vector<std::string> peer_ids;
};

template <class Key>
void erase_from(std::map<Key, std::set<std::string>>& index, const Key& key,
                const std::string& id) {
  const auto found = index.find(key);
  if (found == index.end()) return;
  found->second.erase(id);
  if (found->second.empty()) index.erase(found);
}

}  // namespace

struct Compiler::State {
  Index index;
  std::map<std::string, References> references;
  std::map<ServiceKey, Service> known_services;  // as of the last update
  Fragment base;
  std::map<std::string, Fragment> workloads;
  std::map<ServiceKey, Fragment> services;
  std::map<OutsideKey, Fragment> outside;
  std::set<std::pair<TimePoint, std::string>> deadlines;
  ElementIndex uses;  // by fragments
  std::array<std::size_t, kSetCount> counts{};
  std::array<std::size_t, kSetCount> room{};  // of all fragments
  Profiles profiles;

  // Takes one fragment's place; what that changes is collected, and settled by settle().
  void replace(const Fragment& before, const Fragment& after) {
    if (before.elements.empty()) {  // all of them, at a start: not copied one by one
      added_.insert(added_.end(), after.elements.begin(), after.elements.end());
    } else {
      std::ranges::set_difference(after.elements, before.elements, std::back_inserter(added_));
      std::ranges::set_difference(before.elements, after.elements, std::back_inserter(removed_));
    }
    for (std::size_t set = 0; set < kSetCount; ++set) {
      room[set] = room[set] + after.room[set] - before.room[set];
    }
  }

  // Additions first: an element that moves from one fragment to another never goes to zero.
  Delta settle() {
    uses.reserve(uses.size() + added_.size());
    std::erase_if(added_, [this](const Element& element) { return !uses.add(element); });
    std::erase_if(removed_, [this](const Element& element) { return !uses.remove(element); });
    for (const auto& element : added_) ++counts[static_cast<std::size_t>(element.set)];
    for (const auto& element : removed_) --counts[static_cast<std::size_t>(element.set)];
    Delta delta{std::exchange(removed_, {}), std::exchange(added_, {})};
    sort_runs(delta.add);
    sort_runs(delta.remove);
    return delta;
  }

  // Brings the index up to date for one workload and notes whom that concerns.
  void reindex(const World& world, const std::string& id, Touched& affected) {
    affected.workloads.insert(id);
    const auto found = world.workloads.find(id);
    const auto known = references.find(id);
    const bool there = found != world.workloads.end();
    const bool was_there = known != references.end();
    std::optional<Face> face;
    if (there) face = face_of(found->second);
    const bool concerns_others = there != was_there || (there && *face != known->second.face);
    if (concerns_others) note_neighbours(id, affected);
    unindex(id);
    if (there) add_to_index(found->second.declaration, *std::move(face));
    if (concerns_others) note_neighbours(id, affected);
  }

  // True when it is another than at the last update.
  bool remember(const World& world, const ServiceKey& key) {
    const auto* now = service_in(world, key);
    const auto known = known_services.find(key);
    if (now == nullptr) return known_services.erase(key) > 0;
    if (known != known_services.end() && known->second == *now) return false;
    known_services.insert_or_assign(key, *now);
    return true;
  }

  void note_neighbours(const std::string& id, Touched& affected) const {
    if (const auto users = index.id_consumers.find(id); users != index.id_consumers.end()) {
      affected.workloads.insert(users->second.begin(), users->second.end());
    }
    const auto known = references.find(id);
    if (known != references.end() && known->second.service) {
      affected.services.insert(*known->second.service);
    }
  }

  // A service concerns itself, whoever calls it, and its members' views of it.
  void note_service(const ServiceKey& key, Touched& affected) const {
    for (const auto* side : {&index.consumers, &index.members}) {
      const auto found = side->find(key);
      if (found == side->end()) continue;
      affected.workloads.insert(found->second.begin(), found->second.end());
    }
  }

  void unindex(const std::string& id) {
    const auto known = references.find(id);
    if (known == references.end()) return;
    const auto& old = known->second;
    if (old.service) erase_from(index.members, *old.service, id);
    for (const auto& key : old.peers) erase_from(index.consumers, key, id);
    for (const auto& peer : old.peer_ids) erase_from(index.id_consumers, peer, id);
    references.erase(known);
  }

  void add_to_index(const Declaration& declaration, Face face) {
    auto& refers = references[declaration.id];
    refers.face = std::move(face);
    refers.service = declaration.service();
    if (refers.service) index.members[*refers.service].insert(declaration.id);
    for (const auto& peer : declaration.peers) {
      if (const auto key = peer_service(declaration, peer)) {
        refers.peers.push_back(*key);
        index.consumers[*key].insert(declaration.id);
      } else {
        refers.peer_ids.push_back(peer.id);
        index.id_consumers[peer.id].insert(declaration.id);
      }
    }
  }

  void redo_node(const World& world) {
    auto after = node_fragment(world);
    replace(base, after);
    base = std::move(after);
  }

  void redo_workload(const World& world, const std::string& id, PlanDelta& delta) {
    auto after = workload_fragment(world, index, id, profiles);
    auto& before = workloads[id];
    for (const auto number : before.profiles) profiles.release(number);
    replace(before, after);
    if (before.deadline) deadlines.erase({*before.deadline, id});
    if (after.deadline) deadlines.insert({*after.deadline, id});
    note_view(before.view, after.view, delta);
    before = std::move(after);
    if (before.elements.empty() && !before.view) workloads.erase(id);  // has no room either
  }

  static void note_view(const std::shared_ptr<const ViewPlan>& before,
                        std::shared_ptr<const ViewPlan>& after, PlanDelta& delta) {
    if (before && after && *before == *after) {
      after = before;  // the same: nobody needs to hear of it
      return;
    }
    if (before) {
      for (const auto& address : before->addresses) {
        const bool kept =
            after && std::ranges::find(after->addresses, address) != after->addresses.end();
        if (!kept) delta.views_gone.push_back(address);
      }
    }
    if (after) delta.views.push_back(after);
  }

  void redo_outside(const World& world, const OutsideKey& key) {
    auto after = outside_fragment(world, key, profiles);
    auto& before = outside[key];
    for (const auto number : before.profiles) profiles.release(number);
    replace(before, after);
    before = std::move(after);
    if (before.elements.empty()) outside.erase(key);
  }

  void redo_service(const World& world, const ServiceKey& key) {
    auto after = service_fragment(world, index, key);
    auto& before = services[key];
    replace(before, after);
    before = std::move(after);
    if (before.elements.empty() && before.room == Fragment().room) services.erase(key);
  }

 private:
  std::vector<Element> added_, removed_;
};

Compiler::Compiler() : state_(std::make_unique<State>()) {}
Compiler::~Compiler() = default;
Compiler::Compiler(Compiler&&) noexcept = default;
Compiler& Compiler::operator=(Compiler&&) noexcept = default;

PlanDelta Compiler::update(const World& world, const Touched& touched) {
  Touched affected;
  for (const auto& id : touched.workloads) state_->reindex(world, id, affected);
  for (const auto& key : touched.services) {
    if (state_->remember(world, key)) affected.services.insert(key);
  }
  if (touched.nodes) state_->redo_node(world);
  affected.outside = touched.outside;
  return redo(world, affected);
}

PlanDelta Compiler::redo(const World& world, Touched affected) {
  for (const auto& key : affected.services) state_->note_service(key, affected);
  PlanDelta delta;
  for (const auto& key : affected.services) state_->redo_service(world, key);
  for (const auto& id : affected.workloads) state_->redo_workload(world, id, delta);
  for (const auto& [key, outside] : world.outside) {  // those of containers here
    if (affected.workloads.contains(outside.id)) affected.outside.insert(key);
  }
  for (const auto& key : affected.outside) state_->redo_outside(world, key);
  delta.elements = state_->settle();
  // An address that passed from one container to another has a view again.
  std::erase_if(delta.views_gone, [&](const IpAddress& address) {
    return std::ranges::any_of(delta.views, [&](const auto& view) {
      return std::ranges::find(view->addresses, address) != view->addresses.end();
    });
  });
  return delta;
}

PlanDelta Compiler::rebuild(const World& world) {
  state_->redo_node(world);
  Touched all;
  for (const auto& [id, workload] : world.workloads) all.workloads.insert(id);
  for (const auto& [id, fragment] : state_->workloads) all.workloads.insert(id);
  for (const auto& [key, service] : world.services) all.services.insert(key);
  for (const auto& [key, fragment] : state_->services) all.services.insert(key);
  for (const auto& [key, outside] : world.outside) all.outside.insert(key);
  for (const auto& [key, fragment] : state_->outside) all.outside.insert(key);
  for (const auto& id : Touched(all).workloads) state_->reindex(world, id, all);
  for (const auto& key : all.services) {
    [[maybe_unused]] const bool changed = state_->remember(world, key);
  }
  return redo(world, std::move(all));  // settings concern everybody
}

std::vector<Element> Compiler::elements() const {
  std::vector<std::span<const Element>> runs{state_->base.elements};
  for (const auto& [id, fragment] : state_->workloads) runs.emplace_back(fragment.elements);
  for (const auto& [key, fragment] : state_->services) runs.emplace_back(fragment.elements);
  for (const auto& [key, fragment] : state_->outside) runs.emplace_back(fragment.elements);
  return merged(runs);
}

std::size_t Compiler::element_count(SetId set) const {
  return state_->counts[static_cast<std::size_t>(set)];
}

std::size_t Compiler::worst_case_count(SetId set) const {
  // The other sets hold what commands put there, and no more.
  const auto index = static_cast<std::size_t>(set);
  return std::max(state_->counts[index], state_->room[index]);
}

bool Compiler::contains(const Element& element) const { return state_->uses.contains(element); }

std::vector<std::shared_ptr<const ViewPlan>> Compiler::views() const {
  std::vector<std::shared_ptr<const ViewPlan>> all;
  for (const auto& [id, fragment] : state_->workloads) {
    if (fragment.view) all.push_back(fragment.view);
  }
  return all;
}

std::optional<TimePoint> Compiler::next_deadline() const {
  if (state_->deadlines.empty()) return std::nullopt;
  return state_->deadlines.begin()->first;
}

Touched Compiler::due(TimePoint now) const {
  Touched touched;
  for (const auto& [when, id] : state_->deadlines) {
    if (when > now) break;
    touched.workloads.insert(id);
  }
  return touched;
}

std::vector<std::string> Compiler::endpoints(const World& world, const ServiceKey& key, Proto proto,
                                             std::uint16_t port, Family family) const {
  std::vector<std::string> ids;
  const auto found = endpoints_of(world, state_->index, key, {proto, port, false});
  for (const auto* workload : found.on(family)) ids.push_back(workload->declaration.id);
  return ids;
}

}  // namespace meshd::policy
