// How packets of containers get to the other nodes, as a value: what other nodes have and what
// the node's routing table says goes in; routes, neighbours and a tunnel come out.
//
//   routed   10.213.5.0/24 via 192.0.2.5 dev eth0 onlink      the node is on a link of this one
//   tunnel   10.213.6.0/24 via 10.213.6.0 dev mesh0 onlink    VXLAN 88, UDP 8472, group 78
//            10.213.6.0 at 02:6d:c0:00:02:06 dev mesh0        a permanent neighbour
//            02:6d:c0:00:02:06 to 192.0.2.6                   one forwarding entry a node
//
// AUTO decides for each node by itself. On a link both ends see each other on it, so both decide
// the same, and a node that joins from afar does not move the others' flows into a tunnel.
// Ethernet addresses in the tunnel follow from the outer ones: nothing has to be told.
//
// Threads:    any; pure.
// Invariants: equal input gives an equal plan, sorted. No block of a plan reaches beyond the
//             mesh's pools, into this node's own block or into another node's.
// Errors:     none: what cannot be done is in UnderlayPlan::problems, the rest stands.
// Source:     VXLAN: RFC 7348; its overhead: outer IP, UDP 8, VXLAN 8, inner Ethernet 14.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "meshd/pools.h"
#include "policy/base_table.h"
#include "policy/types.h"

namespace meshd {

// Fixed: all nodes must use the same port and number. The group is policy::kTunnelGroup.
inline constexpr const char* kTunnelName = "mesh0";  // containers' links count from mesh1
inline constexpr std::uint32_t kTunnelId = policy::kTunnelNumber;
inline constexpr std::uint16_t kTunnelPort = policy::kTunnelPort;
inline constexpr std::uint32_t kTunnelOverhead4 = 20 + 8 + 8 + 14;
inline constexpr std::uint32_t kTunnelOverhead6 = 40 + 8 + 8 + 14;
// What IPv6 needs (RFC 8200 section 5); the kernel switches it off on smaller links.
inline constexpr std::uint32_t kLeastMtu6 = 1280;
// A node's addresses, and its blocks: one of each family is usual.
inline constexpr std::size_t kMaxUnderlayAddresses = 8;
inline constexpr std::size_t kMaxBlocks = 16;

enum class UnderlayMode : std::uint8_t { kAuto, kRouted, kVxlan };

// As configured; what is empty is found out.
struct UnderlayConfig {
  UnderlayMode mode = UnderlayMode::kAuto;
  std::vector<IpAddress> addresses = {};
  std::string device = {};  // routes without a tunnel go by this link only
};

// A route of the node's main table that is not ours.
struct UnderlayRoute {
  Prefix destination;
  std::string device;    // empty: it leads nowhere
  bool on_link = false;  // by Ethernet, without a gateway
  std::uint32_t mtu = 1500;
  std::uint32_t metric = 0;
};

// What this node is.
struct UnderlaySelf {
  std::vector<IpAddress> addresses;  // as the others are told, in the same order
  std::vector<Prefix> pools;         // of all containers
  std::vector<Prefix> ranges;        // of these and of VIPs
  std::vector<Prefix> blocks;        // of its own containers
  std::vector<UnderlayRoute> routes;
};

struct UnderlayPlan {
  struct Tunnel {
    Mac mac;
    IpAddress local;
    std::uint32_t mtu = 0;
    bool operator==(const Tunnel&) const = default;
  };
  struct Peer {  // of the tunnel
    Mac mac;
    IpAddress remote;
    std::vector<IpAddress> gateways;  // at most one a family
    auto operator<=>(const Peer&) const = default;
  };
  struct Route {
    Prefix block;
    std::string device;
    IpAddress gateway;
    auto operator<=>(const Route&) const = default;
  };
  std::optional<Tunnel> tunnel;
  std::vector<Peer> peers;
  std::vector<Route> routes;
  // Links by which other nodes' packets come, for the table.
  std::vector<std::string> trunks;
  // What a container's packet may have to get to every node; absent: nothing is known.
  std::optional<std::uint32_t> mtu;
  std::vector<std::string> problems;  // "node n2: REASON"
  bool operator==(const UnderlayPlan&) const = default;
};

[[nodiscard]] UnderlayPlan plan_underlay(const std::map<std::string, policy::RemoteNode>& nodes,
                                         const UnderlaySelf& self, const UnderlayConfig& config);

// Refuses routes of others that lead packets for other nodes' containers astray, as
// check_routes() does for the pools. `routes` without our own.
[[nodiscard]] Status check_underlay(const UnderlayPlan& plan, std::span<const HostRoute> routes);

// The Ethernet address in the tunnel of the node that has that outer address.
[[nodiscard]] Mac tunnel_mac(const IpAddress& outer);
// fe80::/64 with the interface identifier of RFC 4291 appendix A.
[[nodiscard]] IpAddress link_local_of(const Mac& mac);

}  // namespace meshd
