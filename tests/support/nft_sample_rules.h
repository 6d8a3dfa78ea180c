// The rules among the samples; see nft_samples.h.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "netlink/nft_expr.h"

namespace meshd::test {

namespace nl = meshd::netlink;

inline nl::Reg reg(int index) { return {static_cast<std::uint8_t>(index)}; }
inline nl::Bytes bytes(std::initializer_list<int> values) {
  nl::Bytes out;
  for (const int value : values) out.push_back(static_cast<std::uint8_t>(value));
  return out;
}

// Matches nothing that a test sends: packets of IPv4, their source into `to`.
inline nl::Exprs ipv4_source(int to) {
  return {nl::MetaLoad{nl::MetaKey::kNfproto, reg(0)},
          nl::Compare{reg(0), nl::CompareOp::kEqual, bytes({2})},
          nl::PayloadLoad{nl::PayloadBase::kNetwork, 12, 4, reg(to)}};
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
  const nl::Exprs flow =
      joined(ipv4_source(0), {nl::PayloadLoad{nl::PayloadBase::kNetwork, 16, 4, reg(1)},
                              nl::MetaLoad{nl::MetaKey::kL4proto, reg(2)},
                              nl::PayloadLoad{nl::PayloadBase::kTransport, 2, 2, reg(3)}});
  return {
      {"guard",
       {nl::MetaLoad{nl::MetaKey::kIifgroup, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kEqual, nl::host_bytes(77)},
        nl::Verdict{nl::VerdictKind::kJump, "decide"}},
       "from containers"},
      {"guard",
       {nl::MetaLoad{nl::MetaKey::kIiftype, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kEqual, bytes({1, 0})},
        nl::MetaLoad{nl::MetaKey::kNfproto, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kEqual, bytes({2})},
        nl::MetaLoad{nl::MetaKey::kIifname, reg(0)},
        nl::PayloadLoad{nl::PayloadBase::kLink, 6, 6, reg(4)},
        nl::PayloadLoad{nl::PayloadBase::kNetwork, 12, 4, reg(6)},
        nl::Lookup{.set = "bind4", .from = reg(0)}, nl::Verdict{nl::VerdictKind::kGoto, "decide"}}},
      {"guard",
       {nl::MetaLoad{nl::MetaKey::kPkttype, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kNotEqual, bytes({0})}, nl::CounterRef{"c_spoof"},
        nl::Verdict{nl::VerdictKind::kDrop}}},
      {"guard",
       {nl::MetaLoad{nl::MetaKey::kL4proto, reg(0)},
        nl::InSet{reg(0), {nl::KeyType::kProto}, {bytes({6}), bytes({17})}, true},
        nl::Log{88, "meshd:spoof ", 64, 0}}},
      {"decide",
       {nl::ExthdrLoad{44, 0, 1, true, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kEqual, bytes({1})}, nl::Counter{}}},
      {"decide",
       {nl::CtLoad{nl::CtKey::kState, reg(0)},
        nl::Bitwise{reg(0), reg(0), nl::host_bytes(9), nl::host_bytes(0)},
        nl::Compare{reg(0), nl::CompareOp::kNotEqual, nl::host_bytes(0)},
        nl::Verdict{nl::VerdictKind::kDrop}}},
      {"decide", joined(ipv4_source(0), {nl::Dynset{.set = "frag4",
                                                    .op = nl::DynsetOp::kUpdate,
                                                    .from = reg(0),
                                                    .exprs = {nl::Limit{1000, 1, 500, true}}},
                                         nl::Verdict{nl::VerdictKind::kDrop}})},
      {"decide", joined(ipv4_source(0), {nl::Dynset{.set = "conn4",
                                                    .op = nl::DynsetOp::kAdd,
                                                    .from = reg(0),
                                                    .exprs = {nl::Connlimit{4096, true}}},
                                         nl::Verdict{nl::VerdictKind::kGoto, "refuse"}})},
      {"decide", joined(flow, {nl::Lookup{.set = "allow4", .from = reg(0)},
                               nl::Verdict{nl::VerdictKind::kAccept}})},
      {"decide",  // a map's value stays in a register and becomes part of the next key
       joined(ipv4_source(0), {nl::Lookup{.set = "egp4", .from = reg(0), .to = reg(4)},
                               nl::PayloadLoad{nl::PayloadBase::kNetwork, 16, 4, reg(5)},
                               nl::Lookup{.set = "src4", .from = reg(4), .inverted = true},
                               nl::Verdict{nl::VerdictKind::kReturn}})},
      {"decide",
       {nl::CtLoad{nl::CtKey::kDirection, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kEqual, bytes({1})},
        nl::CtLoad{nl::CtKey::kStatus, reg(1)},
        nl::Bitwise{reg(1), reg(1), nl::host_bytes(0x20), nl::host_bytes(0)},
        nl::Compare{reg(1), nl::CompareOp::kNotEqual, nl::host_bytes(0)},
        nl::Verdict{nl::VerdictKind::kAccept}}},
      {"decide",
       {nl::CtLoad{nl::CtKey::kOriginalDest4, reg(4)},
        nl::Compare{reg(4), nl::CompareOp::kEqual, bytes({10, 0, 0, 1})},
        nl::Verdict{nl::VerdictKind::kDrop}}},
      {"decide",
       {nl::CtLoad{nl::CtKey::kOriginalDest6, reg(4)},
        nl::Compare{reg(4), nl::CompareOp::kEqual, nl::Bytes(16)},
        nl::Verdict{nl::VerdictKind::kDrop}}},
      {"decide",
       {nl::MetaLoad{nl::MetaKey::kSkuid, reg(0)}, nl::Lookup{.set = "users", .from = reg(0)},
        nl::MetaLoad{nl::MetaKey::kMark, reg(1)}, nl::MetaSet{nl::MetaKey::kMark, reg(1)}}},
      {"decide",
       {nl::MetaLoad{nl::MetaKey::kL4proto, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kEqual, bytes({6})},
        nl::PayloadLoad{nl::PayloadBase::kTransport, 2, 2, reg(1)},
        nl::Range{reg(1), false, bytes({0, 80}), bytes({0, 90})}, nl::Limit{20, 60, 7, false}}},
      {"decide",
       {nl::Immediate{reg(2), nl::host_bytes(7)}, nl::Byteorder{reg(2), reg(3), true, 4, 4},
        nl::Compare{reg(3), nl::CompareOp::kLessEqual, bytes({0, 0, 0, 7})}}},
      {"refuse",
       {nl::MetaLoad{nl::MetaKey::kL4proto, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kEqual, bytes({6})},
        nl::Reject{nl::RejectKind::kTcpReset}}},
      {"refuse", {nl::Reject{nl::RejectKind::kPortUnreachable}}},
      {"raw_pre",
       {nl::MetaLoad{nl::MetaKey::kOifgroup, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kEqual, nl::host_bytes(78)}, nl::Notrack{}}},
  };
}

inline std::vector<SampleRule> sample_nat_rules() {
  const nl::Exprs tcp =
      joined(ipv4_source(8), {nl::PayloadLoad{nl::PayloadBase::kNetwork, 16, 4, reg(0)},
                              nl::MetaLoad{nl::MetaKey::kL4proto, reg(1)},
                              nl::PayloadLoad{nl::PayloadBase::kTransport, 2, 2, reg(2)}});
  return {
      {"snat_post",
       {nl::MetaLoad{nl::MetaKey::kL4proto, reg(0)},
        nl::Compare{reg(0), nl::CompareOp::kEqual, bytes({6})}, nl::SegmentLoad{reg(0)},
        nl::Byteorder{reg(0), reg(0), true, 2, 2}, nl::TcpOptionStore{2, 2, 2, reg(0)}}},
      {"dnat_pre",
       joined(tcp, {nl::NumgenRandom{reg(3), 16, 0},
                    nl::Lookup{.set = "vip4", .from = reg(0), .to = reg(12)},
                    nl::Nat{nl::NatKind::kDestination, false, reg(12), std::nullopt, 0}})},
      {"dnat_pre", joined(tcp, {nl::Lookup{.set = "pub4", .from = reg(0), .to = reg(12)},
                                nl::Nat{nl::NatKind::kDestination, false, reg(12), reg(13), 0}})},
      {"snat_post",
       {nl::Immediate{reg(0), bytes({169, 254, 1, 1})},
        nl::Nat{nl::NatKind::kSource, false, reg(0), std::nullopt, 0}}},
      {"snat_post", {nl::Masquerade{nl::kNatFullyRandom}}},
  };
}

inline std::vector<SampleRule> sample_rules() {
  auto rules = sample_filter_rules();
  for (auto& rule : sample_nat_rules()) rules.push_back(std::move(rule));
  return rules;
}

}  // namespace meshd::test
