// Whom a consumer's peers name, and what of each it is granted.
#include <algorithm>

#include "policy/fragment.h"
#include "policy/truth.h"

namespace meshd::policy {
namespace {

// What is granted, in units of the provider's own entries.
void add_units(const GrantedProvider& provider, std::vector<PortUnit>& units) {
  for (const auto& range : provider.ranges) {
    for (const auto& served : provider.workload->declaration.serves) {
      if (served.ports.proto != range.proto) continue;
      const PortRange both{range.proto, std::max(range.first, served.ports.first),
                           std::min(range.last, served.ports.last)};
      if (both.first > both.last) continue;
      const auto more = units_of(both);
      units.insert(units.end(), more.begin(), more.end());
    }
  }
}

}  // namespace

// Each peer entry is led to those it names, once: asking each provider about every entry
// would be a hundred times a hundred comparisons of strings for a consumer of a hundred.
std::vector<GrantedProvider> providers_of(const World& world, const Index& index,
                                          const Declaration& consumer) {
  std::vector<std::pair<const Workload*, const Peer*>> named;
  const auto note = [&](const std::string& id, const Peer& peer) {
    const auto found = world.workloads.find(id);
    if (found != world.workloads.end()) named.emplace_back(&found->second, &peer);
  };
  for (const auto& peer : consumer.peers) {
    const auto key = peer_service(consumer, peer);
    if (!key) {
      note(peer.id, peer);
      continue;
    }
    const auto members = index.members.find(*key);
    if (members == index.members.end()) continue;
    for (const auto& id : members->second) note(id, peer);
  }
  std::ranges::sort(
      named, {}, [](const auto& one) -> const std::string& { return one.first->declaration.id; });
  std::vector<GrantedProvider> providers;
  std::vector<const Peer*> peers;
  for (std::size_t i = 0; i < named.size(); ++i) {
    const auto* provider = named[i].first;
    peers.push_back(named[i].second);
    if (i + 1 < named.size() && named[i + 1].first == provider) continue;
    auto ranges = granted_ranges(consumer, peers, provider->declaration);
    if (!ranges.empty()) providers.push_back({provider, std::move(ranges)});
    peers.clear();
  }
  return providers;
}

const GrantedProvider* provider_named(const std::vector<GrantedProvider>& providers,
                                      std::string_view id) {
  const auto found = std::ranges::lower_bound(
      providers, id, {},
      [](const GrantedProvider& one) -> std::string_view { return one.workload->declaration.id; });
  return found == providers.end() || found->workload->declaration.id != id ? nullptr : &*found;
}

GrantedUnits granted_units(const World& world, const Index& index, const Declaration& consumer) {
  return granted_units(index, consumer, providers_of(world, index, consumer));
}

GrantedUnits granted_units(const Index& index, const Declaration& consumer,
                           const std::vector<GrantedProvider>& providers) {
  GrantedUnits granted;
  for (const auto& peer : consumer.peers) {
    const auto key = peer_service(consumer, peer);
    const auto members = key ? index.members.find(*key) : index.members.end();
    if (members == index.members.end()) continue;
    auto& units = granted[*key];
    for (const auto& id : members->second) {
      if (const auto* provider = provider_named(providers, id)) add_units(*provider, units);
    }
    std::ranges::sort(units);
    units.erase(std::ranges::unique(units).begin(), units.end());
  }
  return granted;
}

}  // namespace meshd::policy
