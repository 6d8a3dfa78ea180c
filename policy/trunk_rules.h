// The rules of base_table.h about other nodes' containers, in the order of the hooks. All of
// them are empty without a cluster, so that a node by itself does not pay for them; none stands
// where packets between containers of one node come by.
//
// A packet from another node comes by a trunk: an uplink, where the underlay routes our
// prefixes, or the VXLAN device (group 78). What the device is going to unpack is seen before,
// as a packet to this node: its outer address must be that of the node whose block the inner
// source is in (`tunnel`). On an uplink nothing says which node sent a packet: there one is
// believed when its source is in any other node's block. Who can send with a node's address on
// the underlay is trusted.
#pragma once

#include <vector>

#include "policy/rule.h"
#include "policy/types.h"

namespace meshd::policy::words {

// Of `guard`: before mesh sources are dropped.
[[nodiscard]] std::vector<Rule> trunk_guard(const Settings& settings);
// Of `untargeted`: before and after the holds.
[[nodiscard]] std::vector<Rule> replies_elsewhere(const Settings& settings);
[[nodiscard]] std::vector<Rule> targets_elsewhere(const Settings& settings);
// Of `forw`: before anything is decided.
[[nodiscard]] std::vector<Rule> trunk_forward(const Settings& settings);
// Of `inp`: after those about our own containers.
[[nodiscard]] std::vector<Rule> trunk_input(const Settings& settings);
// Of `outp_c`: before the permitted uids.
[[nodiscard]] std::vector<Rule> users_elsewhere(const Settings& settings);
// What the rules above jump to.
[[nodiscard]] std::vector<Chain> trunk_chains(const Settings& settings);

}  // namespace meshd::policy::words
