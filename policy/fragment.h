// Inside the compiler: what one workload, one service or the settings contribute to the
// plan. Everything here is a function of the world and the index over it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "policy/plan.h"
#include "policy/profile.h"
#include "policy/types.h"

namespace meshd::policy {

// Who declares what, so that a change finds whom it concerns without a walk.
struct Index {
  std::map<ServiceKey, std::set<std::string>> members;        // that declare the service
  std::map<ServiceKey, std::set<std::string>> consumers;      // that name it as a peer
  std::map<std::string, std::set<std::string>> id_consumers;  // that name the id as a peer
};

struct Fragment {
  std::vector<Element> elements;         // sorted, unique
  std::vector<std::uint32_t> profiles;   // to be released with the fragment
  std::shared_ptr<const ViewPlan> view;  // of an attached workload
  std::optional<TimePoint> deadline;     // when its next hold ends
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

// Ids of the declared workloads that the consumer's peers name and that grant it something,
// sorted.
[[nodiscard]] std::vector<std::string> providers_of(const World& world, const Index& index,
                                                    const Declaration& consumer);

// Where egress never leads, whatever it says: nothing of the node or of the link.
[[nodiscard]] std::vector<Prefix> never_reached(const Settings& settings);

[[nodiscard]] Fragment settings_fragment(const Settings& settings);
[[nodiscard]] Fragment service_fragment(const World& world, const Index& index,
                                        const ServiceKey& key);
[[nodiscard]] Fragment workload_fragment(const World& world, const Index& index,
                                         const std::string& id, Profiles& profiles);
[[nodiscard]] ViewPlan view_of(const World& world, const Index& index, const std::string& id);

}  // namespace meshd::policy
