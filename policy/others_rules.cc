#include "policy/others_rules.h"

#include "policy/rule_words.h"

namespace meshd::policy::words {
namespace {

constexpr std::uint32_t kNfprotoIpv4 = 2, kNfprotoIpv6 = 10;  // linux/netfilter.h

}  // namespace

InSet by_engine(const V& v) { return in({kIifname}, v.name(SetId::kEngine4)); }

// Masqueraded, what somebody else's container sends to a node's end of the tunnel would come from
// this node, which may speak for all of its containers. Nodes that this one routes for may: none of
// them is behind an engine's bridge, whose containers could use any address.
std::vector<Rule> others_forward(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.in_cluster || !settings.tunnel) return rules;
  for (const V& v : kBoth) {
    const auto never = v.name(SetId::kNever4);
    for (const auto& who : {by_engine(v), not_in(v.source, never)}) {
      rules.push_back({is(kL4proto, kUdpNumber), is(kDestPort, kTunnelPort),
                       is(kTunnelNumber, policy::kTunnelNumber), in({v.dest}, never), who,
                       Count{"c_foreign"}, drop()});
    }
  }
  return rules;
}

// As silent as a node that does not forward.
std::vector<Rule> unforwarded(const TableOptions& options) {
  std::vector<Rule> rules;
  for (const V& v : kBoth) {
    const bool is_v4 = v.family == Family::kV4;
    if (!(is_v4 ? options.forwarding4_was_off : options.forwarding6_was_off)) continue;
    const auto family = is(kNfproto, is_v4 ? kNfprotoIpv4 : kNfprotoIpv6);
    rules.push_back({family, jump(v.name("others"))});
    rules.push_back({family, Count{"c_unforwarded"}, drop()});
  }
  return rules;
}

// Frames on an engine's bridge come by here too, where br_netfilter is.
std::vector<Chain> others_chains() {
  std::vector<Chain> chains;
  for (const V& v : kBoth) {
    const auto to_engine = in({kOifname}, v.name(SetId::kEngine4));
    chains.push_back({v.name("others"),
                      {},
                      {{by_engine(v), accept()},
                       {to_engine, CtState{kCtEstablished | kCtRelated}, accept()},
                       {to_engine, CtTranslated{}, accept()}}});
  }
  return chains;
}

}  // namespace meshd::policy::words
