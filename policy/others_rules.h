// The rules of base_table.h about what is forwarded and has no container of ours at either end. On
// a node that forwarded before meshd came that is none of our business, but for one thing: nobody
// speaks for the node in the tunnel.
//
// On any other node meshd has switched forwarding on for the mesh, and what it would let through
// besides is dropped, by family: many a node forwards only one. Exempt is what goes out of an
// engine's bridge (netlink/uplink.h has what that is), its answers, and what the engine's own
// publications translate: an engine that finds forwarding on takes all of that for done.
#pragma once

#include <vector>

#include "policy/base_table.h"
#include "policy/rule.h"
#include "policy/rule_words.h"
#include "policy/types.h"

namespace meshd::policy::words {

[[nodiscard]] InSet by_engine(const V& v);
// Of `forw`, after everything about containers of ours.
[[nodiscard]] std::vector<Rule> others_forward(const Settings& settings,
                                               const TableOptions& options);
// Of `forw`, at its end: after what a gateway forwards.
[[nodiscard]] std::vector<Rule> unforwarded(const TableOptions& options);
// What that jumps to. Always there: base chains do not change what they refer to.
[[nodiscard]] std::vector<Chain> others_chains();

}  // namespace meshd::policy::words
