// What a node of a cluster keeps of it beside workloads and services: the cluster's terms, and
// its slice as the bytes that came.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"

namespace meshd {

// What the cluster is and what the node has of it. The last two may change while something is
// attached.
struct ClusterTerms {
  std::string cluster, zone;
  std::optional<Prefix> pool4, pool6, vip4, vip6;     // absent: the family is off
  std::optional<Prefix> block4, block6;               // the node's share of the pools
  std::vector<Prefix> proxies;                        // admitted to `http` publications; normalised
  std::uint16_t gateway_first = 0, gateway_last = 0;  // gateways' outside ports; 0: none
  bool operator==(const ClusterTerms&) const = default;
};

// `kind` is a mesh::v1::SliceKey::Kind::Value, or a later one that this program does not know.
struct SliceKey {
  int kind = 0;
  std::string key;
  auto operator<=>(const SliceKey&) const = default;
};
using SliceBytes = std::map<SliceKey, std::string>;

struct StoredCluster {
  ClusterTerms terms;
  std::uint64_t revision = 0;  // of the slice; 0: there is none
  bool operator==(const StoredCluster&) const = default;
};

}  // namespace meshd
