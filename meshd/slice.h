// A node's slice of the cluster (proto/controller.proto) as checked values. Pure; this is where
// what a controller sends becomes domain types.
//
// Invariant: all or nothing: a SliceUpdate has no unchecked string, names nothing twice, and
//            everything in it can be true on this node: addresses of others are in the pools and
//            not in our block, VIPs in their pools. Items of a kind that this program does not
//            know are kept as bytes, so that the hash is right, and mean nothing.
// Errors:    kInvalid, one line: "SERVICE r1/db: vips[0]: 192.0.2.1 is not in 10.214.0.0/16".
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "meshd/slice_types.h"
#include "policy/types.h"
#include "proto/controller.pb.h"

namespace meshd {

// A controller sends far fewer at a time.
inline constexpr int kMaxSliceItems = 4096;
inline constexpr int kMaxConfirmations = 16'384;
// The parts of a slice that are lists; real ones have a handful.
inline constexpr int kMaxReadyPorts = 256;
inline constexpr int kMaxConfirmedRanges = 4096;
inline constexpr int kMaxNodeAddresses = 64;
inline constexpr int kMaxProxies = 64;
inline constexpr int kMaxOpened = 256;
inline constexpr int kMaxOutsideSources = 64;

[[nodiscard]] Result<ClusterTerms> read_terms(const mesh::v1::Welcome& welcome);
// The settings of a node with these terms.
[[nodiscard]] policy::Settings with_terms(policy::Settings settings, const ClusterTerms& terms);

// Assigned to this node.
struct OwnWorkload {
  policy::Declaration declaration;
  std::set<std::uint16_t> opened;  // TCP ports that are published on demand
  bool drained = false;
  bool operator==(const OwnWorkload&) const = default;
};

struct SliceUpdate {
  std::uint64_t revision = 0;
  bool snapshot = false;
  SliceBytes bytes;  // of all items
  std::vector<SliceKey> gone;
  std::map<std::string, OwnWorkload> own;
  std::map<std::string, policy::Workload> others;
  std::map<policy::ServiceKey, policy::Service> services;
  std::map<std::string, policy::RemoteNode> nodes;
  std::map<policy::OutsideKey, policy::Outside> outside;
  policy::Confirmations confirmed;
};

// Whom it is read for.
struct SliceReader {
  const ClusterTerms& terms;
  const std::string& node;  // our name
  TimePoint now{};

  [[nodiscard]] Result<SliceUpdate> change(const mesh::v1::SliceChange& change) const;
  // Adds one item, as it came or was stored; of a service without its ages.
  [[nodiscard]] Status item(const SliceKey& key, const std::string& value, SliceUpdate& into) const;
};

// For people: "SERVICE r1/db".
[[nodiscard]] std::string slice_key_text(const SliceKey& key);
[[nodiscard]] policy::ServiceKey service_key_of(const std::string& text);
[[nodiscard]] std::uint64_t slice_hash(const SliceBytes& slice);

}  // namespace meshd
