// The address ranges of the mesh on this node: as configured, with defaults filled in, and
// free of what the host routes already.
//
// Threads: any; pure.
// Errors:  kInvalid "pool.vip4: REASON", kConflict naming the route.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "base/result.h"

namespace meshd {

// Room for at least 14 containers or services, and no larger than a private range is.
inline constexpr int kShortestPool4 = 8, kLongestPool4 = 28;
inline constexpr int kShortestPool6 = 48, kLongestPool6 = 112;

struct PoolChoice {
  bool off = false;
  std::optional<Prefix> prefix;  // absent: the default
};
struct PoolConfig {
  PoolChoice ipv4, ipv6, vip4, vip6;
};

struct Pools {
  std::optional<Prefix> pool4, pool6, vip4, vip6;  // absent: the family is off
};

// The texts of the configuration: a prefix, "off", or empty for the default.
[[nodiscard]] Result<PoolConfig> parse_pools(std::string_view ipv4, std::string_view ipv6,
                                             std::string_view vip4, std::string_view vip6);
// `ula`: the node's own /48, of which the defaults for IPv6 are the first two /64 after 0.
[[nodiscard]] Result<Pools> resolve_pools(const PoolConfig& config, const Prefix& ula);

// The resolver's two addresses, on lo of every node. IPv6's are of the node's own /48 (RFC
// 4193), so that they are nobody else's.
[[nodiscard]] IpAddress resolver4(int number);
[[nodiscard]] IpAddress resolver6(const Prefix& ula, int number);
// Whether some node's resolver may have that one.
[[nodiscard]] bool looks_like_resolver(const IpAddress& address);

struct HostRoute {
  Prefix destination;
  std::string device;
};
// Refuses pools that overlap a route of the host, default routes aside: packets would go
// one way or the other depending on which is longer. `routes` without our own.
[[nodiscard]] Status check_routes(const Pools& pools, std::span<const HostRoute> routes);

}  // namespace meshd
