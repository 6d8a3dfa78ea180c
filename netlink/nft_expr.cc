#include "netlink/nft_expr.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "netlink/nft_numbers.h"
#include "netlink/nft_objects.h"

extern "C" {
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
}

namespace meshd::netlink {
namespace {

constexpr std::uint8_t kRegisters = NFT_REG32_COUNT;
constexpr std::size_t kMaxLogPrefix = 127;   // NF_LOG_PREFIXLEN with the NUL
constexpr std::size_t kMaxElementExprs = 2;  // NFT_SET_EXPR_MAX

// Says what is wrong with one expression; empty when nothing is.
struct Check {
  static std::string reg(Reg at, std::size_t length) {
    if (at.index * std::size_t{4} + length <= kRegisters * std::size_t{4}) return {};
    return fmt::format("{} bytes do not fit at register {}", length, at.index);
  }
  static std::string value(Reg at, const Bytes& bytes) {
    if (bytes.empty() || bytes.size() > kMaxKeyBytes) {
      return fmt::format("a constant has 1 to {} bytes", kMaxKeyBytes);
    }
    return reg(at, bytes.size());
  }
  static std::string name(std::string_view kind, std::string_view text) {
    auto status = check_name(kind, text);
    return status ? std::string() : status.error().what;
  }

  std::string operator()(const MetaLoad& e) const { return reg(e.to, 4); }
  std::string operator()(const MetaSet& e) const { return reg(e.from, 4); }
  std::string operator()(const PayloadLoad& e) const {
    if (e.length == 0 || e.length > kMaxKeyBytes) return "a payload load of no or too many bytes";
    return reg(e.to, e.length);
  }
  std::string operator()(const ExthdrLoad& e) const {
    if (e.length == 0 || e.length > kMaxKeyBytes || e.offset > 255) return "not in a header";
    return reg(e.to, e.length);
  }
  std::string operator()(const SegmentLoad& e) const { return reg(e.to, 2); }
  std::string operator()(const TcpOptionStore& e) const {
    // What the kernel takes: a half or a whole word.
    if ((e.length != 2 && e.length != 4) || e.offset > 255) return "not in an option";
    return reg(e.from, e.length);
  }
  std::string operator()(const CtLoad& e) const {
    return reg(e.to, e.key == CtKey::kOriginalDest6 ? 16 : 4);
  }
  std::string operator()(const NumgenRandom& e) const {
    return e.modulus == 0 ? "numgen modulus 0" : reg(e.to, 4);
  }
  std::string operator()(const Compare& e) const { return value(e.from, e.value); }
  std::string operator()(const Range& e) const {
    return e.first.size() != e.last.size() ? "range ends differ in length" : value(e.from, e.first);
  }
  std::string operator()(const Bitwise& e) const {
    if (e.mask.size() != e.flip.size()) return "mask and flip differ in length";
    return value(e.from, e.mask) + reg(e.to, e.mask.size());
  }
  std::string operator()(const Byteorder& e) const {
    if (e.unit != 2 && e.unit != 4 && e.unit != 8) return "byteorder unit is not 2, 4 or 8";
    return reg(e.from, e.length) + reg(e.to, e.length);
  }
  std::string operator()(const Lookup& e) const { return name("set", e.set); }
  std::string operator()(const InSet& e) const {
    if (e.types.empty() || e.types.size() > kMaxComponents) return "no or too many components";
    if (e.keys.empty() || e.keys.size() > kMaxInlineKeys) return "no or too many keys in a rule";
    if (!std::ranges::is_sorted(e.keys) || std::ranges::adjacent_find(e.keys) != e.keys.end()) {
      return "keys in a rule are not sorted or not unique";
    }
    for (const auto& key : e.keys) {
      if (key.size() != key_length(e.types)) return "a key in a rule has not its type's length";
      if (auto wrong = value(e.from, key); !wrong.empty()) return wrong;
    }
    return {};
  }
  std::string operator()(const Immediate& e) const { return value(e.to, e.value); }
  std::string operator()(const Verdict& e) const {
    const bool jumps = e.kind == VerdictKind::kJump || e.kind == VerdictKind::kGoto;
    if (!jumps) return e.chain.empty() ? "" : "this verdict goes to no chain";
    return name("chain", e.chain);
  }
  std::string operator()(const Counter&) const { return {}; }
  std::string operator()(const CounterRef& e) const { return name("counter", e.name); }
  std::string operator()(const Limit& e) const {
    return e.rate == 0 || e.unit_s == 0 || e.burst == 0 ? "a limit of nothing" : "";
  }
  std::string operator()(const Connlimit&) const { return {}; }
  std::string operator()(const Dynset& e) const {
    if (e.exprs.size() > kMaxElementExprs) return "too many expressions for a set's element";
    if (e.timeout.count() < 0) return "a negative timeout";
    for (const auto& inner : e.exprs) {
      if (auto wrong = std::visit(*this, inner); !wrong.empty()) return wrong;
    }
    return name("set", e.set);
  }
  std::string operator()(const Log& e) const {
    const bool clean = std::ranges::all_of(e.prefix, [](char c) { return c >= ' ' && c <= '~'; });
    return e.prefix.size() > kMaxLogPrefix || !clean ? "a log prefix that cannot be written" : "";
  }
  std::string operator()(const Reject&) const { return {}; }
  std::string operator()(const Nat& e) const {
    return e.address || e.port ? "" : "NAT to neither an address nor a port";
  }
  std::string operator()(const Masquerade&) const { return {}; }
  std::string operator()(const Notrack&) const { return {}; }
  std::string operator()(const UnknownExpr& e) const {
    return "expression " + e.name + " cannot be written";
  }
};

std::uint32_t number(Reg reg) { return NFT_REG32_00 + reg.index; }

void put(nftnl_expr* expr, std::uint16_t attribute, const Bytes& value) {
  nftnl_expr_set(expr, attribute, value.data(), static_cast<std::uint32_t>(value.size()));
}

// Turns a checked expression into libnftnl's. A setter fails only when memory is out.
struct Lower {
  std::uint32_t next_set_id;

  using Out = Object<nftnl_expr>;

  Out operator()(const MetaLoad& e) const {
    auto out = new_expr("meta");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_META_KEY, number_of(kMetaKeys, e.key));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_META_DREG, number(e.to));
    return out;
  }
  Out operator()(const MetaSet& e) const {
    auto out = new_expr("meta");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_META_KEY, number_of(kMetaKeys, e.key));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_META_SREG, number(e.from));
    return out;
  }
  Out operator()(const PayloadLoad& e) const {
    auto out = new_expr("payload");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_PAYLOAD_BASE, number_of(kPayloadBases, e.base));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_PAYLOAD_OFFSET, e.offset);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_PAYLOAD_LEN, e.length);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_PAYLOAD_DREG, number(e.to));
    return out;
  }
  Out operator()(const ExthdrLoad& e) const {
    auto out = new_expr("exthdr");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_EXTHDR_DREG, number(e.to));
    nftnl_expr_set_u8(out.get(), NFTNL_EXPR_EXTHDR_TYPE, e.header);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_EXTHDR_OFFSET, e.offset);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_EXTHDR_LEN, e.length);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_EXTHDR_OP, NFT_EXTHDR_OP_IPV6);
    if (e.present) {
      nftnl_expr_set_u32(out.get(), NFTNL_EXPR_EXTHDR_FLAGS, NFT_EXTHDR_F_PRESENT);
    }
    return out;
  }
  Out operator()(const SegmentLoad& e) const {
    auto out = new_expr("rt");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_RT_KEY, NFT_RT_TCPMSS);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_RT_DREG, number(e.to));
    return out;
  }
  Out operator()(const TcpOptionStore& e) const {
    auto out = new_expr("exthdr");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_EXTHDR_SREG, number(e.from));
    nftnl_expr_set_u8(out.get(), NFTNL_EXPR_EXTHDR_TYPE, e.option);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_EXTHDR_OFFSET, e.offset);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_EXTHDR_LEN, e.length);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT);
    return out;
  }
  Out operator()(const CtLoad& e) const {
    auto out = new_expr("ct");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_CT_KEY, number_of(kCtKeys, e.key));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_CT_DREG, number(e.to));
    if (of_original(e.key)) nftnl_expr_set_u8(out.get(), NFTNL_EXPR_CT_DIR, kOriginalDirection);
    return out;
  }
  Out operator()(const NumgenRandom& e) const {
    auto out = new_expr("numgen");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_NG_DREG, number(e.to));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_NG_MODULUS, e.modulus);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_NG_TYPE, NFT_NG_RANDOM);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_NG_OFFSET, e.offset);
    return out;
  }
  Out operator()(const Compare& e) const {
    auto out = new_expr("cmp");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_CMP_SREG, number(e.from));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_CMP_OP, number_of(kCompareOps, e.op));
    put(out.get(), NFTNL_EXPR_CMP_DATA, e.value);
    return out;
  }
  Out operator()(const Range& e) const {
    auto out = new_expr("range");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_RANGE_SREG, number(e.from));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_RANGE_OP, e.inverted ? NFT_RANGE_NEQ : NFT_RANGE_EQ);
    put(out.get(), NFTNL_EXPR_RANGE_FROM_DATA, e.first);
    put(out.get(), NFTNL_EXPR_RANGE_TO_DATA, e.last);
    return out;
  }
  Out operator()(const Bitwise& e) const {
    auto out = new_expr("bitwise");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_BITWISE_SREG, number(e.from));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_BITWISE_DREG, number(e.to));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_BITWISE_LEN,
                       static_cast<std::uint32_t>(e.mask.size()));
    put(out.get(), NFTNL_EXPR_BITWISE_MASK, e.mask);
    put(out.get(), NFTNL_EXPR_BITWISE_XOR, e.flip);
    return out;
  }
  Out operator()(const Byteorder& e) const {
    auto out = new_expr("byteorder");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_BYTEORDER_SREG, number(e.from));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_BYTEORDER_DREG, number(e.to));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_BYTEORDER_OP,
                       e.to_network ? NFT_BYTEORDER_HTON : NFT_BYTEORDER_NTOH);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_BYTEORDER_LEN, e.length);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_BYTEORDER_SIZE, e.unit);
    return out;
  }
  Out operator()(const Lookup& e) const {
    auto out = new_expr("lookup");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LOOKUP_SREG, number(e.from));
    nftnl_expr_set_str(out.get(), NFTNL_EXPR_LOOKUP_SET, e.set.c_str());
    if (e.to) nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LOOKUP_DREG, number(*e.to));
    if (e.verdict) nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
    if (e.inverted) nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
    return out;
  }
  Out operator()(const InSet& e) {
    auto out = new_expr("lookup");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LOOKUP_SREG, number(e.from));
    nftnl_expr_set_str(out.get(), NFTNL_EXPR_LOOKUP_SET, "__set%d");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LOOKUP_SET_ID, next_set_id++);
    if (e.inverted) nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
    return out;
  }
  Out operator()(const Immediate& e) const {
    auto out = new_expr("immediate");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_IMM_DREG, number(e.to));
    put(out.get(), NFTNL_EXPR_IMM_DATA, e.value);
    return out;
  }
  Out operator()(const Verdict& e) const {
    auto out = new_expr("immediate");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_IMM_VERDICT, number_of(kVerdicts, e.kind));
    if (!e.chain.empty()) nftnl_expr_set_str(out.get(), NFTNL_EXPR_IMM_CHAIN, e.chain.c_str());
    return out;
  }
  Out operator()(const Counter&) const { return new_expr("counter"); }
  Out operator()(const CounterRef& e) const {
    auto out = new_expr("objref");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
    nftnl_expr_set_str(out.get(), NFTNL_EXPR_OBJREF_IMM_NAME, e.name.c_str());
    return out;
  }
  Out operator()(const Limit& e) const {
    auto out = new_expr("limit");
    nftnl_expr_set_u64(out.get(), NFTNL_EXPR_LIMIT_RATE, e.rate);
    nftnl_expr_set_u64(out.get(), NFTNL_EXPR_LIMIT_UNIT, e.unit_s);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LIMIT_BURST, e.burst);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LIMIT_FLAGS, e.over ? +NFT_LIMIT_F_INV : 0);
    return out;
  }
  Out operator()(const Connlimit& e) const {
    auto out = new_expr("connlimit");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_CONNLIMIT_COUNT, e.count);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_CONNLIMIT_FLAGS, e.over ? +NFT_CONNLIMIT_F_INV : 0);
    return out;
  }
  Out operator()(const Dynset& e) {
    auto out = new_expr("dynset");
    nftnl_expr_set_str(out.get(), NFTNL_EXPR_DYNSET_SET_NAME, e.set.c_str());
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_DYNSET_OP, number_of(kDynsetOps, e.op));
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_DYNSET_SREG_KEY, number(e.from));
    if (e.timeout.count() > 0) {
      nftnl_expr_set_u64(out.get(), NFTNL_EXPR_DYNSET_TIMEOUT,
                         static_cast<std::uint64_t>(e.timeout.count()));
    }
    if (e.exprs.size() > 1) {
      nftnl_expr_set_u32(out.get(), NFTNL_EXPR_DYNSET_FLAGS, NFT_DYNSET_F_EXPR);
    }
    for (const auto& inner : e.exprs) {
      nftnl_expr* child = std::visit(*this, inner).release();  // `out` frees it from here on
      if (e.exprs.size() == 1) {
        nftnl_expr_set(out.get(), NFTNL_EXPR_DYNSET_EXPR, child, 0);
      } else {
        nftnl_expr_add_expr(out.get(), NFTNL_EXPR_DYNSET_EXPRESSIONS, child);
      }
    }
    return out;
  }
  Out operator()(const Log& e) const {
    auto out = new_expr("log");
    nftnl_expr_set_u16(out.get(), NFTNL_EXPR_LOG_GROUP, e.group);
    if (!e.prefix.empty()) nftnl_expr_set_str(out.get(), NFTNL_EXPR_LOG_PREFIX, e.prefix.c_str());
    if (e.snaplen > 0) nftnl_expr_set_u32(out.get(), NFTNL_EXPR_LOG_SNAPLEN, e.snaplen);
    if (e.queue_threshold > 0) {
      nftnl_expr_set_u16(out.get(), NFTNL_EXPR_LOG_QTHRESHOLD, e.queue_threshold);
    }
    return out;
  }
  Out operator()(const Reject& e) const {
    auto out = new_expr("reject");
    const bool reset = e.kind == RejectKind::kTcpReset;
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_REJECT_TYPE,
                       reset ? NFT_REJECT_TCP_RST : NFT_REJECT_ICMPX_UNREACH);
    if (!reset) {
      nftnl_expr_set_u8(out.get(), NFTNL_EXPR_REJECT_CODE,
                        static_cast<std::uint8_t>(number_of(kRejectCodes, e.kind)));
    }
    return out;
  }
  Out operator()(const Nat& e) const {
    auto out = new_expr("nat");
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_NAT_TYPE,
                       e.kind == NatKind::kSource ? NFT_NAT_SNAT : NFT_NAT_DNAT);
    nftnl_expr_set_u32(out.get(), NFTNL_EXPR_NAT_FAMILY, e.v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
    if (e.address) nftnl_expr_set_u32(out.get(), NFTNL_EXPR_NAT_REG_ADDR_MIN, number(*e.address));
    if (e.port) nftnl_expr_set_u32(out.get(), NFTNL_EXPR_NAT_REG_PROTO_MIN, number(*e.port));
    if (e.flags != 0) nftnl_expr_set_u32(out.get(), NFTNL_EXPR_NAT_FLAGS, e.flags);
    return out;
  }
  Out operator()(const Masquerade& e) const {
    auto out = new_expr("masq");
    if (e.flags != 0) nftnl_expr_set_u32(out.get(), NFTNL_EXPR_MASQ_FLAGS, e.flags);
    return out;
  }
  Out operator()(const Notrack&) const { return new_expr("notrack"); }
  Out operator()(const UnknownExpr& e) const { return new_expr(e.name.c_str()); }
};

}  // namespace

Status check_exprs(const Exprs& exprs) {
  if (exprs.size() > kMaxExprs) {
    return fail(ErrorCode::kInvalid, fmt::format("a rule has at most {} expressions", kMaxExprs));
  }
  for (std::size_t i = 0; i < exprs.size(); ++i) {
    if (auto wrong = std::visit(Check{}, exprs[i]); !wrong.empty()) {
      return fail(ErrorCode::kInvalid, fmt::format("expression {}: {}", i, wrong));
    }
  }
  return {};
}

void add_exprs(nftnl_rule* rule, const Exprs& exprs, std::uint32_t first_set_id) {
  Lower lower{first_set_id};
  for (const auto& expr : exprs) nftnl_rule_add_expr(rule, std::visit(lower, expr).release());
}

std::string exprs_text(const Exprs& exprs) {
  std::string text;
  for (const auto& expr : exprs) {
    if (const auto* unknown = std::get_if<UnknownExpr>(&expr)) {
      text += "[ unknown " + unknown->name + " ]\n";
      continue;
    }
    const auto lowered = std::visit(Lower{1}, expr);
    char buffer[1024];  // the longest: two constants of 64 bytes, in words of ten characters
    nftnl_expr_snprintf(buffer, sizeof buffer, lowered.get(), NFTNL_OUTPUT_DEFAULT, 0);
    text += fmt::format("[ {} {}]\n", nftnl_expr_get_str(lowered.get(), NFTNL_EXPR_NAME), buffer);
    if (const auto* keys = std::get_if<InSet>(&expr)) {
      for (const auto& key : keys->keys) text += "  { " + key_text(key, keys->types) + " }\n";
    }
  }
  return text;
}

Bytes host_bytes(std::uint32_t value) {
  Bytes bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

Bytes ifname_bytes(std::string_view name) {
  Bytes bytes(16);  // IFNAMSIZ
  name.copy(reinterpret_cast<char*>(bytes.data()), bytes.size() - 1);
  return bytes;
}

}  // namespace meshd::netlink
