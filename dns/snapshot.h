// What the resolver knows at one moment: the zone's settings and, per client address, what
// that client may see. Immutable; a change makes a new one that shares all the rest.
//
// Threads:   built by one thread, read by all through Published<Snapshot>.
// Owns:      everything it refers to, by shared pointers.
// Invariant: names in maps are lower-cased wire names. A view knows the empty non-terminals
//            above its names, and no others: what a view does not see does not exist.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/ip.h"

namespace meshd::dns {

struct WireHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view name) const noexcept {
    return std::hash<std::string_view>{}(name);
  }
};
template <class Value>
using WireMap = std::unordered_map<std::string, Value, WireHash, std::equal_to<>>;

struct SrvData {
  std::uint16_t port = 0;
  std::string target;               // wire
  std::optional<IpAddress> v4, v6;  // the target's, for the additional section
};

// What one name answers. Absent: NODATA.
struct NameData {
  std::optional<IpAddress> v4, v6;
  std::vector<SrvData> srv;
  bool stale = false;  // what it leads to has not been heard of for a while
};

struct View {
  std::string client;  // for reports; empty: a plain client
  WireMap<NameData> names;
  std::unordered_set<std::string, WireHash, std::equal_to<>> non_terminals;
  std::unordered_map<IpAddress, std::string> pointers;  // address -> wire name
  WireMap<std::string> withheld;                        // own declared peers: why not
  bool forward = false;
  std::vector<std::string> why;  // TXT why.<zone>

  // Adds the name and what stands above it, up to the zone.
  void add(const std::string& wire, NameData data, std::string_view zone);
};

struct ZoneSettings {
  std::string zone;                     // wire, lower case
  std::vector<Prefix> own_ranges;       // whose reverse is ours
  std::vector<Prefix> engine_prefixes;  // plain clients: no names of ours, all else forwarded
  std::vector<Prefix> filtered;         // addresses that upstreams may not answer
  std::optional<IpAddress> resolver4, resolver6;  // ns.<zone>
};

class Snapshot {
 public:
  explicit Snapshot(std::shared_ptr<const ZoneSettings> settings);

  [[nodiscard]] const ZoneSettings& settings() const { return *settings_; }
  // Null: nobody we know.
  [[nodiscard]] const View* view(const IpAddress& client) const;
  [[nodiscard]] std::shared_ptr<const View> shared_view(const IpAddress& client) const;
  [[nodiscard]] bool is_plain_client(const IpAddress& client) const;

  // The next snapshot: a copy of 64 pointers, and of the shards that change.
  void set(const IpAddress& client, std::shared_ptr<const View> view);
  void remove(const IpAddress& client);

 private:
  using Shard = std::unordered_map<IpAddress, std::shared_ptr<const View>>;
  static constexpr std::size_t kShards = 64;
  [[nodiscard]] static std::size_t shard_of(const IpAddress& client);
  Shard& own_shard(const IpAddress& client);

  std::shared_ptr<const ZoneSettings> settings_;
  std::array<std::shared_ptr<const Shard>, kShards> shards_;
};

}  // namespace meshd::dns
