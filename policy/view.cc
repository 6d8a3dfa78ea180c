// What one container sees of the zone.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "policy/fragment.h"
#include "policy/name.h"
#include "policy/truth.h"

namespace meshd::policy {
namespace {

class ViewBuilder {
 public:
  ViewBuilder(const World& world, const Index& index, const std::string& id,
              const std::vector<GrantedProvider>& providers, const GrantedUnits& granted)
      : world_(world),
        index_(index),
        providers_(providers),
        granted_(granted),
        zone_(world.settings.zone),
        workload_(world.workloads.find(id)->second),
        declaration_(workload_.declaration) {}

  ViewPlan build() {
    ViewPlan view;
    view.client = declaration_.id;
    for (const auto family : kFamilies) {
      const auto& address = workload_.attachment->address(family);
      if (address) view.addresses.push_back(*address);
    }
    add_instance(workload_, declaration_.serves);
    if (const auto own = declaration_.service()) add_service(*own, declaration_.serves);
    for (const auto& provider : providers_) {
      add_instance(*provider.workload, granted_serves(provider));
    }
    add_peers();
    for (auto& [fqdn, name] : names_) view.names.push_back(std::move(name));
    for (auto& [name, reason] : withheld_) view.withheld.emplace_back(name, std::move(reason));
    view.search = search_list(zone_, declaration_.workflow);
    // Whoever has another way out, which cannot be ours to open or close, needs names for it:
    // the resolver that its engine gave it has made way for this one.
    view.forward = !declaration_.egress.empty() || !workload_.attachment->default_route;
    return view;
  }

 private:
  // Served ports with a name of which the consumer is granted something.
  static std::vector<ServedPort> granted_serves(const GrantedProvider& provider) {
    std::vector<ServedPort> result;
    for (const auto& served : provider.workload->declaration.serves) {
      const bool reachable = std::ranges::any_of(provider.ranges, [&](const PortRange& range) {
        return range.contains(served.ports.proto, served.ports.first);
      });
      if (!served.name.empty() && reachable) result.push_back(served);
    }
    return result;
  }

  static void add_srv(VisibleName& name, const std::vector<ServedPort>& serves) {
    for (const auto& served : serves) {
      if (served.name.empty()) continue;
      name.srv.push_back({served.name, served.ports.proto, served.ports.first});
    }
    std::ranges::sort(name.srv);
    name.srv.erase(std::ranges::unique(name.srv).begin(), name.srv.end());
  }

  void add_instance(const Workload& workload, const std::vector<ServedPort>& serves) {
    const auto fqdn = instance_fqdn(zone_, workload.declaration.id);
    auto& name = names_[fqdn];
    name.fqdn = fqdn;
    add_srv(name, serves);
    // Draining takes the name out; before the attach there is no address yet.
    if (workload.drains()) return;
    name.v4 = workload.address(Family::kV4);
    name.v6 = workload.address(Family::kV6);
    name.stale = workload.remote && workload.remote->stale;
  }

  // Judged by what this container is granted: a port that it may not reach, or that nobody
  // ever opens, must not keep a family in the answer. Of its own service's name, which it
  // sees without being granted anything, by all ports.
  FamilyReady answered(const ServiceKey& key) const {
    const auto granted = granted_.find(key);
    if (granted != granted_.end() && !granted->second.empty()) {
      return answered_on(world_, index_, key, granted->second);
    }
    return answered_on(world_, index_, key, service_units(world_, index_, key));
  }

  [[nodiscard]] bool is_stale(const ServiceKey& key) const {
    const auto members = index_.members.find(key);
    if (members == index_.members.end()) return false;
    bool stale = false;
    for (const auto& id : members->second) {
      const auto& workload = world_.workloads.find(id)->second;
      if (!workload.is_placed() || workload.drains()) continue;
      if (!workload.remote || !workload.remote->stale) return false;
      stale = true;
    }
    return stale;
  }

  void add_service(const ServiceKey& key, const std::vector<ServedPort>& serves) {
    const auto service = world_.services.find(key);
    if (service == world_.services.end()) return;
    const auto fqdn = service_fqdn(zone_, key);
    auto& name = names_[fqdn];
    name.fqdn = fqdn;
    const auto families = answered(key);
    if (families.v4) name.v4 = service->second.vip4;
    if (families.v6) name.v6 = service->second.vip6;
    name.stale = is_stale(key);
    add_srv(name, serves);
    // The bare label: the workflow's own name goes before the cluster's.
    const auto [alias, free] = aliases_.emplace(key.name, key);
    if (!free && alias->second != key) {
      if (alias->second.scope == Scope::kWorkflow) return;
      std::erase(names_[service_fqdn(zone_, alias->second)].aliases, key.name);
      alias->second = key;
    }
    if (std::ranges::find(name.aliases, key.name) == name.aliases.end()) {
      name.aliases.push_back(key.name);
    }
  }

  void add_peers() {
    for (const auto& peer : declaration_.peers) {
      if (!peer.id.empty()) {
        withhold_unless_seen(instance_fqdn(zone_, peer.id), peer.id, {});
        continue;
      }
      const auto key = *peer_service(declaration_, peer);
      const auto members = index_.members.find(key);
      bool granted = false;
      std::vector<ServedPort> serves;
      if (members != index_.members.end()) {
        for (const auto& id : members->second) {
          const auto* provider = provider_named(providers_, id);
          if (provider == nullptr) continue;
          granted = true;
          const auto more = granted_serves(*provider);
          serves.insert(serves.end(), more.begin(), more.end());
        }
      }
      if (granted) add_service(key, serves);
      withhold_unless_seen(service_fqdn(zone_, key), peer.name, peer.name);
    }
    for (const auto& [name, key] : aliases_) withheld_.erase(name);
  }

  void withhold_unless_seen(const std::string& fqdn, const std::string& what,
                            const std::string& bare) {
    if (names_.contains(fqdn)) return;
    const auto reason = fmt::format("peer {} is not available to you", what);
    withheld_.emplace(fqdn, reason);
    if (!bare.empty()) withheld_.emplace(bare, reason);
  }

  const World& world_;
  const Index& index_;
  const std::vector<GrantedProvider>& providers_;
  const GrantedUnits& granted_;
  const std::string& zone_;
  const Workload& workload_;
  const Declaration& declaration_;
  std::map<std::string, VisibleName> names_;
  std::map<std::string, ServiceKey> aliases_;  // bare label -> what it stands for
  std::map<std::string, std::string> withheld_;
};

}  // namespace

ViewPlan view_of(const World& world, const Index& index, const std::string& id,
                 const std::vector<GrantedProvider>& providers, const GrantedUnits& granted) {
  return ViewBuilder(world, index, id, providers, granted).build();
}

}  // namespace meshd::policy
