#include "netlink/nft_features.h"

#include <fmt/format.h>

#include <utility>

#include "netlink/nft_batch.h"

namespace meshd::netlink {
namespace {

// One try in a table of its own, with a socket of its own: an owned table dies with the
// socket, so that even a crash in between leaves nothing where the kernel knows owners.
template <class Fill>
Status attempt(std::uint32_t flags, Fill&& fill) {
  auto socket = TRY(Socket::open());
  const auto table = fmt::format("meshd-probe-{}", socket.port_id());
  NftBatch make(table);
  CHECK_OK(make.put_table(flags));
  CHECK_OK(fill(make));
  CHECK_OK(std::move(make).commit(socket));
  NftBatch remove(table);
  CHECK_OK(remove.delete_table());
  return std::move(remove).commit(socket);
}

Feature feature(std::string_view name, std::string_view needed_for, bool required,
                const Status& tried) {
  return {name, needed_for, required, tried.has_value(), tried ? "" : tried.error().what};
}

// `statement` behind a match that no packet meets: a mark and-ed with 0 that is not 0.
Exprs never_matching(Expr statement) {
  return {MetaLoad{MetaKey::kMark, Reg{}}, Bitwise{Reg{}, Reg{}, host_bytes(0), host_bytes(0)},
          Compare{Reg{}, CompareOp::kNotEqual, host_bytes(0)}, std::move(statement)};
}

// Rejecting before routing (kernel 5.9). Whether a hook takes an expression is decided when
// the transaction is committed, hence a chain with a hook.
Status reject_in_prerouting(NftBatch& batch) {
  const BaseChain base{ChainType::kFilter, Hook::kPrerouting, 32'000, Policy::kAccept};
  CHECK_OK(batch.put_chain({"c", base}));
  return batch.put_rule("c", never_matching(Reject{RejectKind::kPortUnreachable}));
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

Status nothing(NftBatch&) { return {}; }

struct Probe {
  std::string_view name, needed_for;
  Status (*fill)(NftBatch&);
};
constexpr Probe kRequired[] = {
    {"element counters", "packet and byte counts of flows", element_counters},
    {"concatenated intervals", "source and egress prefixes", concat_intervals},
    {"reject in prerouting", "fast refusals at virtual addresses", reject_in_prerouting},
    {"connection limits", "a bound on what one container may hold in conntrack", connection_limits},
    {"random numbers", "spreading connections over replicas", slots},
    {"packet log", "telling why a packet was refused", packet_log},
    {"masquerade", "egress", masquerading},
};

}  // namespace

Result<Features> probe_features() {
  auto plain = attempt(0, nothing);
  if (!plain) return std::unexpected(std::move(plain.error()).in("try nf_tables"));
  Features features;
  const auto owner = attempt(kTableOwner, nothing);
  features.owner = owner.has_value();
  features.all.push_back(feature(
      "table owner", "keeping other programs' hands off the table while meshd runs", false, owner));
  const auto persist = attempt(kTableOwner | kTablePersist, nothing);
  features.persist = persist.has_value();
  features.all.push_back(
      feature("persistent tables", "keeping the rules when an owning meshd stops", false, persist));
  const std::uint32_t flags = features.owner ? kTableOwner : 0;
  for (const auto& probe : kRequired) {
    features.all.push_back(feature(probe.name, probe.needed_for, true, attempt(flags, probe.fill)));
  }
  return features;
}

}  // namespace meshd::netlink
