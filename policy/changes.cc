#include "policy/changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "policy/name.h"
#include "policy/outside_changes.h"
#include "policy/truth.h"

namespace meshd::policy {
namespace {

using Kind = Change::Kind;

std::string ports_text(const PortRange& range) {
  return range.single() ? fmt::format("{}/{}", proto_name(range.proto), range.first)
                        : fmt::format("{}/{}-{}", proto_name(range.proto), range.first, range.last);
}

class Describer {
 public:
  Describer(const World& before, const Outcome& outcome) : before_(before), outcome_(outcome) {
    for (const auto& [id, workload] : before.workloads) after_[id] = &workload.declaration;
    for (const auto& id : outcome.forgotten) after_.erase(id);
    for (const auto& [id, declaration] : outcome.declarations) after_[id] = &declaration;
    for (const auto& [id, workload] : before.workloads) add_to_index(workload.declaration);
    for (const auto& [id, declaration] : outcome.declarations) add_to_index(declaration);
  }

  std::vector<Change> describe() {
    workloads();
    names();
    note_publications(before_, outcome_, changes_);
    for (const auto& [id, declaration] : outcome_.declarations) {
      flows(id, declaration);
      note_egress(before(id), declaration, changes_);
    }
    std::ranges::sort(changes_);
    changes_.erase(std::ranges::unique(changes_).begin(), changes_.end());
    return std::move(changes_);
  }

 private:
  // Who may have to do with whom: an apply of a thousand must not compare a million pairs.
  void add_to_index(const Declaration& declaration) {
    if (!declaration.name.empty()) by_name_[declaration.name].insert(declaration.id);
    for (const auto& peer : declaration.peers) {
      auto& users = peer.id.empty() ? users_of_name_[peer.name] : users_of_id_[peer.id];
      users.insert(declaration.id);
    }
  }

  void add_neighbours(const Declaration& declaration, std::set<std::string_view>& ids) const {
    const auto add = [&](const Index& index, const std::string& key) {
      const auto found = index.find(key);
      if (found != index.end()) ids.insert(found->second.begin(), found->second.end());
    };
    add(users_of_id_, declaration.id);
    if (!declaration.name.empty()) add(users_of_name_, declaration.name);
    for (const auto& peer : declaration.peers) {
      if (peer.id.empty()) {
        add(by_name_, peer.name);
      } else {
        ids.insert(peer.id);
      }
    }
  }

  const Declaration* before(const std::string& id) const {
    const auto found = before_.workloads.find(id);
    return found == before_.workloads.end() ? nullptr : &found->second.declaration;
  }

  void workloads() {
    for (const auto& [id, declaration] : outcome_.declarations) {
      const bool added = before(id) == nullptr;
      changes_.push_back({added ? Kind::kWorkloadAdded : Kind::kWorkloadChanged, id, {}});
      undeclared_peers(declaration);
    }
    for (const auto& id : outcome_.unchanged) {
      changes_.push_back({Kind::kWorkloadUnchanged, id, {}});
    }
  }

  void undeclared_peers(const Declaration& declaration) {
    for (const auto& peer : declaration.peers) {
      if (is_declared(declaration, peer)) continue;
      const auto key = peer_service(declaration, peer);
      changes_.push_back(
          {Kind::kPeerUndeclared, declaration.id, key ? service_text(*key) : peer.id});
    }
  }

  bool is_declared(const Declaration& declaration, const Peer& peer) const {
    if (!peer.id.empty()) return after_.contains(peer.id);
    const auto named = by_name_.find(peer.name);
    if (named == by_name_.end()) return false;
    return std::ranges::any_of(named->second, [&](std::string_view id) {
      const auto found = after_.find(id);
      return found != after_.end() && resolves_to(declaration, peer, *found->second);
    });
  }

  void names() {
    for (const auto& [key, service] : outcome_.services) {
      if (before_.services.contains(key)) continue;
      changes_.push_back({Kind::kNameAdded, service_fqdn(before_.settings.zone, key), {}});
    }
    for (const auto& key : outcome_.services_gone) {
      changes_.push_back({Kind::kNameRemoved, service_fqdn(before_.settings.zone, key), {}});
    }
  }

  // Everything that the change of one declaration means for its flows, both ways.
  void flows(const std::string& id, const Declaration& declaration) {
    std::set<std::string_view> others;
    add_neighbours(declaration, others);
    if (const auto* old = before(id)) add_neighbours(*old, others);
    for (const auto& view : others) {
      const auto found = after_.find(view);
      if (found == after_.end()) continue;
      const auto& [other, theirs] = *found;
      compare(id, other, before(id), before(other), &declaration, theirs);
      if (other != id) compare(other, id, before(other), before(id), theirs, &declaration);
    }
  }

  void compare(const std::string& consumer, const std::string& provider,
               const Declaration* consumer_before, const Declaration* provider_before,
               const Declaration* consumer_after, const Declaration* provider_after) {
    std::vector<PortRange> had, has;
    if (consumer_before != nullptr && provider_before != nullptr) {
      had = granted_ranges(*consumer_before, *provider_before);
    }
    has = granted_ranges(*consumer_after, *provider_after);
    if (consumer == provider || had == has) return;
    const auto note = [&](Kind kind, const std::vector<PortRange>& ranges) {
      for (const auto& range : ranges) {
        changes_.push_back(
            {kind, fmt::format("{} -> {} {}", consumer, provider, ports_text(range)), {}});
      }
    };
    note(Kind::kFlowAdded, without(has, had));
    note(Kind::kFlowRemoved, without(had, has));
  }

  const World& before_;
  const Outcome& outcome_;
  using Index = std::map<std::string_view, std::set<std::string_view>>;
  std::map<std::string, const Declaration*, std::less<>> after_;
  Index by_name_, users_of_name_, users_of_id_;  // ids; views of the declarations
  std::vector<Change> changes_;
};

}  // namespace

std::vector<Change> describe(const World& before, const Outcome& outcome) {
  return Describer(before, outcome).describe();
}

}  // namespace meshd::policy
