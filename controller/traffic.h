// What nodes say passes between containers, kept while somebody looks at the page. In memory only.
//
// Threads:   not thread-safe; one owner (the controller's loop).
// Invariant: a node is believed about consumers of its own only, and what it says replaces what it
//            said before. Bounded: so many rows of a node, so many nodes; what is not renewed
//            lapses.
// Units:     rates a second.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "controller/cluster.h"
#include "controller/record.h"
#include "proto/controller.pb.h"
#include "proxy/overview.h"

namespace meshd::controller {

inline constexpr int kMaxTrafficFlows = 256;  // in one message
// Between two of one node, of which the shortest is 2 s; what comes sooner is left out.
inline constexpr auto kTrafficPause = std::chrono::seconds(1);
// Some 150 bytes each.
inline constexpr std::size_t kMaxTrafficRates = 100'000;
// A node reads every 2 s, or as slowly as its table is large. Told that nothing passes it says so.
inline constexpr auto kTrafficLapses = std::chrono::seconds(10);

class TrafficTable {
 public:
  // Why it, or some of it, is not believed; one of several reasons. Absent: all is.
  std::optional<std::string> take(const Cluster& cluster, const std::string& node,
                                  const mesh::v1::Traffic& traffic, TimePoint now);
  // By consumer, provider, port.
  [[nodiscard]] std::vector<proxy::FlowRate> rates(TimePoint now);
  void forget(const std::string& node);
  void clear();

 private:
  struct Said {
    TimePoint at{};
    std::vector<proxy::FlowRate> rates;
  };
  std::map<std::string, Said> by_node_;
  std::size_t count_ = 0;
};

}  // namespace meshd::controller
