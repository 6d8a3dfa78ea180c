// Rules and sets that between them use everything netlink/nft_*.h can express, in the
// shapes a real table has. Shared by the tests that only look at bytes and those that ask
// the kernel.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "netlink/nft_batch.h"

namespace meshd::test {

namespace nl = meshd::netlink;

inline nl::Reg reg(int index) { return {static_cast<std::uint8_t>(index)}; }
inline nl::Bytes bytes(std::initializer_list<int> values) {
  nl::Bytes out;
  for (const int value : values) out.push_back(static_cast<std::uint8_t>(value));
  return out;
}

// saddr . daddr . proto . port with its padding; `port` in network order.
inline nl::Bytes flow_key(std::uint32_t source, std::uint32_t target, std::uint8_t proto,
                          std::uint16_t port) {
  nl::Bytes key(16);
  for (unsigned i = 0; i < 4; ++i) {
    key[i] = static_cast<std::uint8_t>(source >> (24 - 8 * i));
    key[4 + i] = static_cast<std::uint8_t>(target >> (24 - 8 * i));
  }
  key[8] = proto;
  key[12] = static_cast<std::uint8_t>(port >> 8);
  key[13] = static_cast<std::uint8_t>(port & 0xff);
  return key;
}

inline nl::SetSpec flow_set() {
  using enum nl::KeyType;
  nl::SetSpec set{.name = "allow4", .key = {kIpv4, kIpv4, kProto, kPort}, .size = 262144};
  set.counter = true;
  return set;
}

inline std::vector<nl::SetSpec> sample_sets() {
  using enum nl::KeyType;
  nl::SetSpec dynamic{.name = "frag4", .key = {kIpv4}, .size = 8192, .dynamic = true};
  dynamic.has_timeout = true;
  dynamic.timeout = std::chrono::seconds(10);
  return {
      flow_set(),
      {.name = "bind4", .key = {kIfname, kEther, kIpv4}, .size = 8192},
      {.name = "local6", .key = {kIpv6}, .size = 8192},
      {.name = "egp4", .key = {kIpv4}, .data = {kMark}, .size = 8192},
      {.name = "pub4", .key = {kIpv4, kProto, kPort}, .data = {kIpv4, kPort}, .size = 8192},
      {.name = "vip4", .key = {kIpv4, kProto, kPort, kMark}, .data = {kIpv4}, .size = 65536},
      {.name = "src4", .key = {kMark, kIpv4}, .interval = true},
      {.name = "mesh4", .key = {kIpv4}, .interval = true},
      {.name = "mesh6", .key = {kIpv6}, .interval = true},
      {.name = "trunk", .key = {kIfname}, .size = 64},
      {.name = "users", .key = {kUid}, .size = 64},
      dynamic,
      {.name = "conn4", .key = {kIpv4}, .size = 8192, .dynamic = true},
  };
}

inline std::vector<nl::ChainSpec> sample_chains() {
  using enum nl::Hook;
  const auto base = [](nl::ChainType type, nl::Hook hook, int priority) {
    return nl::BaseChain{type, hook, priority, nl::Policy::kAccept};
  };
  return {
      {"guard", base(nl::ChainType::kFilter, kPrerouting, -450)},
      {"raw_pre", base(nl::ChainType::kFilter, kPrerouting, -300)},
      {"dnat_pre", base(nl::ChainType::kNat, kPrerouting, -100)},
      {"snat_post", base(nl::ChainType::kNat, kPostrouting, 100)},
      {"inp", nl::BaseChain{nl::ChainType::kFilter, kInput, -10, nl::Policy::kDrop}},
      {.name = "decide"},
      {.name = "refuse"},
  };
}

// Matches nothing that a test sends: packets of IPv4, their source into `to`.
inline nl::Exprs ipv4_source(int to) {
  using namespace nl;
  return {MetaLoad{MetaKey::kNfproto, reg(0)}, Compare{reg(0), CompareOp::kEqual, bytes({2})},
          PayloadLoad{PayloadBase::kNetwork, 12, 4, reg(to)}};
}

inline nl::Exprs joined(nl::Exprs left, nl::Exprs right) {
  for (auto& expr : right) left.push_back(std::move(expr));
  return left;
}

struct SampleRule {
  std::string chain;
  nl::Exprs exprs;
  std::string comment = {};
};

inline std::vector<SampleRule> sample_filter_rules() {
  using namespace nl;
  const Exprs flow = joined(ipv4_source(0), {PayloadLoad{PayloadBase::kNetwork, 16, 4, reg(1)},
                                             MetaLoad{MetaKey::kL4proto, reg(2)},
                                             PayloadLoad{PayloadBase::kTransport, 2, 2, reg(3)}});
  return {
      {"guard",
       {MetaLoad{MetaKey::kIifgroup, reg(0)}, Compare{reg(0), CompareOp::kEqual, host_bytes(77)},
        Verdict{VerdictKind::kJump, "decide"}},
       "from containers"},
      {"guard",
       {MetaLoad{MetaKey::kIiftype, reg(0)}, Compare{reg(0), CompareOp::kEqual, bytes({1, 0})},
        MetaLoad{MetaKey::kNfproto, reg(0)}, Compare{reg(0), CompareOp::kEqual, bytes({2})},
        MetaLoad{MetaKey::kIifname, reg(0)}, PayloadLoad{PayloadBase::kLink, 6, 6, reg(4)},
        PayloadLoad{PayloadBase::kNetwork, 12, 4, reg(6)}, Lookup{.set = "bind4", .from = reg(0)},
        Verdict{VerdictKind::kGoto, "decide"}}},
      {"guard",
       {MetaLoad{MetaKey::kPkttype, reg(0)}, Compare{reg(0), CompareOp::kNotEqual, bytes({0})},
        CounterRef{"c_spoof"}, Verdict{VerdictKind::kDrop}}},
      {"guard",
       {MetaLoad{MetaKey::kL4proto, reg(0)},
        InSet{reg(0), {KeyType::kProto}, {bytes({6}), bytes({17})}, true},
        Log{88, "meshd:spoof ", 64, 0}}},
      {"decide",
       {ExthdrLoad{44, 0, 1, true, reg(0)}, Compare{reg(0), CompareOp::kEqual, bytes({1})},
        Counter{}}},
      {"decide",
       {CtLoad{CtKey::kState, reg(0)}, Bitwise{reg(0), reg(0), host_bytes(9), host_bytes(0)},
        Compare{reg(0), CompareOp::kNotEqual, host_bytes(0)}, Verdict{VerdictKind::kDrop}}},
      {"decide", joined(ipv4_source(0), {Dynset{.set = "frag4",
                                                .op = DynsetOp::kUpdate,
                                                .from = reg(0),
                                                .exprs = {Limit{1000, 1, 500, true}}},
                                         Verdict{VerdictKind::kDrop}})},
      {"decide", joined(ipv4_source(0), {Dynset{.set = "conn4",
                                                .op = DynsetOp::kAdd,
                                                .from = reg(0),
                                                .exprs = {Connlimit{4096, true}}},
                                         Verdict{VerdictKind::kGoto, "refuse"}})},
      {"decide",
       joined(flow, {Lookup{.set = "allow4", .from = reg(0)}, Verdict{VerdictKind::kAccept}})},
      {"decide",  // a map's value stays in a register and becomes part of the next key
       joined(ipv4_source(0), {Lookup{.set = "egp4", .from = reg(0), .to = reg(4)},
                               PayloadLoad{PayloadBase::kNetwork, 16, 4, reg(5)},
                               Lookup{.set = "src4", .from = reg(4), .inverted = true},
                               Verdict{VerdictKind::kReturn}})},
      {"decide",
       {CtLoad{CtKey::kDirection, reg(0)}, Compare{reg(0), CompareOp::kEqual, bytes({1})},
        CtLoad{CtKey::kStatus, reg(1)}, Bitwise{reg(1), reg(1), host_bytes(0x20), host_bytes(0)},
        Compare{reg(1), CompareOp::kNotEqual, host_bytes(0)}, Verdict{VerdictKind::kAccept}}},
      {"decide",
       {MetaLoad{MetaKey::kSkuid, reg(0)}, Lookup{.set = "users", .from = reg(0)},
        MetaLoad{MetaKey::kMark, reg(1)}, MetaSet{MetaKey::kMark, reg(1)}}},
      {"decide",
       {MetaLoad{MetaKey::kL4proto, reg(0)}, Compare{reg(0), CompareOp::kEqual, bytes({6})},
        PayloadLoad{PayloadBase::kTransport, 2, 2, reg(1)},
        Range{reg(1), false, bytes({0, 80}), bytes({0, 90})}, Limit{20, 60, 7, false}}},
      {"decide",
       {Immediate{reg(2), host_bytes(7)}, Byteorder{reg(2), reg(3), true, 4, 4},
        Compare{reg(3), CompareOp::kLessEqual, bytes({0, 0, 0, 7})}}},
      {"refuse",
       {MetaLoad{MetaKey::kL4proto, reg(0)}, Compare{reg(0), CompareOp::kEqual, bytes({6})},
        Reject{RejectKind::kTcpReset}}},
      {"refuse", {Reject{RejectKind::kPortUnreachable}}},
      {"raw_pre",
       {MetaLoad{MetaKey::kOifgroup, reg(0)}, Compare{reg(0), CompareOp::kEqual, host_bytes(78)},
        Notrack{}}},
  };
}

inline std::vector<SampleRule> sample_nat_rules() {
  using namespace nl;
  const Exprs tcp = joined(ipv4_source(8), {PayloadLoad{PayloadBase::kNetwork, 16, 4, reg(0)},
                                            MetaLoad{MetaKey::kL4proto, reg(1)},
                                            PayloadLoad{PayloadBase::kTransport, 2, 2, reg(2)}});
  return {
      {"dnat_pre", joined(tcp, {NumgenRandom{reg(3), 16, 0},
                                Lookup{.set = "vip4", .from = reg(0), .to = reg(12)},
                                Nat{NatKind::kDestination, false, reg(12), std::nullopt, 0}})},
      {"dnat_pre", joined(tcp, {Lookup{.set = "pub4", .from = reg(0), .to = reg(12)},
                                Nat{NatKind::kDestination, false, reg(12), reg(13), 0}})},
      {"snat_post",
       {Immediate{reg(0), bytes({169, 254, 1, 1})},
        Nat{NatKind::kSource, false, reg(0), std::nullopt, 0}}},
      {"snat_post", {Masquerade{kNatFullyRandom}}},
  };
}

inline std::vector<SampleRule> sample_rules() {
  auto rules = sample_filter_rules();
  for (auto& rule : sample_nat_rules()) rules.push_back(std::move(rule));
  return rules;
}

// The whole of it in one batch.
inline Status put_samples(nl::NftBatch& batch, std::uint32_t flags = 0) {
  CHECK_OK(batch.put_table(flags));
  CHECK_OK(batch.put_counter("c_spoof"));
  for (const auto& set : sample_sets()) CHECK_OK(batch.put_set(set));
  for (const auto& chain : sample_chains()) CHECK_OK(batch.put_chain(chain));
  for (const auto& rule : sample_rules()) {
    CHECK_OK(batch.put_rule(rule.chain, rule.exprs, rule.comment));
  }
  return {};
}

}  // namespace meshd::test
