#include "netlink/uplink.h"

#include <algorithm>
#include <iterator>
#include <map>

namespace meshd::netlink {
namespace {

bool in_group_of(const Link& link, std::span<const std::uint32_t> groups) {
  return std::ranges::find(groups, link.group) != groups.end();
}

}  // namespace

std::vector<IpAddress> global_addresses(std::span<const Link> links,
                                        std::span<const Address> addresses,
                                        std::span<const std::uint32_t> not_groups) {
  std::vector<IpAddress> global;
  for (const Address& one : addresses) {
    const auto link =
        std::ranges::find_if(links, [&one](const Link& l) { return l.index == one.ifindex; });
    // An address on a link that the list does not have is newer than the list: left out,
    // the event that made it brings the next reading.
    if (link == links.end() || in_group_of(*link, not_groups)) continue;
    if (one.scope != Scope::kGlobal || one.deprecated || one.tentative || one.temporary) continue;
    global.push_back(one.address);
  }
  std::ranges::sort(global);
  const auto repeats = std::ranges::unique(global);
  global.erase(repeats.begin(), repeats.end());
  return global;
}

std::vector<int> uplinks(std::span<const Route> routes, Family family) {
  std::multimap<std::uint32_t, int> by_metric;
  for (const Route& route : routes) {
    if (route.destination.length() != 0 || route.destination.family() != family) continue;
    if (route.table != kMainTable || route.type != RouteType::kUnicast) continue;
    if (route.ifindex == kLoopbackIndex || route.ifindex == 0) continue;
    by_metric.emplace(route.metric, route.ifindex);
    for (const int further : route.further_links) by_metric.emplace(route.metric, further);
  }
  std::vector<int> links;
  for (const auto& [metric, ifindex] : by_metric) {
    if (std::ranges::find(links, ifindex) == links.end()) links.push_back(ifindex);
  }
  return links;
}

std::vector<Link> links_losing_router(std::span<const Link> links, std::span<const Route> routes) {
  std::vector<int> leading_out;
  for (const Family family : kFamilies) {
    const auto some = uplinks(routes, family);
    leading_out.insert(leading_out.end(), some.begin(), some.end());
  }
  std::vector<Link> losing;
  for (const Link& link : links) {
    if (link.accept_ra != 1) continue;
    if (std::ranges::find(leading_out, link.index) != leading_out.end()) losing.push_back(link);
  }
  return losing;
}

std::vector<Link> engine_bridges(std::span<const Link> links, std::span<const Address> addresses,
                                 std::span<const Route> routes, Family family) {
  std::vector<int> outside;
  for (const auto one : kFamilies) {
    std::ranges::copy(uplinks(routes, one), std::back_inserter(outside));
  }
  const auto is_outside = [&outside](int index) {
    return std::ranges::find(outside, index) != outside.end();
  };
  // In a node that is itself a container its ways out are ends of pairs, too: whatever else ends
  // where they do leads out as well.
  std::vector<int> beyond;
  for (const auto& link : links) {
    if (link.peer_netnsid && (is_outside(link.index) || is_outside(link.master))) {
      beyond.push_back(*link.peer_netnsid);
    }
  }
  const auto ends_beyond = [&beyond](const Link& link) {
    return link.peer_netnsid && std::ranges::find(beyond, *link.peer_netnsid) != beyond.end();
  };
  const auto leads_on = [&](int index) {
    const auto found = std::ranges::find(links, index, &Link::index);
    return found == links.end() || found->master != 0 || is_outside(index);
  };
  std::vector<int> led_out;
  for (const auto& link : links) {
    if (link.master == 0 || !(may_lead_out(link) || ends_beyond(link))) continue;
    // An engine makes both ends here, and gives one away.
    if (link.kind == "veth" && !link.peer_netnsid && !leads_on(link.peer_index)) continue;
    led_out.push_back(link.master);
  }
  std::ranges::copy(led_out, std::back_inserter(outside));
  // Link-local ones are the same on every link, so also on the uplink.
  const auto has_address = [&](const Link& link) {
    return std::ranges::any_of(addresses, [&](const Address& one) {
      return one.ifindex == link.index && one.scope != Scope::kLink &&
             one.address.family() == family;
    });
  };
  std::vector<Link> bridges;
  for (const auto& link : links) {
    if (link.kind == "bridge" && !is_outside(link.index) && has_address(link)) {
      bridges.push_back(link);
    }
  }
  return bridges;
}

bool may_lead_out(const Link& port) { return port.kind != "veth" || !port.peer_netnsid; }

}  // namespace meshd::netlink
