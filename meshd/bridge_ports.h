// Ports of engines' bridges that containers of ours have beside the mesh. Isolated, they reach the
// bridge itself and ports that are not, but not each other: else what is refused in the mesh
// would be a frame away by the engine's own bridge.
//
// Threads:    any; the first two are pure.
// Invariants: a port is isolated and never opened again. Its container is about to end when it
//             is detached, whether somebody else wanted the port so is not known, and shut is
//             the side to be wrong on.
// Errors:     name the container's interface or the port.
// Source:     IFLA_BRPORT_ISOLATED, linux/if_link.h (since 4.18); kernel 6.18: frames between
//             two such ports are dropped, also broadcast ones.
#pragma once

#include <span>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "netlink/channel.h"
#include "netlink/link.h"

namespace meshd {

// Network namespaces by the numbers that the node knows them by.
using NetnsIds = std::unordered_set<int>;

// Of the node's links, those ports of bridges that lead into one of `containers` and are open.
[[nodiscard]] std::vector<netlink::Link> open_ports(std::span<const netlink::Link> links,
                                                    const NetnsIds& containers);
// Whether `outside`, a link of the node, is the other end of `inside`, a link of the container
// that the node knows by `netnsid`: the same numbers may be links of a third namespace.
[[nodiscard]] bool are_ends(const netlink::Link& inside, const netlink::Link& outside, int netnsid);

// Isolates the ports that `inside`, the links of the container behind `ours`, have on the node.
// Asks nothing where `inside` has no other veth.
[[nodiscard]] Status isolate_beside(netlink::Channel& channel, const netlink::Link& ours,
                                    std::span<const netlink::Link> inside);

}  // namespace meshd
