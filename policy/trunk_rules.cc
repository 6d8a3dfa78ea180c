#include "policy/trunk_rules.h"

#include "policy/base_table.h"
#include "policy/rule_words.h"

namespace meshd::policy::words {
namespace {

constexpr std::uint32_t kIp4Frame = 0x0800, kIp6Frame = 0x86dd;  // Ethernet's types
constexpr std::uint32_t kSynOnly = 0x02;

const Match kByTunnel = is(kIifgroup, kTunnelGroup);

InSet by_trunk() { return in({kIifname}, std::string(set_name(SetId::kTrunk))); }

Chain guard_chain() {
  Chain chain{"guard_t", {}, {}};
  auto& rules = chain.rules;
  // Our own never come back from elsewhere, whatever blocks the others claim.
  for (const V& v : kBoth) {
    rules.push_back({in({v.source}, v.name(SetId::kLocal4)), Count{"c_foreign"}, drop()});
  }
  for (const V& v : kBoth) {
    rules.push_back({in({v.source}, v.name(SetId::kRemote4)), accept()});
  }
  // What the other node itself says of a flow, such as that a packet is too big. `forw` and
  // `inp` let pass only what is related to one.
  rules.push_back({kByTunnel, one_of(kIcmpType, kIcmpErrors), accept()});
  rules.push_back({kByTunnel, one_of(kIcmp6Type, kIcmp6Errors), accept()});
  rules.push_back({kByTunnel, Count{"c_foreign"}, drop()});
  // Back to `guard`: by an uplink comes everything else, too.
  return chain;
}

// Here, where a packet is whole and is for this node: what passes is what the device unpacks.
// A frame of another type, a tagged one among them, is nothing that a node sends.
Chain tunnel_chain() {
  Chain chain{"tunnel", {}, {}};
  for (const V& outer : kBoth) {
    for (const V& inner : kBoth) {
      const bool is_v4 = inner.family == Family::kV4;
      chain.rules.push_back({is(kInnerEthertype, is_v4 ? kIp4Frame : kIp6Frame),
                             InProfile{{is_v4 ? kInner4Source : kInner6Source},
                                       inner.name(SetId::kOrigin4),
                                       {outer.source},
                                       outer.name(SetId::kPeers4),
                                       false,
                                       {}},
                             accept()});
    }
  }
  chain.rules.push_back({Count{"c_foreign"}, drop()});
  return chain;
}

// Other nodes' containers have a resolver of their own; nothing of this node is for them.
Chain input_chain() {
  return {"inp_t",
          {},
          {{is(kCtDirection, 1), CtState{kCtEstablished | kCtRelated}, accept()},
           {Count{"c_host"}},
           {refuse()}}};
}

}  // namespace

std::vector<Rule> trunk_guard(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.in_cluster) return rules;
  rules.push_back({by_trunk(), jump("guard_t")});
  return rules;
}

// They wait for nothing: `forw` judges them. Among the holds a port of theirs could look like
// one that is waited for.
std::vector<Rule> replies_elsewhere(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.in_cluster) return rules;
  for (const V& v : kBoth) {
    rules.push_back(
        {kFromMesh, is(kCtDirection, 1), in({v.dest}, v.name(SetId::kRemote4)), accept()});
  }
  return rules;
}

std::vector<Rule> targets_elsewhere(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.in_cluster) return rules;
  for (const V& v : kBoth) {
    rules.push_back({kFromMesh, in({v.dest}, v.name(SetId::kRemote4)), accept()});
  }
  // Whom it looks for has just left, and the other node has not heard of it. That node refuses,
  // or holds, as soon as it has; until then a refusal would be wrong.
  for (const V& v : kBoth) {
    rules.push_back({in({v.source}, v.name(SetId::kRemote4)), Count{"c_held"}, drop()});
  }
  return rules;
}

// A SYN and its answer leave by the two nodes of a flow, so each way is seen once.
std::vector<Rule> trunk_forward(const Settings& settings) {
  if (!settings.in_cluster) return {};
  return {{kFromMesh, is_not(kOifgroup, kMeshGroup), is(kTcpSynRst, kSynOnly), ClampSegments{}}};
}

std::vector<Rule> trunk_input(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.in_cluster) return rules;
  // Another number on that port is another tunnel's: ours does not take it.
  if (settings.tunnel) {
    rules.push_back({is(kL4proto, kUdpNumber), is(kDestPort, kTunnelPort),
                     is(kTunnelNumber, policy::kTunnelNumber), jump("tunnel")});
  }
  for (const V& v : kBoth) {
    const auto mesh = in({v.source}, v.name(SetId::kMesh4));
    rules.push_back({by_trunk(), mesh, jump("inp_t")});
    rules.push_back({by_trunk(), mesh, Count{"c_host"}, drop()});
  }
  // Errors from the other nodes have no mesh source.
  rules.push_back({kByTunnel, jump("inp_t")});
  rules.push_back({kByTunnel, Count{"c_host"}, drop()});
  return rules;
}

// Which uid sent it is known on this node only, and the other one would refuse it: so it is
// refused here, where that is fast.
std::vector<Rule> users_elsewhere(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.in_cluster) return rules;
  for (const V& v : kBoth) {
    rules.push_back({in({v.dest}, v.name(SetId::kRemote4)),
                     in({kSkuid}, std::string(set_name(SetId::kUsers))), refuse()});
  }
  return rules;
}

std::vector<Chain> trunk_chains(const Settings& settings) {
  if (!settings.in_cluster) return {};
  std::vector<Chain> chains{guard_chain(), input_chain()};
  if (settings.tunnel) chains.push_back(tunnel_chain());
  return chains;
}

}  // namespace meshd::policy::words
