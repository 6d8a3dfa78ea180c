// The expressions of a rule as the kernel tells them.
#include <algorithm>
#include <chrono>
#include <string>

#include "netlink/nft_decode.h"
#include "netlink/nft_numbers.h"

namespace meshd::netlink {
namespace {

// An expression's own attributes; none of those that we read has a number above this.
using Fields = Attributes<16>;

UnknownExpr unknown(std::string_view name) { return {std::string(name.substr(0, 32))}; }

// The kernel writes a register that starts a 16-byte one by its old number.
std::optional<Reg> reg_of(const Fields& fields, std::size_t attribute) {
  const std::uint32_t number = fields.be32(attribute);
  if (number >= NFT_REG_1 && number <= NFT_REG_4) {
    return Reg{static_cast<std::uint8_t>((number - NFT_REG_1) * 4)};
  }
  if (number >= NFT_REG32_00 && number <= NFT_REG32_15) {
    return Reg{static_cast<std::uint8_t>(number - NFT_REG32_00)};
  }
  return std::nullopt;
}

Bytes value_of(const Fields& fields, std::size_t attribute) {
  const Attributes<3> nest(fields.bytes(attribute));
  const auto bytes = nest.octets(NFTA_DATA_VALUE);
  return {bytes.begin(),
          bytes.begin() + static_cast<std::ptrdiff_t>(std::min(bytes.size(), kMaxKeyBytes))};
}

Expr meta(const Fields& f) {
  const auto key = name_of(kMetaKeys, f.be32(NFTA_META_KEY));
  const bool sets = f.has(NFTA_META_SREG);
  const auto reg = reg_of(f, sets ? NFTA_META_SREG : NFTA_META_DREG);
  if (!key || !reg) return unknown("meta");
  if (sets) return MetaSet{*key, *reg};
  return MetaLoad{*key, *reg};
}

Expr payload(const Fields& f) {
  const auto base = name_of(kPayloadBases, f.be32(NFTA_PAYLOAD_BASE));
  const auto to = reg_of(f, NFTA_PAYLOAD_DREG);
  if (!base || !to || f.has(NFTA_PAYLOAD_SREG)) return unknown("payload");
  return PayloadLoad{*base, f.be32(NFTA_PAYLOAD_OFFSET), f.be32(NFTA_PAYLOAD_LEN), *to};
}

Expr rt(const Fields& f) {
  const auto to = reg_of(f, NFTA_RT_DREG);
  if (!to || f.be32(NFTA_RT_KEY) != NFT_RT_TCPMSS) return unknown("rt");
  return SegmentLoad{*to};
}

Expr tcp_option_store(const Fields& f) {
  const auto from = reg_of(f, NFTA_EXTHDR_SREG);
  const auto type = f.octets(NFTA_EXTHDR_TYPE);
  if (!from || type.empty() || f.be32(NFTA_EXTHDR_FLAGS) != 0 ||
      f.be32(NFTA_EXTHDR_OP) != NFT_EXTHDR_OP_TCPOPT) {
    return unknown("exthdr");
  }
  return TcpOptionStore{type[0], f.be32(NFTA_EXTHDR_OFFSET), f.be32(NFTA_EXTHDR_LEN), *from};
}

Expr exthdr(const Fields& f) {
  if (f.has(NFTA_EXTHDR_SREG)) return tcp_option_store(f);
  const auto to = reg_of(f, NFTA_EXTHDR_DREG);
  const auto type = f.octets(NFTA_EXTHDR_TYPE);
  const auto flags = f.be32(NFTA_EXTHDR_FLAGS);
  if (!to || type.empty() || f.be32(NFTA_EXTHDR_OP) != NFT_EXTHDR_OP_IPV6 ||
      (flags & ~std::uint32_t{NFT_EXTHDR_F_PRESENT}) != 0) {
    return unknown("exthdr");
  }
  return ExthdrLoad{type[0], f.be32(NFTA_EXTHDR_OFFSET), f.be32(NFTA_EXTHDR_LEN), flags != 0, *to};
}

Expr ct(const Fields& f) {
  const auto key = name_of(kCtKeys, f.be32(NFTA_CT_KEY));
  const auto to = reg_of(f, NFTA_CT_DREG);
  const auto direction = f.octets(NFTA_CT_DIRECTION);
  if (!key || !to || direction.empty() == of_original(*key)) return unknown("ct");
  if (!direction.empty() && direction[0] != kOriginalDirection) return unknown("ct");
  return CtLoad{*key, *to};
}

Expr numgen(const Fields& f) {
  const auto to = reg_of(f, NFTA_NG_DREG);
  if (!to || f.be32(NFTA_NG_TYPE) != NFT_NG_RANDOM) return unknown("numgen");
  return NumgenRandom{*to, f.be32(NFTA_NG_MODULUS), f.be32(NFTA_NG_OFFSET)};
}

Expr cmp(const Fields& f) {
  const auto op = name_of(kCompareOps, f.be32(NFTA_CMP_OP));
  const auto from = reg_of(f, NFTA_CMP_SREG);
  if (!op || !from) return unknown("cmp");
  return Compare{*from, *op, value_of(f, NFTA_CMP_DATA)};
}

Expr range(const Fields& f) {
  const auto from = reg_of(f, NFTA_RANGE_SREG);
  if (!from) return unknown("range");
  return Range{*from, f.be32(NFTA_RANGE_OP) == NFT_RANGE_NEQ, value_of(f, NFTA_RANGE_FROM_DATA),
               value_of(f, NFTA_RANGE_TO_DATA)};
}

Expr bitwise(const Fields& f) {
  const auto from = reg_of(f, NFTA_BITWISE_SREG), to = reg_of(f, NFTA_BITWISE_DREG);
  if (!from || !to || f.be32(NFTA_BITWISE_OP) != NFT_BITWISE_BOOL) return unknown("bitwise");
  return Bitwise{*from, *to, value_of(f, NFTA_BITWISE_MASK), value_of(f, NFTA_BITWISE_XOR)};
}

Expr byteorder(const Fields& f) {
  const auto from = reg_of(f, NFTA_BYTEORDER_SREG), to = reg_of(f, NFTA_BYTEORDER_DREG);
  if (!from || !to) return unknown("byteorder");
  return Byteorder{*from, *to, f.be32(NFTA_BYTEORDER_OP) == NFT_BYTEORDER_HTON,
                   f.be32(NFTA_BYTEORDER_LEN), f.be32(NFTA_BYTEORDER_SIZE)};
}

Expr lookup(const Fields& f) {
  const auto from = reg_of(f, NFTA_LOOKUP_SREG);
  if (!from) return unknown("lookup");
  Lookup lookup{.set = std::string(f.text(NFTA_LOOKUP_SET)), .from = *from};
  lookup.inverted = (f.be32(NFTA_LOOKUP_FLAGS) & NFT_LOOKUP_F_INV) != 0;
  if (f.has(NFTA_LOOKUP_DREG)) {
    lookup.verdict = f.be32(NFTA_LOOKUP_DREG) == NFT_REG_VERDICT;
    if (!lookup.verdict) lookup.to = reg_of(f, NFTA_LOOKUP_DREG);
  }
  return lookup;
}

Expr immediate(const Fields& f) {
  if (f.be32(NFTA_IMMEDIATE_DREG) != NFT_REG_VERDICT) {
    const auto to = reg_of(f, NFTA_IMMEDIATE_DREG);
    if (!to) return unknown("immediate");
    return Immediate{*to, value_of(f, NFTA_IMMEDIATE_DATA)};
  }
  const Attributes<3> data(f.bytes(NFTA_IMMEDIATE_DATA));
  const Attributes<4> verdict(data.bytes(NFTA_DATA_VERDICT));
  const auto kind = name_of(kVerdicts, verdict.be32(NFTA_VERDICT_CODE));
  if (!kind || !verdict.has(NFTA_VERDICT_CODE)) return unknown("immediate");
  return Verdict{*kind, std::string(verdict.text(NFTA_VERDICT_CHAIN))};
}

Expr limit(const Fields& f) {
  if (f.be32(NFTA_LIMIT_TYPE) != NFT_LIMIT_PKTS) return unknown("limit");
  return Limit{f.be64(NFTA_LIMIT_RATE), f.be64(NFTA_LIMIT_UNIT), f.be32(NFTA_LIMIT_BURST),
               (f.be32(NFTA_LIMIT_FLAGS) & NFT_LIMIT_F_INV) != 0};
}

Expr connlimit(const Fields& f) {
  return Connlimit{f.be32(NFTA_CONNLIMIT_COUNT),
                   (f.be32(NFTA_CONNLIMIT_FLAGS) & NFT_CONNLIMIT_F_INV) != 0};
}

Expr objref(const Fields& f) {
  if (f.be32(NFTA_OBJREF_IMM_TYPE) != NFT_OBJECT_COUNTER) return unknown("objref");
  return CounterRef{std::string(f.text(NFTA_OBJREF_IMM_NAME))};
}

Expr log(const Fields& f) {
  // Without a group it is the kernel's own log.
  if (!f.has(NFTA_LOG_GROUP)) return unknown("log");
  return Log{f.be16(NFTA_LOG_GROUP), std::string(f.text(NFTA_LOG_PREFIX)), f.be32(NFTA_LOG_SNAPLEN),
             f.be16(NFTA_LOG_QTHRESHOLD)};
}

Expr reject(const Fields& f) {
  const auto type = f.be32(NFTA_REJECT_TYPE);
  if (type == NFT_REJECT_TCP_RST && f.has(NFTA_REJECT_TYPE)) return Reject{RejectKind::kTcpReset};
  const auto code = f.octets(NFTA_REJECT_ICMP_CODE);
  if (type != NFT_REJECT_ICMPX_UNREACH || code.empty()) return unknown("reject");
  const auto kind = name_of(kRejectCodes, code[0]);
  return kind ? Expr(Reject{*kind}) : Expr(unknown("reject"));
}

Expr nat(const Fields& f) {
  const auto type = f.be32(NFTA_NAT_TYPE), family = f.be32(NFTA_NAT_FAMILY);
  const auto same = [&f](std::size_t low, std::size_t high) {
    return !f.has(high) || f.be32(low) == f.be32(high);
  };
  // A range of addresses or ports is nothing that we write.
  if ((type != NFT_NAT_SNAT && type != NFT_NAT_DNAT) ||
      (family != NFPROTO_IPV4 && family != NFPROTO_IPV6) ||
      !same(NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_ADDR_MAX) ||
      !same(NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_REG_PROTO_MAX)) {
    return unknown("nat");
  }
  Nat nat{.kind = type == NFT_NAT_SNAT ? NatKind::kSource : NatKind::kDestination};
  nat.v6 = family == NFPROTO_IPV6;
  nat.address = reg_of(f, NFTA_NAT_REG_ADDR_MIN);
  nat.port = reg_of(f, NFTA_NAT_REG_PROTO_MIN);
  // The two that the kernel adds by itself say which of the registers are given.
  constexpr std::uint32_t kImplied = 1 | 2;  // NF_NAT_RANGE_MAP_IPS, _PROTO_SPECIFIED
  nat.flags = f.be32(NFTA_NAT_FLAGS) & ~kImplied;
  return nat;
}

Expr masquerade(const Fields& f) {
  if (f.has(NFTA_MASQ_REG_PROTO_MIN)) return unknown("masq");
  return Masquerade{f.be32(NFTA_MASQ_FLAGS)};
}

Expr dynset(const Fields& f) {
  const auto op = name_of(kDynsetOps, f.be32(NFTA_DYNSET_OP));
  const auto from = reg_of(f, NFTA_DYNSET_SREG_KEY);
  if (!op || !from || f.has(NFTA_DYNSET_SREG_DATA)) return unknown("dynset");
  Dynset dynset{.set = std::string(f.text(NFTA_DYNSET_SET_NAME)), .op = *op, .from = *from};
  dynset.timeout = std::chrono::milliseconds(f.be64(NFTA_DYNSET_TIMEOUT));
  bool known = true;
  const auto add = [&](AttributeBytes bytes) {
    CounterDump ignored;
    // Its own kind is no element's: this cannot nest deeper than once.
    const Attributes<3> head(bytes);
    if (head.text(NFTA_EXPR_NAME) == "dynset" || dynset.exprs.size() == 8) {
      known = false;
      return;
    }
    const Expr inner = decode_nft_expr(bytes, ignored);
    if (const auto* counter = std::get_if<Counter>(&inner)) {
      dynset.exprs.emplace_back(*counter);
    } else if (const auto* rate = std::get_if<Limit>(&inner)) {
      dynset.exprs.emplace_back(*rate);
    } else if (const auto* connections = std::get_if<Connlimit>(&inner)) {
      dynset.exprs.emplace_back(*connections);
    } else {
      known = false;
    }
  };
  if (f.has(NFTA_DYNSET_EXPR)) add(f.bytes(NFTA_DYNSET_EXPR));
  for_each_attribute(f.bytes(NFTA_DYNSET_EXPRESSIONS),
                     [&](std::uint16_t, AttributeBytes bytes) { add(bytes); });
  return known ? Expr(std::move(dynset)) : Expr(unknown("dynset"));
}

constexpr std::array<std::pair<std::string_view, Expr (*)(const Fields&)>, 21> kDecoders = {{
    {"meta", meta},
    {"payload", payload},
    {"exthdr", exthdr},
    {"rt", rt},
    {"ct", ct},
    {"numgen", numgen},
    {"cmp", cmp},
    {"range", range},
    {"bitwise", bitwise},
    {"byteorder", byteorder},
    {"lookup", lookup},
    {"immediate", immediate},
    {"limit", limit},
    {"connlimit", connlimit},
    {"objref", objref},
    {"log", log},
    {"reject", reject},
    {"nat", nat},
    {"masq", masquerade},
    {"dynset", dynset},
    {"notrack", [](const Fields&) { return Expr(Notrack{}); }},
}};

}  // namespace

Expr decode_nft_expr(AttributeBytes element, CounterDump& counter) {
  const Attributes<3> head(element);
  const auto name = head.text(NFTA_EXPR_NAME);
  const Fields fields(head.bytes(NFTA_EXPR_DATA));
  if (name == "counter") {
    counter.packets = fields.be64(NFTA_COUNTER_PACKETS);
    counter.bytes = fields.be64(NFTA_COUNTER_BYTES);
    return Counter{};
  }
  for (const auto& [known, decode] : kDecoders) {
    if (known == name) return decode(fields);
  }
  return unknown(name);
}

}  // namespace meshd::netlink
