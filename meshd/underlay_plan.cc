#include "meshd/underlay_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace meshd {
namespace {

using policy::RemoteNode;

// The node's main table, for one look-up after the other.
class RoutingTable {
 public:
  explicit RoutingTable(std::span<const UnderlayRoute> routes) {
    for (const auto& route : routes) {
      auto& best = by_prefix_[route.destination];
      if (best == nullptr || route.metric < best->metric) best = &route;
    }
  }
  // The longest that holds the address; null: there is none.
  [[nodiscard]] const UnderlayRoute* find(const IpAddress& address) const {
    for (int length = address.is_v4() ? 32 : 128; length >= 0; --length) {
      const auto found = by_prefix_.find(Prefix::of(address, length));
      if (found != by_prefix_.end()) return found->second;
    }
    return nullptr;
  }

 private:
  std::map<Prefix, const UnderlayRoute*> by_prefix_;
};

bool overlaps_any(const Prefix& block, std::span<const Prefix> others) {
  return std::ranges::any_of(others, [&](const Prefix& other) { return block.overlaps(other); });
}

std::optional<IpAddress> first_of(std::span<const IpAddress> addresses, Family family) {
  const auto found = std::ranges::find(addresses, family, &IpAddress::family);
  if (found == addresses.end()) return std::nullopt;
  return *found;
}

class Planner {
 public:
  Planner(const UnderlaySelf& self, const UnderlayConfig& config)
      : self_(self), config_(config), table_(self.routes) {}

  UnderlayPlan make(const std::map<std::string, RemoteNode>& nodes) {
    for (const auto& [name, peer] : nodes) accept(name, peer);
    choose_outer_family();
    for (const auto& [name, peer] : accepted_) {
      if (!route_directly(name, peer)) tunnel_to(name, peer);
    }
    finish();
    return std::move(plan_);
  }

 private:
  void problem(const std::string& node, std::string_view reason) {
    plan_.problems.push_back(fmt::format("node {}: {}", node, reason));
  }
  bool in_ranges(const IpAddress& address) const {
    return std::ranges::any_of(self_.ranges, [&](const auto& r) { return r.contains(address); });
  }

  // What of a node can be believed: whoever tells it, a route of ours must lead neither the
  // node's own traffic astray nor another node's.
  void accept(const std::string& name, const RemoteNode& peer) {
    RemoteNode good;
    for (const auto& block :
         std::span(peer.blocks).first(std::min(peer.blocks.size(), kMaxBlocks))) {
      const bool inside = std::ranges::any_of(
          self_.pools, [&](const Prefix& pool) { return pool.contains(block); });
      const auto text = block.to_string();
      if (!inside) {
        problem(name, fmt::format("its block {} is not part of the mesh's pools", text));
      } else if (overlaps_any(block, self_.blocks)) {
        problem(name, fmt::format("its block {} overlaps this node's own", text));
      } else if (overlaps_any(block, taken_)) {
        problem(name, fmt::format("its block {} overlaps that of another node", text));
      } else {
        good.blocks.push_back(block);
        taken_.push_back(block);
      }
    }
    for (const auto& address :
         std::span(peer.underlay).first(std::min(peer.underlay.size(), kMaxUnderlayAddresses))) {
      const bool own = std::ranges::find(self_.addresses, address) != self_.addresses.end();
      if (own || in_ranges(address)) {
        problem(name, fmt::format("its address {} is {}", address.to_string(),
                                  own ? "this node's own" : "one of the mesh's ranges"));
      } else {
        good.underlay.push_back(address);
      }
    }
    if (good.blocks.empty()) return;
    if (good.underlay.empty()) return problem(name, "no address that it can be reached by");
    std::ranges::sort(good.blocks);
    accepted_.emplace(name, std::move(good));
  }

  // All nodes must choose the same; all of them see the same nodes, themselves included.
  void choose_outer_family() {
    int v4 = 0, v6 = 0;
    const auto count = [&](std::span<const IpAddress> addresses) {
      if (first_of(addresses, Family::kV4)) ++v4;
      if (first_of(addresses, Family::kV6)) ++v6;
    };
    count(self_.addresses);
    for (const auto& [name, peer] : accepted_) count(peer.underlay);
    outer_ = v6 > v4 ? Family::kV6 : Family::kV4;
  }

  // The address of `peer` that is on a link of this node, for the gateway of that family.
  std::optional<UnderlayPlan::Route> direct(const RemoteNode& peer, const Prefix& block) const {
    for (const auto& address : peer.underlay) {
      if (address.family() != block.family()) continue;
      const auto* route = table_.find(address);
      if (route == nullptr || !route->on_link) continue;
      if (!config_.device.empty() && route->device != config_.device) continue;
      return UnderlayPlan::Route{block, route->device, address};
    }
    return std::nullopt;
  }

  // All of its blocks or none: one node's packets take one way.
  bool route_directly(const std::string& name, const RemoteNode& peer) {
    if (config_.mode == UnderlayMode::kVxlan) return false;
    std::vector<UnderlayPlan::Route> routes;
    for (const auto& block : peer.blocks) {
      if (auto route = direct(peer, block)) {
        routes.push_back(*std::move(route));
      } else if (config_.mode == UnderlayMode::kAuto) {
        return false;
      } else {
        problem(name, fmt::format("no IPv{} address of it is on a link of this node, and "
                                  "underlay.mode is ROUTED",
                                  block.family() == Family::kV4 ? 4 : 6));
      }
    }
    for (auto& route : routes) {
      allow(table_.find(route.gateway)->mtu);
      trunks_.insert(route.device);
      plan_.routes.push_back(std::move(route));
    }
    return true;
  }

  void tunnel_to(const std::string& name, const RemoteNode& peer) {
    const auto local = first_of(self_.addresses, outer_);
    const auto remote = first_of(peer.underlay, outer_);
    const int version = outer_ == Family::kV4 ? 4 : 6;
    if (!local) {
      return problem(name, fmt::format("this node has no IPv{} address for a tunnel", version));
    }
    if (!remote) {
      return problem(
          name, fmt::format("it has no IPv{} address for a tunnel, as most nodes have", version));
    }
    const UnderlayPlan::Peer end{tunnel_mac(*remote), *remote, {}};
    if (end.mac == tunnel_mac(*local) || !macs_.insert(end.mac).second) {
      return problem(name, fmt::format("its address {} cannot be told from another in the tunnel",
                                       remote->to_string()));
    }
    const auto* route = table_.find(*remote);
    if (route == nullptr || route->device.empty()) {
      problem(name, fmt::format("no route leads to its address {}", remote->to_string()));
    } else {
      tunnel_mtu(route->mtu);
    }
    if (!plan_.tunnel) plan_.tunnel = {tunnel_mac(*local), *local, 0};
    plan_.peers.push_back(end);
    for (const auto& block : peer.blocks)
      plan_.routes.push_back(through(plan_.peers.back(), block));
  }

  // The gateway is nobody's address: it stands for the neighbour. On IPv4 the first of a block,
  // which no container is given; on IPv6 what every Ethernet device could have.
  static UnderlayPlan::Route through(UnderlayPlan::Peer& end, const Prefix& block) {
    const auto known = first_of(end.gateways, block.family());
    const auto gateway = known                     ? *known
                         : block.address().is_v4() ? block.address()
                                                   : link_local_of(end.mac);
    if (!known) end.gateways.push_back(gateway);
    return {block, kTunnelName, gateway};
  }

  void tunnel_mtu(std::uint32_t outer) {
    const auto overhead = outer_ == Family::kV4 ? kTunnelOverhead4 : kTunnelOverhead6;
    const auto inner = outer > overhead ? outer - overhead : 0;
    inner_mtu_ = std::min(inner_mtu_.value_or(inner), inner);
    allow(inner);
  }
  void allow(std::uint32_t mtu) { plan_.mtu = std::min(plan_.mtu.value_or(mtu), mtu); }

  void finish() {
    // Before the first node is known, so that the first containers have it, too.
    if (config_.mode == UnderlayMode::kVxlan && !plan_.tunnel) {
      if (const auto mtu = default_mtu()) tunnel_mtu(*mtu);
    }
    if (plan_.tunnel) {
      constexpr std::uint32_t kEthernet = 1500;
      if (!inner_mtu_) tunnel_mtu(kEthernet);
      plan_.tunnel->mtu = *inner_mtu_;
      trunks_.insert(kTunnelName);
    }
    const bool v6 = std::ranges::any_of(
        plan_.routes, [](const auto& route) { return route.block.family() == Family::kV6; });
    if (v6 && plan_.mtu && *plan_.mtu < kLeastMtu6) {
      plan_.problems.push_back(fmt::format(
          "packets to other nodes have room for {} bytes, and IPv6 needs {}: raise the MTU "
          "beneath, or set pool.ipv6 to off",
          *plan_.mtu, kLeastMtu6));
    }
    plan_.trunks.assign(trunks_.begin(), trunks_.end());
    std::ranges::sort(plan_.peers);
    std::ranges::sort(plan_.routes);
  }

  std::optional<std::uint32_t> default_mtu() const {
    const auto local = first_of(self_.addresses, outer_);
    if (!local) return std::nullopt;
    const auto any = Prefix::of(*local, 0);
    const auto* route = table_.find(any.address());
    if (route == nullptr || route->device.empty()) route = table_.find(*local);
    if (route == nullptr || route->device.empty()) return std::nullopt;
    return route->mtu;
  }

  const UnderlaySelf& self_;
  const UnderlayConfig& config_;
  const RoutingTable table_;
  UnderlayPlan plan_;
  std::map<std::string, RemoteNode> accepted_;
  std::vector<Prefix> taken_;
  std::set<Mac> macs_;
  std::set<std::string> trunks_;
  std::optional<std::uint32_t> inner_mtu_;
  Family outer_ = Family::kV4;
};

}  // namespace

UnderlayPlan plan_underlay(const std::map<std::string, RemoteNode>& nodes, const UnderlaySelf& self,
                           const UnderlayConfig& config) {
  return Planner(self, config).make(nodes);
}

Status check_underlay(const UnderlayPlan& plan, std::span<const HostRoute> routes) {
  for (const auto& ours : plan.routes) {
    for (const auto& route : routes) {
      // A shorter one loses against ours.
      if (!ours.block.contains(route.destination)) continue;
      return fail(ErrorCode::kConflict,
                  fmt::format("the host's route {} dev {} takes packets for other nodes' block {}: "
                              "remove it",
                              route.destination.to_string(), route.device, ours.block.to_string()));
    }
  }
  return {};
}

Mac tunnel_mac(const IpAddress& outer) {
  const auto bytes = outer.bytes();
  // Locally administered, unicast. Four bytes of IPv4 fit in as they are.
  if (outer.is_v4()) return {{0x02, 0x6d, bytes[0], bytes[1], bytes[2], bytes[3]}};
  std::uint64_t hash = 0xcbf2'9ce4'8422'2325;  // FNV-1a
  for (const auto byte : bytes) hash = (hash ^ byte) * 0x100'0000'01b3;
  Mac mac{{0x06}};
  for (std::size_t i = 1; i < mac.bytes.size(); ++i) {
    mac.bytes[i] = static_cast<std::uint8_t>(hash >> (8 * i));
  }
  return mac;
}

IpAddress link_local_of(const Mac& mac) {
  const auto& b = mac.bytes;
  const std::array<std::uint8_t, 16> bytes = {
      0xfe, 0x80, 0,    0,    0,    0,    0,   0, static_cast<std::uint8_t>(b[0] ^ 0x02),
      b[1], b[2], 0xff, 0xfe, b[3], b[4], b[5]};
  return IpAddress::v6(bytes);
}

}  // namespace meshd
