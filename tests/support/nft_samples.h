// Rules and sets that between them use everything netlink/nft_*.h can express, in the
// shapes a real table has. Shared by the tests that only look at bytes and those that ask
// the kernel.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "netlink/nft_batch.h"
#include "tests/support/nft_sample_rules.h"

namespace meshd::test {

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
