// Inside the compiler: what one workload, one service or the settings contribute to the
// plan. Everything here is a function of the world and the index over it.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "policy/plan.h"
#include "policy/profile.h"
#include "policy/types.h"

namespace meshd::policy {

// The intervals of a profile of sources.
void add_sources(std::uint32_t profile, const std::vector<Prefix>& sources,
                 std::vector<Element>& elements);

[[nodiscard]] inline SetId pick(Family family, SetId v4, SetId v6) {
  return family == Family::kV4 ? v4 : v6;
}

// Who declares what, so that a change finds whom it concerns without a walk.
struct Index {
  std::map<ServiceKey, std::set<std::string>> members;        // that declare the service
  std::map<ServiceKey, std::set<std::string>> consumers;      // that name it as a peer
  std::map<std::string, std::set<std::string>> id_consumers;  // that name the id as a peer
};

struct Fragment {
  std::vector<Element> elements;         // sorted, unique
  std::vector<std::uint32_t> profiles;   // to be released with the fragment
  std::shared_ptr<const ViewPlan> view;  // of a workload that is attached here
  std::optional<TimePoint> deadline;     // when its next hold ends
  // Of the sets that fill and empty without a command (VIP slots by readiness, holds by its
  // loss, flows to other nodes by confirmations): the elements that the fragment can come to
  // have.
  std::array<std::uint32_t, kSetCount> room{};
};

// What one VIP key stands for: a single port, or an aligned block of them.
struct PortUnit {
  Proto proto = Proto::kTcp;
  std::uint16_t first = 0;
  bool block = false;
  [[nodiscard]] std::uint16_t last() const {
    return block ? static_cast<std::uint16_t>(first + kBlock - 1) : first;
  }
  auto operator<=>(const PortUnit&) const = default;
};
// The fewest units that make up the range: whole aligned blocks, single ports at the ends.
[[nodiscard]] std::vector<PortUnit> units_of(const PortRange& range);
[[nodiscard]] std::vector<PortUnit> units_of(const std::vector<PortRange>& ranges);

// Whether new connections to the unit may be led to this workload.
[[nodiscard]] bool is_endpoint(const Workload& workload, const PortUnit& unit, Family family);

struct Endpoints {
  std::vector<const Workload*> v4, v6;  // by id
  [[nodiscard]] const std::vector<const Workload*>& on(Family family) const {
    return family == Family::kV4 ? v4 : v6;
  }
  [[nodiscard]] bool none() const { return v4.empty() && v6.empty(); }
};
[[nodiscard]] Endpoints endpoints_of(const World& world, const Index& index, const ServiceKey& key,
                                     const PortUnit& unit);
// All units of all members, sorted.
[[nodiscard]] std::vector<PortUnit> service_units(const World& world, const Index& index,
                                                  const ServiceKey& key);

// Where the unit has an endpoint.
[[nodiscard]] FamilyReady served_on(const World& world, const Index& index, const ServiceKey& key,
                                    const PortUnit& unit);

// The declared workloads that the consumer's peers name and that grant it something, by id.
struct GrantedProvider {
  const Workload* workload = nullptr;
  std::vector<PortRange> ranges;  // as granted_ranges() has them; not empty
};
[[nodiscard]] std::vector<GrantedProvider> providers_of(const World& world, const Index& index,
                                                        const Declaration& consumer);
// Null: it is none of them.
[[nodiscard]] const GrantedProvider* provider_named(const std::vector<GrantedProvider>& providers,
                                                    std::string_view id);

// What the consumer is granted of each service that its peers name, in units of the
// providers' own entries as the VIP has them: of neighbouring ports joined to a block, each
// comes and goes by itself. Sorted.
using GrantedUnits = std::map<ServiceKey, std::vector<PortUnit>>;
[[nodiscard]] GrantedUnits granted_units(const World& world, const Index& index,
                                         const Declaration& consumer);
[[nodiscard]] GrantedUnits granted_units(const Index& index, const Declaration& consumer,
                                         const std::vector<GrantedProvider>& providers);

// The families in which a service's name is answered to who is granted these units: both
// until the first of them has an endpoint, then those that some endpoint is on. In a family
// that is not answered nothing is held either: packets and names agree.
[[nodiscard]] FamilyReady answered_on(const World& world, const Index& index, const ServiceKey& key,
                                      const std::vector<PortUnit>& units);
// A packet to such a unit waits in that family, as long as the service's hold lasts: the unit
// has no endpoint at all. (With one on the other family only, it is refused.)
[[nodiscard]] bool waits_on(FamilyReady served, FamilyReady answered, Family family);

// Which of the granted ranges the consumer, which is here, may use to a provider elsewhere:
// what is confirmed for the addresses that the two have now. The rest is held.
[[nodiscard]] std::vector<PortRange> confirmed_ranges(const World& world, const Workload& consumer,
                                                      const Workload& provider,
                                                      const std::vector<PortRange>& granted,
                                                      Family family);

// Where egress never leads, whatever it says: nothing of the node, of the other nodes, or of
// the link.
[[nodiscard]] std::vector<Prefix> never_reached(const World& world);

// An address that the node's own processes speak from.
[[nodiscard]] bool is_node(const Settings& settings, const IpAddress& address);

// What the node and its cluster are.
[[nodiscard]] Fragment node_fragment(const World& world);
// Of it: the container and VIP ranges, sorted; and what there is of other nodes.
[[nodiscard]] std::vector<Prefix> mesh_ranges(const Settings& settings);
void add_other_nodes(const World& world, std::vector<Element>& elements);
// Of an outside port, on a gateway.
[[nodiscard]] Fragment outside_fragment(const World& world, const OutsideKey& key,
                                        Profiles& profiles);
[[nodiscard]] Fragment service_fragment(const World& world, const Index& index,
                                        const ServiceKey& key);
// Of a workload on another node: what it may send to those that are here.
[[nodiscard]] Fragment workload_fragment(const World& world, const Index& index,
                                         const std::string& id, Profiles& profiles);
[[nodiscard]] ViewPlan view_of(const World& world, const Index& index, const std::string& id,
                               const std::vector<GrantedProvider>& providers,
                               const GrantedUnits& granted);

}  // namespace meshd::policy
