// What both halves of Topology know of a container's link.
//
// Threads: any; pure.
#pragma once

#include <vector>

#include "meshd/kernel.h"
#include "netlink/address_route.h"
#include "netlink/link.h"

namespace meshd {

// Every host end has the same address, so that containers' neighbour entries need no news.
inline constexpr Mac kHostMac{{0x02, 0, 0, 0, 0, 0x01}};

// What the host end should be like, with an IPv6 address behind it or without.
[[nodiscard]] netlink::LinkWish host_wish(const netlink::Link& link, bool v6);
[[nodiscard]] netlink::Route host_route(const IpAddress& address, int ifindex);
[[nodiscard]] std::vector<IpAddress> addresses_of(const LinkPlan& plan);
// Whether one of them is that route, whichever way it is written.
[[nodiscard]] bool holds_route(const std::vector<netlink::Route>& routes,
                               const netlink::Route& route);

}  // namespace meshd
