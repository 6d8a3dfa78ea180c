// What nodes tell of refused pairs, kept for people: who was refused what, how often, and the
// declaration that is missing. In memory only: after a restart it begins anew.
//
// Threads:   not thread-safe; one owner (the controller's loop).
// Invariant: a node is believed about pairs with a container of its own only. Bounded, and so is
//            the work: of what arrives within a second only some is explained anew.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "controller/cluster.h"
#include "policy/explain.h"
#include "policy/refused_pairs.h"
#include "proto/controller.pb.h"
#include "proto/node.pb.h"

namespace meshd::controller {

// In one message.
inline constexpr int kMaxRefusedFlows = 256;
// Between two of one node; what comes sooner is left out.
inline constexpr auto kRefusedPause = std::chrono::seconds(1);
// Consumers with pairs; with 32 pairs each, 60 MiB at the very most.
inline constexpr std::size_t kRefusedConsumers = 4096;
// An explanation by a service's name looks at every workload: milliseconds in a large cluster.
inline constexpr int kExplainedPerSecond = 20;

// Why it would be refused now.
[[nodiscard]] Result<policy::Explanation> explained(const Cluster& cluster,
                                                    const policy::RefusedPair& pair);

class RefusedTable {
 public:
  struct Taken {
    std::vector<mesh::v1::Event> events;                       // one a pair
    std::vector<std::pair<std::string, std::string>> refused;  // what it says of, why not
  };
  [[nodiscard]] Taken take(const Cluster& cluster, const std::string& node,
                           const mesh::v1::RefusedFlows& flows, const Moment& now);
  [[nodiscard]] const policy::RefusedPairs& pairs() const { return pairs_; }

 private:
  [[nodiscard]] bool may_explain(TimePoint now);

  policy::RefusedPairs pairs_{kRefusedConsumers};
  TimePoint second_{};
  int explained_ = 0;  // in this second
};

}  // namespace meshd::controller
