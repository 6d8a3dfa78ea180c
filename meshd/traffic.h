// What passes between containers now, from the counters of the table's elements: for the
// controller, while somebody looks at its page. Pure.
//
// Invariant: says of flows whose consumer is attached here alone, so that of two nodes one says it.
//            A message is bounded; what has no room is the least.
// Units:     packets and bytes of both directions.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "meshd/kernel.h"
#include "policy/ruleset.h"
#include "policy/types.h"
#include "proto/controller.pb.h"

namespace meshd {

// Read that often, and so slowly that it takes a twentieth of the time at most: 100,000 elements
// are read in a tenth of a second.
inline constexpr auto kTrafficEvery = std::chrono::seconds(2);
inline constexpr int kTrafficShare = 20;
inline constexpr std::size_t kMaxTrafficFlows = 256;  // in one message
// A controller that wants more says so again.
inline constexpr auto kMaxLook = std::chrono::seconds(60);

// Of allow4, allow6 and their blocks.
struct AllowKey {
  IpAddress consumer, provider;
  std::uint8_t proto = 0;
  std::uint16_t port = 0;
};
[[nodiscard]] AllowKey read_allow(const policy::Element& element);

struct TrafficKey {
  std::string consumer, provider;  // ids
  std::uint8_t proto = 0;
  std::uint16_t port = 0;
  auto operator<=>(const TrafficKey&) const = default;
};
struct TrafficCount {
  std::uint64_t packets = 0, bytes = 0;
};
using TrafficCounts = std::map<TrafficKey, TrafficCount>;  // of what has passed anything

[[nodiscard]] TrafficCounts traffic_counts(const policy::World& world,
                                           const std::vector<ElementCount>& counts);
// What has come since `before`. A count that is smaller has begun anew.
[[nodiscard]] mesh::v1::Traffic traffic_since(const TrafficCounts& before, const TrafficCounts& now,
                                              Duration over);

}  // namespace meshd
