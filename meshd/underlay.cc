#include "meshd/underlay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <map>
#include <unordered_map>
#include <utility>

#include "meshd/topology.h"
#include "netlink/uplink.h"
#include "netlink/vxlan.h"
#include "policy/base_table.h"

namespace meshd {
namespace {

namespace nl = netlink;

nl::Vxlan wanted_vxlan(const UnderlayPlan::Tunnel& tunnel) {
  nl::Vxlan vxlan;
  vxlan.id = kTunnelId;
  vxlan.port = kTunnelPort;
  vxlan.local = tunnel.local;
  return vxlan;
}

nl::LinkWish tunnel_wish(const nl::Link& link, const UnderlayPlan& plan) {
  nl::LinkWish wish;
  wish.up = true;
  wish.arp = false;  // nobody is asked; whom no neighbour entry names gets nothing
  wish.no_link_local = true;
  wish.mac = plan.tunnel->mac;
  wish.mtu = plan.tunnel->mtu;
  wish.group = policy::kTunnelGroup;
  // Loose: what other nodes themselves say of a flow comes from their outer addresses, to which
  // this link does not lead. The table proves sources.
  wish.rp_filter = 2;
  wish.send_redirects = wish.accept_redirects4 = 0;
  if (link.accept_ra == 2 || link.forwarding6 == 0) wish.accept_ra = 0;
  if (link.forwarding6 == 0) wish.accept_redirects6 = 0;
  const bool v6 = std::ranges::any_of(
      plan.routes, [](const auto& route) { return route.block.family() == Family::kV6; });
  if (v6) wish.disable_ipv6 = 0;  // a node may switch it off for new links
  return wish;
}

std::vector<nl::Neighbour> wanted_neighbours(const UnderlayPlan& plan, int tunnel) {
  std::vector<nl::Neighbour> wanted;
  for (const auto& peer : plan.peers) {
    for (const auto& gateway : peer.gateways) wanted.push_back({tunnel, gateway, peer.mac});
  }
  return wanted;
}

std::vector<nl::FdbEntry> wanted_fdb(const UnderlayPlan& plan, int tunnel) {
  std::vector<nl::FdbEntry> wanted;
  for (const auto& peer : plan.peers) wanted.push_back({tunnel, peer.mac, peer.remote});
  return wanted;
}

// An engine's bridge has no addresses by which others reach the node.
bool may_lead_out(const nl::Link& link, const UnderlayConfig& config,
                  std::span<const int> uplinks) {
  if (!config.device.empty()) return link.name == config.device;
  return uplinks.empty() || std::ranges::find(uplinks, link.index) != uplinks.end();
}

}  // namespace

bool is_underlay_route(const nl::Route& route) {
  return route.protocol == nl::kOurProtocol && route.table == nl::kMainTable &&
         route.gateway.has_value();
}

Result<Underlay> Underlay::make() {
  return Underlay(TRY(nl::Channel::open(nl::Channel::Protocol::kRoute)));
}

Status Underlay::apply(UnderlayPlan plan) {
  plan_ = std::move(plan);
  tunnel_unmade_ = plan_.tunnel.has_value();
  unmade_.clear();
  for (const auto& route : plan_.routes) unmade_.insert(route.block);
  [[maybe_unused]] const auto made = audit();
  if (trouble_.empty()) return {};
  return fail(ErrorCode::kSystem, fmt::format("underlay: {}", fmt::join(trouble_, "; ")));
}

Repairs Underlay::audit() {
  Repairs repairs;
  trouble_.clear();
  const auto check = [this](const auto& outcome) {
    if (!outcome) trouble_.push_back(outcome.error().what);
  };
  const auto tunnel = ensure_tunnel(repairs);
  check(tunnel);
  // Whom it leads to before what is led into it.
  if (tunnel && *tunnel != 0) check(ensure_peers(*tunnel, repairs));
  if (std::exchange(tunnel_unmade_, tunnel_unmade_ && !trouble_.empty())) repairs.what.clear();
  check(ensure_routes(tunnel.value_or(0), repairs));
  if (!plan_.tunnel) check(remove_tunnels(false, repairs));
  return repairs;
}

// --- the tunnel ----------------------------------------------------------------------

Result<int> Underlay::ensure_tunnel(Repairs& repairs) {
  if (!plan_.tunnel) return 0;
  const auto wanted = wanted_vxlan(*plan_.tunnel);
  auto link = TRY(nl::find_link(channel_, kTunnelName));
  const bool is_like_ours =
      link && link->vxlan && link->vxlan->id == kTunnelId && link->vxlan->port == kTunnelPort;
  if (link && link->group != policy::kTunnelGroup && !is_like_ours) {
    return fail(ErrorCode::kConflict,
                fmt::format("link {} is not ours: give it another name", kTunnelName));
  }
  // Most of it cannot be changed later.
  if (link && link->vxlan != wanted) {
    CHECK_OK(nl::delete_link(channel_, link->index));
    link.reset();
    repairs.what.push_back(fmt::format("link {} was another tunnel", kTunnelName));
  }
  if (!link) link = TRY(make_tunnel(*plan_.tunnel, repairs));
  const auto changed = TRY(nl::ensure_link(channel_, *link, tunnel_wish(*link, plan_)));
  if (!changed.empty()) {
    repairs.what.push_back(fmt::format("link {} had another {}", kTunnelName, changed));
  }
  return link->index;
}

Result<nl::Link> Underlay::make_tunnel(const UnderlayPlan::Tunnel& tunnel, Repairs& repairs) {
  const nl::VxlanSpec spec{.name = kTunnelName,
                           .mac = tunnel.mac,
                           .group = policy::kTunnelGroup,
                           .mtu = tunnel.mtu,
                           .tunnel = wanted_vxlan(tunnel)};
  auto made = nl::create_vxlan(channel_, spec);
  if (!made && made.error().sys_errno == EEXIST) {
    // Ours under another name has the number, or somebody else's.
    CHECK_OK(remove_tunnels(true, repairs));
    made = nl::create_vxlan(channel_, spec);
  }
  if (!made) return std::unexpected(std::move(made).error());
  repairs.what.push_back(fmt::format("link {} was missing", kTunnelName));
  return *std::move(made);
}

// By its name alone unless `renamed`: a list of all links is dear.
Status Underlay::remove_tunnels(bool renamed, Repairs& repairs) {
  std::vector<nl::Link> ours;
  if (renamed) {
    ours = TRY(nl::list_links(channel_, policy::kTunnelGroup));
  } else if (const auto link = TRY(nl::find_link(channel_, kTunnelName))) {
    if (link->group == policy::kTunnelGroup) ours.push_back(*link);
  }
  for (const auto& link : ours) {
    if (!TRY(nl::delete_link(channel_, link.index))) continue;
    repairs.what.push_back("link " + link.name + " belonged to nobody");
  }
  return {};
}

Status Underlay::ensure_peers(int tunnel, Repairs& repairs) {
  const auto fdb = TRY(nl::ensure_fdb(channel_, tunnel, wanted_fdb(plan_, tunnel)));
  for (const auto& entry : fdb.written) {
    repairs.what.push_back(entry.to_string() + " was missing");
  }
  const auto neighbours = wanted_neighbours(plan_, tunnel);
  for (const auto& neighbour : TRY(nl::ensure_neighbours(channel_, neighbours))) {
    repairs.what.push_back(neighbour.to_string() + " was missing");
  }
  CHECK_OK(sweep_neighbours(tunnel, neighbours, repairs));
  for (const auto& entry : fdb.unwanted) {
    if (!TRY(nl::delete_fdb(channel_, entry))) continue;
    repairs.what.push_back(entry.to_string() + " belonged to nobody");
  }
  return {};
}

Status Underlay::sweep_neighbours(int tunnel, std::span<const nl::Neighbour> wanted,
                                  Repairs& repairs) {
  for (const auto& have : TRY(nl::list_neighbours(channel_, tunnel))) {
    // The rest is the kernel's own: a multicast address needs nobody to be asked.
    if (!have.permanent ||
        std::ranges::find(wanted, have.address, &nl::Neighbour::address) != wanted.end()) {
      continue;
    }
    if (TRY(nl::delete_neighbour(channel_, have))) {
      repairs.what.push_back(have.to_string() + " belonged to nobody");
    }
  }
  return {};
}

// --- routes --------------------------------------------------------------------------

std::vector<nl::Route> Underlay::wanted_routes(int tunnel) {
  std::unordered_map<std::string, int> links{{kTunnelName, tunnel}};
  std::vector<nl::Route> routes;
  for (const auto& want : plan_.routes) {
    auto found = links.find(want.device);
    if (found == links.end()) {
      const auto link = nl::find_link(channel_, want.device);
      found = links.emplace(want.device, link && *link ? (*link)->index : 0).first;
      if (found->second == 0) {
        trouble_.push_back(fmt::format("there is no link {}", want.device));
      }
    }
    if (found->second == 0) continue;
    nl::Route route;
    route.destination = want.block;
    route.ifindex = found->second;
    route.gateway = want.gateway;
    route.onlink = true;
    routes.push_back(nl::canonical(route));
  }
  return routes;
}

Status Underlay::ensure_routes(int tunnel, Repairs& repairs) {
  const auto wanted = wanted_routes(tunnel);
  const nl::RouteFilter ours{.protocol = nl::kOurProtocol, .table = nl::kMainTable};
  std::multimap<Prefix, nl::Route> have;
  for (auto& route : TRY(nl::list_routes(channel_, ours))) {
    if (is_underlay_route(route)) have.emplace(route.destination, std::move(route));
  }
  for (const auto& want : wanted) {
    const auto [first, last] = have.equal_range(want.destination);
    const auto found =
        std::find_if(first, last, [&](const auto& one) { return one.second == want; });
    if (found != last) {
      have.erase(found);
      unmade_.erase(want.destination);
      continue;
    }
    // A link that is down must not keep the routes by others from being made.
    if (const auto put = nl::put_routes(channel_, std::span(&want, 1)); !put) {
      trouble_.push_back(put.error().what);
    } else if (unmade_.erase(want.destination) == 0) {
      repairs.what.push_back(want.to_string() + " was missing");
    }
  }
  for (const auto& [block, route] : have) {
    // What could not be made now is no reason to take away what was there.
    const bool is_planned =
        std::ranges::find(plan_.routes, block, &UnderlayPlan::Route::block) != plan_.routes.end();
    const bool is_made = std::ranges::find(wanted, block, &nl::Route::destination) != wanted.end();
    if (is_planned && !is_made) continue;
    if (!TRY(nl::delete_route(channel_, route))) continue;  // replaced
    repairs.what.push_back(route.to_string() + " belonged to nobody");
  }
  return {};
}

// --- facts ---------------------------------------------------------------------------

Result<std::vector<IpAddress>> Underlay::addresses(const UnderlayConfig& config) {
  if (!config.addresses.empty()) return config.addresses;
  const auto links = TRY(nl::list_links(channel_));
  const auto routes = TRY(nl::list_routes(channel_, {.table = nl::kMainTable}));
  std::vector<IpAddress> result;
  for (const auto family : kFamilies) {
    const auto uplinks = nl::uplinks(routes, family);
    std::vector<nl::Link> leading_out;
    for (const auto& link : links) {
      const bool is_ours = link.group == kLinkGroup || link.group == policy::kTunnelGroup;
      if (!is_ours && may_lead_out(link, config, uplinks)) leading_out.push_back(link);
    }
    for (const auto& address :
         nl::global_addresses(leading_out, TRY(nl::list_addresses(channel_)), {})) {
      if (address.family() == family) result.push_back(address);
    }
  }
  result.resize(std::min(result.size(), kMaxUnderlayAddresses));
  return result;
}

Result<std::vector<UnderlayRoute>> Underlay::routes() {
  std::unordered_map<int, nl::Link> links;
  for (auto& link : TRY(nl::list_links(channel_))) links.emplace(link.index, std::move(link));
  std::vector<UnderlayRoute> result;
  for (const auto& route : TRY(nl::list_routes(channel_, {.table = nl::kMainTable}))) {
    if (route.protocol == nl::kOurProtocol) continue;
    UnderlayRoute fact;
    fact.destination = route.destination;
    fact.metric = route.metric;
    const auto link = links.find(route.ifindex);
    if (route.type == nl::RouteType::kUnicast && link != links.end()) {
      fact.device = link->second.name;
      fact.mtu = link->second.mtu;
      // Links without ARP are tunnels and the like: they know their ends by other means, and
      // would not carry packets for our blocks.
      fact.on_link = !route.gateway && route.further_links.empty() && link->second.arp &&
                     !link->second.loopback;
    }
    result.push_back(std::move(fact));
  }
  return result;
}

Result<UnderlaySelf> Underlay::self(const policy::Settings& settings,
                                    const UnderlayConfig& config) {
  UnderlaySelf self;
  self.addresses = TRY(addresses(config));
  self.routes = TRY(routes());
  for (const auto family : kFamilies) {
    for (const auto& range : {settings.pool(family), settings.vip_pool(family)}) {
      if (range) self.ranges.push_back(*range);
    }
    if (settings.pool(family)) self.pools.push_back(*settings.pool(family));
    if (settings.block(family)) self.blocks.push_back(*settings.block(family));
  }
  return self;
}

}  // namespace meshd
