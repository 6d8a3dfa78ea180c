#include "meshd/topology.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <unordered_map>

#include "meshd/topology_parts.h"
#include "netlink/netns.h"
#include "netlink/uplink.h"

namespace meshd {
namespace {

namespace nl = netlink;

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

// All of ours there: a namespace has one attachment.
Status remove_reply_rules() {
  auto channel = TRY(nl::Channel::open(nl::Channel::Protocol::kRoute));
  for (const auto& rule : TRY(nl::list_rules(channel))) {
    if (rule.protocol != nl::kOurProtocol || rule.table != kReplyTable) continue;
    CHECK_OK(nl::delete_rule(channel, rule));
  }
  return {};
}

}  // namespace

nl::Route host_route(const IpAddress& address, int ifindex) {
  nl::Route route;
  route.destination = host_prefix(address);
  route.ifindex = ifindex;
  if (address.is_v4()) route.scope = nl::Scope::kLink;
  return route;
}

nl::LinkWish host_wish(const nl::Link& link, bool v6) {
  nl::LinkWish wish;
  wish.up = true;
  wish.arp = false;
  wish.no_link_local = true;
  wish.mac = kHostMac;
  wish.group = kLinkGroup;
  // Belts beside the table, which proves every source: without the table a spoofed IPv4
  // source would still meet the reverse path filter. Not more than belts, for what counts
  // is the larger of conf/all and this for rp_filter (2 in all is loose), either of both
  // for send_redirects, and conf/all is the administrator's.
  wish.rp_filter = 1;
  wish.send_redirects = wish.accept_redirects4 = 0;
  // A forwarding link hears neither IPv6 redirects nor routers, unless told to by the
  // value 2; writing costs a walk through /proc, so only where it changes something.
  if (link.accept_ra == 2 || link.forwarding6 == 0) wish.accept_ra = 0;
  if (link.forwarding6 == 0) wish.accept_redirects6 = 0;
  // A node may switch IPv6 off for new links (conf/default).
  if (v6) wish.disable_ipv6 = 0;
  return wish;
}

std::vector<IpAddress> addresses_of(const LinkPlan& plan) {
  std::vector<IpAddress> result;
  if (plan.v4) result.push_back(*plan.v4);
  if (plan.v6) result.push_back(*plan.v6);
  return result;
}

bool holds_route(const std::vector<nl::Route>& routes, const nl::Route& route) {
  return std::ranges::any_of(
      routes, [&](const auto& one) { return nl::canonical(one) == nl::canonical(route); });
}

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

Result<Repairs> Topology::ensure_node() { return ensure_node(TRY(nl::list_links(channel_))); }

Result<Repairs> Topology::ensure_node(const std::vector<nl::Link>& all) {
  CHECK_OK(check_ipv6());
  Repairs repairs;
  if (TRY(nl::ensure_loopback_up(channel_))) repairs.what.push_back("link lo was down");
  for (const auto& address : TRY(nl::ensure_addresses(channel_, resolver_addresses()))) {
    repairs.what.push_back(address.to_string() + " was missing");
  }
  CHECK_OK(ensure_mesh_routes(repairs));
  CHECK_OK(ensure_sysctls(all, repairs));
  return repairs;
}

Status Topology::ensure_mesh_routes(Repairs& repairs) {
  const auto wanted = mesh_routes();
  for (const auto& route : TRY(nl::ensure_routes(channel_, wanted))) {
    const bool was_made = mesh_made_.empty() || holds_route(mesh_made_, route);
    if (was_made) repairs.what.push_back(route.to_string() + " was missing");
  }
  for (auto& route : mesh_made_) {
    if (!holds_route(wanted, route)) mesh_former_.push_back(std::move(route));
  }
  mesh_made_ = wanted;
  return {};
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
  auto made = nl::create_veth(channel_, spec);
  if (!made && made.error().sys_errno == EEXIST) {
    // Which of the two names is taken, the kernel does not say.
    if (TRY(nl::find_link(channel_, plan.host_ifname))) {
      return fail(ErrorCode::kConflict,
                  fmt::format("link {}: another link of the node has that name", plan.host_ifname),
                  EEXIST);
    }
    return fail(ErrorCode::kConflict,
                fmt::format("the container has an interface {} already: remove it, or choose "
                            "another name (--ifname)",
                            plan.ifname));
  }
  const auto link = TRY(std::move(made));
  // The container's end last: it works from the moment it is up. The node's, which was up
  // before there was a carrier, is waited for; else the first answers would be lost.
  const auto finish = [&]() -> Status {
    CHECK_OK(connect_host_side(plan, link));
    const auto inside = TRY(connect_container_side(plan, netns_fd));
    CHECK_OK(isolate_beside(channel_, link, inside));
    if (link.peer_netnsid) containers_.insert(*link.peer_netnsid);
    return nl::await_operational(channel_, link.index);
  };
  auto status = finish();
  if (status) return status;
  // Both ends and all that hangs on them go with one; a refusal here is swept by audit().
  [[maybe_unused]] const auto undone = nl::delete_link(channel_, link.index);
  if (!plan.default_route) {
    [[maybe_unused]] const auto cleaned = nl::call_in_netns(netns_fd, remove_reply_rules);
  }
  return status;
}

Status Topology::connect_host_side(const LinkPlan& plan, const nl::Link& link) {
  CHECK_OK(nl::ensure_link(channel_, link, host_wish(link, plan.v6.has_value())));
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

Result<std::vector<nl::Link>> configure_container(const policy::Settings& settings,
                                                  const LinkPlan& plan) {
  auto channel = TRY(nl::Channel::open(nl::Channel::Protocol::kRoute));
  CHECK_OK(nl::ensure_loopback_up(channel));
  // With all the others, since it is one question either way.
  auto links = TRY(nl::list_links(channel));
  const auto link = std::ranges::find(links, plan.ifname, &nl::Link::name);
  if (link == links.end()) return fail(ErrorCode::kNotFound, "link " + plan.ifname + " vanished");
  nl::LinkWish wish;
  wish.no_link_local = true;
  // IPv6's are left as they are: the other end has no link-local address, without which the
  // node's kernel sends neither redirects nor router advertisements, and nobody else is there.
  // For IPv4 the container's conf/all counts as well, and is its own affair.
  wish.accept_redirects4 = 0;
  if (plan.v6) wish.disable_ipv6 = 0;  // images and engines switch it off for all new links
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
  return links;
}

}  // namespace

Result<std::vector<nl::Link>> Topology::connect_container_side(const LinkPlan& plan,
                                                               int netns_fd) const {
  return nl::call_in_netns(netns_fd, [&] { return configure_container(settings_, plan); });
}

Status Topology::disconnect(const std::string& host_ifname) {
  const auto link = TRY(nl::find_link(channel_, host_ifname));
  // By its number: a name can be somebody else's by now.
  if (link && link->group == kLinkGroup) CHECK_OK(nl::delete_link(channel_, link->index));
  return {};
}

Status Topology::clean_container(const policy::Attachment& attachment) {
  const auto netns = nl::Netns::open(attachment.netns_path);
  if (!netns && netns.error().code == ErrorCode::kNotFound) return {};  // gone, with all in it
  if (!netns) return std::unexpected(netns.error());
  if (netns->id().ino != attachment.netns.ino || netns->id().dev != attachment.netns.dev) {
    return {};  // somebody else's path by now
  }
  return nl::call_in_netns(netns->fd(), remove_reply_rules);
}

Result<bool> Topology::name_taken(const std::string& host_ifname) {
  return TRY(nl::find_link(channel_, host_ifname)).has_value();
}

Result<bool> Topology::link_exists(const std::string& host_ifname) {
  const auto link = TRY(nl::find_link(channel_, host_ifname));
  return link.has_value() && link->group == kLinkGroup;
}

// --- facts ---------------------------------------------------------------------------

Result<NodeNetwork> Topology::node_network() {
  const auto links = TRY(nl::list_links(channel_));
  const auto addresses = TRY(nl::list_addresses(channel_));
  const std::uint32_t ours[] = {kLinkGroup};
  NodeNetwork result;
  result.global = nl::global_addresses(links, addresses, ours);
  for (const auto& address : addresses) result.addresses.push_back(address.address);
  const auto routes = TRY(nl::list_routes(channel_, {.table = nl::kMainTable}));
  std::vector<int> uplinks;
  for (const auto family : kFamilies) {
    std::ranges::copy(nl::uplinks(routes, family), std::back_inserter(uplinks));
    auto& engines = family == Family::kV4 ? result.engines4 : result.engines6;
    for (const auto& link : nl::engine_bridges(links, addresses, routes, family)) {
      engines.push_back(link.name);
    }
  }
  for (const auto& link : links) {
    if (link.kind != "bridge" || std::ranges::find(uplinks, link.index) != uplinks.end()) continue;
    for (const auto& address : addresses) {
      // Link-local ones are the same on every link, so also on the uplink.
      if (address.ifindex != link.index || address.scope == nl::Scope::kLink) continue;
      result.bridges.push_back(Prefix::of(address.address, address.prefix_length));
    }
  }
  return result;
}

Result<std::vector<HostRoute>> Topology::routes() {
  std::unordered_map<int, std::string> names;
  for (const auto& link : TRY(nl::list_links(channel_))) names.emplace(link.index, link.name);
  std::vector<HostRoute> result;
  for (const auto& route : TRY(nl::list_routes(channel_, {}))) {
    if (route.protocol == nl::kOurProtocol || route.destination.length() == 0) continue;
    const auto name = names.find(route.ifindex);
    result.push_back({route.destination, name == names.end() ? "none" : name->second});
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
