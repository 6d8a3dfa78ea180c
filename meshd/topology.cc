#include "meshd/topology.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "netlink/netns.h"
#include "netlink/uplink.h"

namespace meshd {
namespace {

namespace nl = netlink;

// Every host end has the same address, so that containers' neighbour entries need no news.
constexpr Mac kHostMac{{0x02, 0, 0, 0, 0, 0x01}};
// The last resort: any other route wins.
constexpr std::uint32_t kMeshMetric = 4'278'198'272;
// Container side, without a default route: replies leave by the mesh interface.
constexpr std::uint32_t kReplyTable = 213;
constexpr std::uint32_t kReplyPriority = 21300;

const IpAddress& gateway4() {
  static const auto address = IpAddress::parse("169.254.1.1").value();
  return address;
}
const IpAddress& gateway6() {
  static const auto address = IpAddress::parse("fe80::1").value();
  return address;
}
const IpAddress& gateway(Family family) { return family == Family::kV4 ? gateway4() : gateway6(); }

Prefix host_prefix(const IpAddress& address) {
  return Prefix::of(address, address.is_v4() ? 32 : 128);
}
Prefix any(Family family) {
  return Prefix::of(family == Family::kV4 ? IpAddress() : IpAddress::parse("::").value(), 0);
}

nl::Route host_route(const IpAddress& address, int ifindex) {
  nl::Route route;
  route.destination = host_prefix(address);
  route.ifindex = ifindex;
  if (address.is_v4()) route.scope = nl::Scope::kLink;
  return route;
}

nl::LinkWish host_wish(const nl::Link& link) {
  nl::LinkWish wish;
  wish.up = true;
  wish.arp = false;
  wish.no_link_local = true;
  wish.mac = kHostMac;
  wish.group = kLinkGroup;
  // Loose or no reverse path filtering would let a spoofed IPv4 source past the table's
  // absence; redirects would tell a container to go round us.
  wish.rp_filter = 1;
  wish.send_redirects = wish.accept_redirects4 = 0;
  // A forwarding link hears neither IPv6 redirects nor routers, unless told to by the
  // value 2; writing costs a walk through /proc, so only where it changes something.
  if (link.accept_ra == 2 || link.forwarding6 == 0) wish.accept_ra = 0;
  if (link.forwarding6 == 0) wish.accept_redirects6 = 0;
  return wish;
}

// IPv6 can be off for the whole node: then there is nothing to set there.
Result<bool> ensure_sysctl_if_there(const std::string& key, const std::string& value) {
  auto change = nl::ensure_sysctl(key, value);
  if (change) return change->changed;
  if (change.error().sys_errno == ENOENT || change.error().code == ErrorCode::kNotFound) {
    return false;
  }
  return std::unexpected(std::move(change).error());
}

std::vector<IpAddress> addresses_of(const LinkPlan& plan) {
  std::vector<IpAddress> result;
  if (plan.v4) result.push_back(*plan.v4);
  if (plan.v6) result.push_back(*plan.v6);
  return result;
}

}  // namespace

Result<Topology> Topology::make(const policy::Settings& settings) {
  auto channel = TRY(nl::Channel::open(nl::Channel::Protocol::kRoute));
  return Topology(std::move(channel), settings);
}

std::vector<nl::Address> Topology::resolver_addresses() const {
  std::vector<nl::Address> result;
  const auto add = [&](const IpAddress& address) {
    nl::Address wanted;
    wanted.ifindex = nl::kLoopbackIndex;
    wanted.address = address;
    wanted.prefix_length = address.is_v4() ? 32 : 128;
    // Never chosen as the source of the node's own packets to containers.
    if (address.is_v4()) wanted.scope = nl::Scope::kHost;
    wanted.deprecated = wanted.nodad = address.is_v6();
    result.push_back(wanted);
  };
  for (const auto& address : settings_.resolver4) add(address);
  if (settings_.pool6) {
    for (const auto& address : settings_.resolver6) add(address);
  }
  return result;
}

std::vector<nl::Route> Topology::mesh_routes() const {
  std::vector<nl::Route> result;
  for (const auto& prefix :
       {settings_.pool4, settings_.vip_pool4, settings_.pool6, settings_.vip_pool6}) {
    if (!prefix) continue;
    nl::Route route;
    route.destination = *prefix;
    route.ifindex = nl::kLoopbackIndex;
    route.metric = kMeshMetric;
    if (prefix->family() == Family::kV4) route.scope = nl::Scope::kLink;
    result.push_back(route);
  }
  return result;
}

Result<Repairs> Topology::ensure_node(std::vector<OldSysctl>& changed) {
  return ensure_node(TRY(nl::list_links(channel_)), changed);
}

Result<Repairs> Topology::ensure_node(const std::vector<nl::Link>& all,
                                      std::vector<OldSysctl>& changed) {
  Repairs repairs;
  const auto set = [&](const std::string& key, const std::string& value) -> Status {
    const auto change = TRY(nl::ensure_sysctl(key, value));
    if (!change.changed) return {};
    changed.push_back({key, change.before});
    repairs.what.push_back(fmt::format("sysctl {} was {}", key, change.before));
    return {};
  };
  // Before forwarding: it would end router advertisements, and with them the default
  // route, on links that take them only while not forwarding.
  if (settings_.pool6) {
    const std::uint32_t ours[] = {kLinkGroup};
    for (const auto& link : nl::links_losing_router(all, ours)) {
      CHECK_OK(set("net/ipv6/conf/" + link.name + "/accept_ra", "2"));
    }
    CHECK_OK(set("net/ipv6/conf/all/forwarding", "1"));
  }
  CHECK_OK(set("net/ipv4/ip_forward", "1"));
  if (TRY(nl::ensure_loopback_up(channel_))) repairs.what.push_back("link lo was down");
  for (const auto& address : TRY(nl::ensure_addresses(channel_, resolver_addresses()))) {
    repairs.what.push_back("address " + address.to_string() + " was missing");
  }
  for (const auto& route : TRY(nl::ensure_routes(channel_, mesh_routes()))) {
    repairs.what.push_back("route " + route.to_string() + " was missing");
  }
  return repairs;
}

Status Topology::connect(const LinkPlan& plan, int netns_fd) {
  nl::VethSpec spec;
  spec.host_name = plan.host_ifname;
  spec.host_mac = kHostMac;
  spec.host_group = kLinkGroup;
  spec.peer_name = plan.ifname;
  spec.peer_mac = plan.mac;
  spec.peer_netns_fd = netns_fd;
  spec.mtu = plan.mtu;
  const auto link = TRY(nl::create_veth(channel_, spec));
  auto status = connect_container_side(plan, netns_fd);
  if (status) status = connect_host_side(plan, link);
  if (status) return status;
  // Both ends and all that hangs on them go with one; a refusal here is swept by audit().
  [[maybe_unused]] const auto undone = nl::delete_link(channel_, link.index);
  return status;
}

Status Topology::connect_host_side(const LinkPlan& plan, const nl::Link& link) {
  CHECK_OK(nl::ensure_link(channel_, link, host_wish(link)));
  std::vector<nl::Neighbour> neighbours;
  std::vector<nl::Route> routes;
  for (const auto& address : addresses_of(plan)) {
    neighbours.push_back({link.index, address, plan.mac});
    routes.push_back(host_route(address, link.index));
  }
  CHECK_OK(nl::put_neighbours(channel_, neighbours));
  CHECK_OK(nl::put_routes(channel_, routes));
  return {};
}

namespace {

std::vector<nl::Route> container_routes(const policy::Settings& settings, const LinkPlan& plan,
                                        int ifindex) {
  std::vector<nl::Route> routes;
  const auto via = [&](const Prefix& destination, std::uint32_t table) {
    nl::Route route;
    route.destination = destination;
    route.ifindex = ifindex;
    route.gateway = gateway(destination.family());
    route.onlink = true;
    route.table = table;
    routes.push_back(route);
  };
  for (const auto& address : addresses_of(plan)) {
    const auto family = address.family();
    if (family == Family::kV4) routes.push_back(host_route(gateway4(), ifindex));
    if (plan.default_route) {
      via(any(family), nl::kMainTable);
      continue;
    }
    // Beside another interface: the mesh by us, and replies from our address by us.
    for (const auto& range : {settings.pool(family), settings.vip_pool(family)}) {
      if (range) via(*range, nl::kMainTable);
    }
    if (family == Family::kV6) via(host_prefix(settings.resolver6[0]), nl::kMainTable);
    via(any(family), kReplyTable);
  }
  return routes;
}

Status configure_container(const policy::Settings& settings, const LinkPlan& plan) {
  auto channel = TRY(nl::Channel::open(nl::Channel::Protocol::kRoute));
  CHECK_OK(nl::ensure_loopback_up(channel));
  const auto link = TRY(nl::find_link(channel, plan.ifname));
  if (!link) return fail(ErrorCode::kNotFound, "link " + plan.ifname + " vanished");
  nl::LinkWish wish;
  wish.no_link_local = true;
  // IPv6's are left as they are: the other end has no link-local address, without which the
  // node's kernel sends neither redirects nor router advertisements, and nobody else is there.
  wish.accept_redirects4 = 0;
  wish.up = true;
  CHECK_OK(nl::ensure_link(channel, *link, wish));
  std::vector<nl::Address> addresses;
  std::vector<nl::Neighbour> neighbours;
  std::vector<nl::SourceRule> rules;
  for (const auto& address : addresses_of(plan)) {
    nl::Address own;
    own.ifindex = link->index;
    own.address = address;
    own.prefix_length = address.is_v4() ? 32 : 128;
    own.nodad = address.is_v6();
    addresses.push_back(own);
    neighbours.push_back({link->index, gateway(address.family()), kHostMac});
    if (!plan.default_route) rules.push_back({host_prefix(address), kReplyTable, kReplyPriority});
  }
  CHECK_OK(nl::ensure_addresses(channel, addresses));
  // Not read first: the kernel would walk the neighbours of every namespace.
  CHECK_OK(nl::put_neighbours(channel, neighbours));
  CHECK_OK(nl::ensure_routes(channel, container_routes(settings, plan, link->index)));
  CHECK_OK(nl::ensure_rules(channel, rules));
  return {};
}

}  // namespace

Status Topology::connect_container_side(const LinkPlan& plan, int netns_fd) const {
  return nl::call_in_netns(netns_fd, [&] { return configure_container(settings_, plan); });
}

Status Topology::disconnect(const std::string& host_ifname) {
  CHECK_OK(nl::delete_link(channel_, host_ifname));
  return {};
}

Result<bool> Topology::link_exists(const std::string& host_ifname) {
  const auto link = TRY(nl::find_link(channel_, host_ifname));
  return link.has_value() && link->group == kLinkGroup;
}

// --- audit ---------------------------------------------------------------------------

Status Topology::sweep_strangers(const std::vector<LinkPlan>& links,
                                 const std::vector<nl::Link>& have, Repairs& repairs) {
  std::unordered_set<std::string_view> known;
  for (const auto& plan : links) known.insert(plan.host_ifname);
  for (const auto& link : have) {
    if (known.contains(link.name)) continue;
    if (TRY(nl::delete_link(channel_, link.index))) {
      repairs.what.push_back("link " + link.name + " belonged to nobody");
    }
  }
  return {};
}

Status Topology::repair_links(const std::vector<LinkPlan>& links, const std::vector<nl::Link>& have,
                              Repairs& repairs) {
  std::vector<nl::Neighbour> neighbours;
  auto routes = mesh_routes();
  std::unordered_map<std::string_view, const nl::Link*> by_name;
  for (const auto& link : have) by_name.emplace(link.name, &link);
  for (const auto& plan : links) {
    const auto found = by_name.find(plan.host_ifname);
    if (found == by_name.end()) continue;  // its going is an event of its own: a detach
    const auto* link = found->second;
    const auto changed = TRY(nl::ensure_link(channel_, *link, host_wish(*link)));
    if (!changed.empty()) {
      repairs.what.push_back("link " + plan.host_ifname + " had another " + changed);
    }
    for (const auto& address : addresses_of(plan)) {
      neighbours.push_back({link->index, address, plan.mac});
      routes.push_back(host_route(address, link->index));
    }
  }
  for (const auto& neighbour : TRY(nl::ensure_neighbours(channel_, neighbours))) {
    repairs.what.push_back("neighbour " + neighbour.to_string() + " was missing");
  }
  for (const auto& route : TRY(nl::ensure_routes(channel_, routes))) {
    repairs.what.push_back("route " + route.to_string() + " was missing");
  }
  return sweep_routes(routes, repairs);
}

// Routes with our number that lead where nobody is any more.
Status Topology::sweep_routes(const std::vector<nl::Route>& wanted, Repairs& repairs) {
  nl::RouteFilter filter;
  filter.protocol = nl::kOurProtocol;
  filter.table = nl::kMainTable;
  std::multimap<Prefix, nl::Route> known;
  for (const auto& want : wanted) known.emplace(want.destination, nl::canonical(want));
  for (const auto& route : TRY(nl::list_routes(channel_, filter))) {
    const auto [first, last] = known.equal_range(route.destination);
    const bool is_known =
        std::any_of(first, last, [&](const auto& want) { return want.second == route; });
    if (!is_known && TRY(nl::delete_route(channel_, route))) {
      repairs.what.push_back("route " + route.to_string() + " belonged to nobody");
    }
  }
  return {};
}

Result<Repairs> Topology::audit(const std::vector<LinkPlan>& links) {
  std::vector<OldSysctl> old;  // what we set at the start was remembered then
  auto have = TRY(nl::list_links(channel_));
  auto repairs = TRY(ensure_node(have, old));
  std::erase_if(have, [](const nl::Link& link) { return link.group != kLinkGroup; });
  CHECK_OK(sweep_strangers(links, have, repairs));
  CHECK_OK(repair_links(links, have, repairs));
  return repairs;
}

Status Topology::purge(const std::vector<OldSysctl>& restore,
                       const std::vector<IpAddress>& resolvers) {
  auto channel = TRY(nl::Channel::open(nl::Channel::Protocol::kRoute));
  for (const auto& link : TRY(nl::list_links(channel, kLinkGroup))) {
    CHECK_OK(nl::delete_link(channel, link.index));
  }
  nl::RouteFilter filter;
  filter.protocol = nl::kOurProtocol;
  for (const auto& route : TRY(nl::list_routes(channel, filter))) {
    CHECK_OK(nl::delete_route(channel, route));
  }
  for (const auto& address : TRY(nl::list_addresses(channel, nl::kLoopbackIndex))) {
    if (std::ranges::find(resolvers, address.address) == resolvers.end()) continue;
    CHECK_OK(nl::delete_address(channel, address));
  }
  for (const auto& old : restore) CHECK_OK(ensure_sysctl_if_there(old.key, old.value));
  return {};
}

// --- facts ---------------------------------------------------------------------------

Result<NodeNetwork> Topology::node_network() {
  const auto links = TRY(nl::list_links(channel_));
  const auto addresses = TRY(nl::list_addresses(channel_));
  const std::uint32_t ours[] = {kLinkGroup};
  NodeNetwork result;
  result.global = nl::global_addresses(links, addresses, ours);
  for (const auto& address : addresses) result.addresses.push_back(address.address);
  for (const auto& link : links) {
    if (link.kind != "bridge") continue;
    for (const auto& address : addresses) {
      if (address.ifindex != link.index) continue;
      result.bridges.push_back(Prefix::of(address.address, address.prefix_length));
    }
  }
  return result;
}

Result<std::vector<Prefix>> Topology::routes() {
  std::vector<Prefix> result;
  for (const auto& route : TRY(nl::list_routes(channel_, {}))) {
    if (route.protocol == nl::kOurProtocol || route.destination.length() == 0) continue;
    result.push_back(route.destination);
  }
  return result;
}

Result<std::uint32_t> Topology::uplink_mtu() {
  const auto routes = TRY(nl::list_routes(channel_, {}));
  for (const auto family : kFamilies) {
    for (const int index : nl::uplinks(routes, family)) {
      const auto link = TRY(nl::find_link(channel_, index));
      if (link) return link->mtu;
    }
  }
  return 1500;
}

}  // namespace meshd
