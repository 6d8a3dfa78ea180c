// What of the node's network leads outside, its global addresses and the links of its default
// routes, and what surely does not. Pure selections from dumps (link.h, address_route.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "netlink/address_route.h"
#include "netlink/link.h"

namespace meshd::netlink {

// Addresses by which others can reach this node for good: of global scope, usable, neither
// temporary nor deprecated, not on a link of the groups left out. Sorted, without repeats.
[[nodiscard]] std::vector<IpAddress> global_addresses(std::span<const Link> links,
                                                      std::span<const Address> addresses,
                                                      std::span<const std::uint32_t> not_groups);

// Links of the default routes of the main table, lowest metric first, without repeats.
[[nodiscard]] std::vector<int> uplinks(std::span<const Route> routes, Family family);

// Uplinks (of either family) that take router advertisements only while the node does not
// forward (accept_ra is 1): with forwarding on they need 2, else they lose their default
// route. All other links are left as their owners want them.
[[nodiscard]] std::vector<Link> links_losing_router(std::span<const Link> links,
                                                    std::span<const Route> routes);

// Whether a bridge's port may have others' machines behind it, as far as it says itself: all but
// one end of a pair whose other end another network namespace has. (In a node that is itself a
// container its way out looks like that, too, which engine_bridges() sees and this does not.)
[[nodiscard]] bool may_lead_out(const Link& port);

// Bridges by which container engines lead theirs to the node, and out of it by that family: with an
// address of the node's, on no default route, and with no port that leads out.
[[nodiscard]] std::vector<Link> engine_bridges(std::span<const Link> links,
                                               std::span<const Address> addresses,
                                               std::span<const Route> routes, Family family);

}  // namespace meshd::netlink
