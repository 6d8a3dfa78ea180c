#include "netlink/nft_features.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "netlink/nft_batch.h"

namespace meshd::netlink {
namespace {

template <class Fill>
Status attempt(Socket& socket, Fill&& fill) {
  NftBatch batch{std::string(kProbeTable)};
  CHECK_OK(batch.put_table());
  CHECK_OK(fill(batch));
  return std::move(batch).check(socket);
}

// `statement` behind a match that no packet meets: a mark and-ed with 0 that is not 0.
Exprs never_matching(Expr statement) {
  return {MetaLoad{MetaKey::kMark, Reg{}}, Bitwise{Reg{}, Reg{}, host_bytes(0), host_bytes(0)},
          Compare{Reg{}, CompareOp::kNotEqual, host_bytes(0)}, std::move(statement)};
}

Status element_counters(NftBatch& batch) {
  SetSpec set{.name = "s", .key = {KeyType::kIpv4}, .size = 16};
  set.counter = true;
  return batch.put_set(set);
}

Status concat_intervals(NftBatch& batch) {
  return batch.put_set({.name = "s", .key = {KeyType::kMark, KeyType::kIpv4}, .interval = true});
}

Status connection_limits(NftBatch& batch) {
  const SetSpec set{.name = "s", .key = {KeyType::kIpv4}, .size = 16, .dynamic = true};
  CHECK_OK(batch.put_set(set));
  CHECK_OK(batch.put_chain({.name = "c"}));
  const Exprs exprs = {
      MetaLoad{MetaKey::kNfproto, Reg{}},
      Compare{Reg{}, CompareOp::kEqual, {2 /* NFPROTO_IPV4 */}},
      PayloadLoad{PayloadBase::kNetwork, 12, 4, Reg{}},
      Dynset{.set = "s", .op = DynsetOp::kAdd, .exprs = {Connlimit{4096, true}}},
  };
  return batch.put_rule("c", exprs);
}

Status slots(NftBatch& batch) {
  CHECK_OK(batch.put_chain({.name = "c"}));
  return batch.put_rule("c", {NumgenRandom{Reg{}, 16, 0}});
}

Status packet_log(NftBatch& batch) {
  CHECK_OK(batch.put_chain({.name = "c"}));
  return batch.put_rule("c", {Log{.group = 88, .prefix = "probe ", .snaplen = 64}});
}

Status masquerading(NftBatch& batch) {
  const BaseChain base{ChainType::kNat, Hook::kPostrouting, 32'000, Policy::kAccept};
  CHECK_OK(batch.put_chain({"c", base}));
  return batch.put_rule("c", never_matching(Masquerade{kNatFullyRandom}));
}

Status notracking(NftBatch& batch) {
  const BaseChain base{ChainType::kFilter, Hook::kPrerouting, -300, Policy::kAccept};
  CHECK_OK(batch.put_chain({"c", base}));
  return batch.put_rule("c", never_matching(Notrack{}));
}

// Limits per source, in a set that rules fill.
Status rate_meters(NftBatch& batch) {
  const SetSpec set{.name = "s",
                    .key = {KeyType::kIpv4},
                    .size = 16,
                    .dynamic = true,
                    .has_timeout = true,
                    .timeout = std::chrono::seconds(10)};
  CHECK_OK(batch.put_set(set));
  CHECK_OK(batch.put_chain({.name = "c"}));
  const Exprs exprs = {
      MetaLoad{MetaKey::kNfproto, Reg{}},
      Compare{Reg{}, CompareOp::kEqual, {2 /* NFPROTO_IPV4 */}},
      PayloadLoad{PayloadBase::kNetwork, 12, 4, Reg{}},
      Dynset{.set = "s",
             .op = DynsetOp::kUpdate,
             .exprs = {Limit{.rate = 20, .burst = 20, .over = true}}},
  };
  return batch.put_rule("c", exprs);
}

Status socket_owner(NftBatch& batch) {
  const BaseChain base{ChainType::kFilter, Hook::kOutput, 32'000, Policy::kAccept};
  CHECK_OK(batch.put_chain({"c", base}));
  return batch.put_rule("c", {MetaLoad{MetaKey::kSkuid, Reg{}}});
}

struct Probe {
  std::string_view name, needed_for;
  Status (*fill)(NftBatch&);
};
constexpr Probe kNeeded[] = {
    {"element counters", "packet and byte counts of flows", element_counters},
    {"concatenated intervals", "source and egress prefixes", concat_intervals},
    {"connection limits", "a bound on what one container may hold in conntrack", connection_limits},
    {"random numbers", "spreading connections over replicas", slots},
    {"packet log", "telling why a packet was refused", packet_log},
    {"masquerade", "egress", masquerading},
    {"notrack", "questions to the resolver without conntrack entries", notracking},
    {"rate meters", "a bound on what one container may ask for", rate_meters},
    {"socket owners", "who of the node may reach containers", socket_owner},
};

}  // namespace

Result<std::vector<Feature>> probe_features() {
  auto socket = TRY(Socket::open());
  auto plain = attempt(socket, [](NftBatch&) -> Status { return {}; });
  if (!plain) return std::unexpected(std::move(plain.error()).in("try nf_tables"));
  std::vector<Feature> features;
  for (const auto& probe : kNeeded) {
    const auto tried = attempt(socket, probe.fill);
    features.push_back({probe.name, probe.needed_for, tried.has_value(),
                        tried ? std::string() : tried.error().what});
  }
  return features;
}

Status require_all(std::span<const Feature> features) {
  for (const auto& feature : features) {
    if (feature.present) continue;
    return fail(ErrorCode::kUnsupported,
                fmt::format("this kernel lacks {}, needed for {}: {}", feature.name,
                            feature.needed_for, feature.why));
  }
  return {};
}

}  // namespace meshd::netlink
