#include "policy/trunk_rules.h"

#include "policy/base_table.h"
#include "policy/rule_words.h"

namespace meshd::policy::words {
namespace {

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
  // Without a tunnel of ours these ports may be somebody else's.
  for (const V& v : kBoth) {
    if (!settings.tunnel) break;
    rules.push_back({is(kL4proto, kUdpNumber), one_of(kDestPort, kVxlanPorts),
                     not_in(v.source, v.name(SetId::kPeers4)), Count{"c_foreign"}, drop()});
  }
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
  return rules;
}

// What was here a moment ago: the other node has not heard yet that it left. To be refused is for
// it to say, which knows whether its container is to wait.
std::vector<Rule> late_from_elsewhere(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.in_cluster) return rules;
  for (const V& v : kBoth) {
    rules.push_back({in({v.source}, v.name(SetId::kRemote4)), Count{"c_held"}, drop()});
  }
  return rules;
}

std::vector<Rule> trunk_input(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.in_cluster) return rules;
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
  return {guard_chain(), input_chain()};
}

}  // namespace meshd::policy::words
