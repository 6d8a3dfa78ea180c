#include "policy/others_rules.h"

#include "policy/rule_words.h"

namespace meshd::policy::words {
namespace {

constexpr std::uint32_t kNfprotoIpv4 = 2, kNfprotoIpv6 = 10;  // linux/netfilter.h

bool was_off(const V& v, const TableOptions& options) {
  return v.family == Family::kV4 ? options.forwarding4_was_off : options.forwarding6_was_off;
}

}  // namespace

InSet by_engine(const V& v) { return in({kIifname}, v.name(SetId::kEngine4)); }

// Masqueraded, what somebody else's container sends to a node's end of the tunnel would come from
// this node, which may speak for all of its containers. Nodes that this one routes for may: none of
// them is behind an engine's bridge, whose containers could use any address. A node's address is
// not the mesh's, and so among those that any node speaks for, itself among its peers.
std::vector<Rule> others_forward(const Settings& settings, const TableOptions& options) {
  std::vector<Rule> rules;
  if (!settings.in_cluster || !settings.tunnel) return rules;
  for (const V& v : kBoth) {
    const auto add = [&](auto... more) {
      rules.push_back({is(kL4proto, kUdpNumber), is(kDestPort, kTunnelPort),
                       is(kTunnelNumber, policy::kTunnelNumber),
                       in({v.dest}, v.name(SetId::kNever4)), more...});
    };
    add(by_engine(v), Count{"c_foreign"}, drop());
    if (!was_off(v, options)) {
      const auto peers = v.name(SetId::kPeers4);
      add(InProfile{{v.source}, v.name(SetId::kOrigin4), {v.source}, peers, false, {}}, accept());
    }
    add(Count{"c_foreign"}, drop());
  }
  return rules;
}

// As silent as a node that does not forward.
std::vector<Rule> unforwarded(const TableOptions& options) {
  std::vector<Rule> rules;
  for (const V& v : kBoth) {
    if (!was_off(v, options)) continue;
    const auto family = is(kNfproto, v.family == Family::kV4 ? kNfprotoIpv4 : kNfprotoIpv6);
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
