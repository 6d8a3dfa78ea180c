// The rules of base_table.h for a gateway, in the order of the hooks. All of them are empty on
// other nodes, which so do not pay for them; none stands where packets of containers come by.
//
// A connection from outside is taken to the node port of a raw publication on another node:
// translated whoever asks, so that a refused source meets no listener of the gateway, judged at
// once by what it is addressed to then, and its answers in `forw`, and masqueraded, so that those
// come back here. What else is forwarded here is none of our business.
#pragma once

#include <vector>

#include "policy/rule.h"
#include "policy/types.h"

namespace meshd::policy::words {

// Of `dnat_pre`: after the node's own publications.
[[nodiscard]] std::vector<Rule> gateway_targets(const Settings& settings);
// Of `snat_post`.
[[nodiscard]] std::vector<Rule> gateway_sources(const Settings& settings);
// Of `pre_late`. Before the kernel forwards: to a host behind the interface by which a packet came
// it sends a redirect first, and of the refusal after that a source hears no more (both count in
// one limit for each host).
[[nodiscard]] std::vector<Rule> gateway_judgement(const Settings& settings);
// Of `forw`: after everything about containers of this node.
[[nodiscard]] std::vector<Rule> gateway_forward(const Settings& settings);

}  // namespace meshd::policy::words
