// What a monitor reads of a node: the values, and the text made of them. Pure. The names are
// documented in docs/metrics.md.
//
// Invariant: labels are words of ours, addresses of upstreams and the node's name: never
//            containers, of which there may be thousands.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dns/forwarder.h"
#include "meshd/node_types.h"
#include "metrics/text.h"

namespace meshd {

// What the daemon counts itself.
struct NodeCounts {
  std::map<std::pair<std::string, std::string>, std::uint64_t> commands;  // command, outcome
  std::uint64_t refused_flows = 0, refused_names = 0;
};

struct DnsCounts {
  std::uint64_t queries = 0, forwarded = 0, dropped = 0, withheld = 0;
  std::array<std::uint64_t, 16> answers{};  // by rcode
};

struct ClusterCounts {
  bool connected = false;
  std::uint64_t sessions = 0, slices_applied = 0, slices_refused = 0, revision = 0;
};

struct NodeMetrics {
  std::string version, node;
  NodeCounts counts;
  std::map<std::string, std::uint64_t> workloads;  // of this node, by state
  std::uint64_t flows = 0, elements = 0;
  std::vector<std::pair<std::string, std::uint64_t>> dropped;  // packets, by the table's counter
  DnsCounts dns;
  std::vector<dns::UpstreamState> upstreams;
  NodeGenerations generations;
  std::uint64_t reported = 0;
  bool healthy = false, behind = false;
  std::uint64_t problems = 0, repairs = 0, watching = 0;
  std::uint64_t refused_consumers = 0, refused_lost = 0;
  std::optional<ClusterCounts> cluster;  // absent: a node by itself
};
[[nodiscard]] std::string render(const NodeMetrics& metrics);

}  // namespace meshd
