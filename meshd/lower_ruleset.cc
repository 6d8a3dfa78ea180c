#include "meshd/lower_ruleset.h"

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <utility>
#include <vector>

namespace meshd {
namespace {

using netlink::Bytes;
using netlink::CtKey;
using netlink::Expr;
using netlink::Exprs;
using netlink::KeyType;
using netlink::MetaKey;
using netlink::PayloadBase;
using netlink::Reg;
using policy::Field;

// Where a field's bytes come from.
struct Source {
  enum class Kind : std::uint8_t { kMeta, kCt, kPayload, kRandom } kind;
  MetaKey meta{};
  PayloadBase base{};
  std::uint32_t offset = 0;
  std::uint32_t mask = 0;  // of a field that is part of its bytes; 0: all of them
  CtKey ct{};
};
constexpr Source meta(MetaKey key) { return {Source::Kind::kMeta, key}; }
constexpr Source ct(CtKey key) { return {.kind = Source::Kind::kCt, .ct = key}; }
constexpr Source link(std::uint32_t offset) {
  return {Source::Kind::kPayload, {}, PayloadBase::kLink, offset};
}
constexpr Source network(std::uint32_t offset, std::uint32_t mask = 0) {
  return {Source::Kind::kPayload, {}, PayloadBase::kNetwork, offset, mask};
}
constexpr Source transport(std::uint32_t offset, std::uint32_t mask = 0) {
  return {Source::Kind::kPayload, {}, PayloadBase::kTransport, offset, mask};
}

constexpr std::uint32_t kBlockMask = 0x10000 - policy::kBlock;

// The frame within a packet of VXLAN, from the UDP header on.
constexpr std::uint32_t kVxlanHeader = 8, kInnerFrame = kVxlanHeader + 8,
                        kInnerPacket = kInnerFrame + 14;
// RFC 9293 3.1, and the option of 3.7.1.
constexpr std::uint32_t kTcpFlags = 13, kSynAndRst = 0x06;
constexpr std::uint8_t kMaxSegment = 2;

// Offsets: RFC 791 3.1, RFC 8200 3, RFC 9293 3.1, RFC 792, RFC 4443 2.1, RFC 7348 5.
Source source_of(Field field) {
  switch (field) {
    case Field::kIif:
      return meta(MetaKey::kIif);
    case Field::kIifname:
      return meta(MetaKey::kIifname);
    case Field::kOifname:
      return meta(MetaKey::kOifname);
    case Field::kNfproto:
      return meta(MetaKey::kNfproto);
    case Field::kIifgroup:
      return meta(MetaKey::kIifgroup);
    case Field::kOifgroup:
      return meta(MetaKey::kOifgroup);
    case Field::kPkttype:
      return meta(MetaKey::kPkttype);
    case Field::kL4proto:
      return meta(MetaKey::kL4proto);
    case Field::kSkuid:
      return meta(MetaKey::kSkuid);
    case Field::kEtherSource:
      return link(6);
    case Field::kIp4HeaderWords:
      return network(0, 0x0f);
    case Field::kIp4Fragment:
      return network(6, 0x3fff);  // more-fragments and the offset, not don't-fragment
    case Field::kIp4Protocol:
      return network(9);
    case Field::kIp4Source:
      return network(12);
    case Field::kIp4Dest:
      return network(16);
    case Field::kIp6NextHeader:
      return network(6);
    case Field::kIp6Source:
      return network(8);
    case Field::kIp6Dest:
      return network(24);
    case Field::kSourcePort:
    case Field::kIcmpType:
    case Field::kIcmp6Type:
      return transport(0);
    case Field::kIcmpCode:
    case Field::kIcmp6Code:
      return transport(1);
    case Field::kDestPort:
      return transport(2);
    case Field::kSourceBlock:
      return transport(0, kBlockMask);
    case Field::kDestBlock:
      return transport(2, kBlockMask);
    case Field::kQuoted4Protocol:
      return transport(8 + 9);
    case Field::kQuoted4DestPort:
      return transport(8 + 20 + 2);
    case Field::kQuoted6NextHeader:
      return transport(8 + 6);
    case Field::kQuoted6DestPort:
      return transport(8 + 40 + 2);
    case Field::kTunnelNumber:
      return transport(kVxlanHeader + 4);
    case Field::kInnerEthertype:
      return transport(kInnerFrame + 12);
    case Field::kInner4Source:
      return transport(kInnerPacket + 12);
    case Field::kInner6Source:
      return transport(kInnerPacket + 8);
    case Field::kTcpSynRst:
      return transport(kTcpFlags, kSynAndRst);
    case Field::kCtDirection:
      return ct(CtKey::kDirection);
    case Field::kCtOriginal4Dest:
      return ct(CtKey::kOriginalDest4);
    case Field::kCtOriginal6Dest:
      return ct(CtKey::kOriginalDest6);
    case Field::kRandomSlot:
      break;
  }
  return {Source::Kind::kRandom};
}

Bytes network_bytes(std::uint32_t value, std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = size; i-- > 0; value >>= 8) bytes[i] = static_cast<std::uint8_t>(value);
  return bytes;
}

Bytes host_bytes(std::uint32_t value, std::size_t size) {
  auto bytes = netlink::host_bytes(value);
  bytes.resize(size);  // of one byte: little-endian machines only, as the static_assert says
  return bytes;
}
static_assert(std::endian::native == std::endian::little);

Bytes value_bytes(Field field, const policy::Value& value) {
  if (const auto* address = std::get_if<IpAddress>(&value)) {
    return {address->bytes().begin(), address->bytes().end()};
  }
  const auto& info = policy::field_info(field);
  const auto number = std::get<std::uint32_t>(value);
  return info.host_order ? host_bytes(number, info.size) : network_bytes(number, info.size);
}

constexpr std::uint32_t kIpv4Family = 2, kIpv6Family = 10;  // NFPROTO_IPV4, NFPROTO_IPV6
constexpr std::uint32_t kIpv4Ethertype = 0x0800, kIpv6Ethertype = 0x86dd;
constexpr std::uint32_t kEthernet = 1;               // ARPHRD_ETHER
constexpr std::uint32_t kStatusConfirmed = 1U << 3;  // IPS_CONFIRMED
constexpr std::uint32_t kStatusDnat = 1U << 5;       // IPS_DST_NAT

// Writes one rule.
class RuleWriter {
 public:
  Exprs take() && { return std::move(exprs_); }

  void operator()(const policy::Match& part) {
    const std::array fields = {part.field};
    load(fields, {});
    const auto op = part.negated ? netlink::CompareOp::kNotEqual : netlink::CompareOp::kEqual;
    std::vector<Bytes> keys;
    for (const auto& value : part.values) keys.push_back(value_bytes(part.field, value));
    if (keys.size() == 1) {
      if (part.field == Field::kL4proto && !part.negated) transport_ = keys[0][0];
      exprs_.push_back(netlink::Compare{{}, op, std::move(keys[0])});
      return;
    }
    std::ranges::sort(keys);
    exprs_.push_back(netlink::InSet{{}, {inline_type(part.field)}, std::move(keys), part.negated});
  }
  void operator()(const policy::CtState& part) { any_bit(CtKey::kState, part.any_of); }
  void operator()(const policy::CtConfirmed&) { any_bit(CtKey::kStatus, kStatusConfirmed); }
  void operator()(const policy::CtTranslated&) { any_bit(CtKey::kStatus, kStatusDnat); }
  void operator()(const policy::InSet& part) {
    load(part.key, {});
    exprs_.push_back(netlink::Lookup{.set = part.set, .from = {}, .inverted = part.negated});
  }
  // Map result -> first component of the next key. nft 1.0.6, and with it everything that
  // lists rulesets by its library, aborts on a key that begins with a map's result, whose
  // length it does not know. So the map's value is the profile twice: the second falls into
  // a register that nft believes to hold the mark loaded before, and the key begins there.
  // What is listed is `meta mark . ip saddr @src4`; no mark is ever compared. A row likewise.
  void operator()(const policy::InProfile& part) {
    // Before it, room for the row: twice, as its map holds it.
    const Reg row_twice{0}, row{1}, owner{static_cast<std::uint8_t>(part.by_row ? 2 : 0)};
    load(part.owner, owner);
    // Behind the owner's key, which may take up seven registers.
    const Reg twice{8}, profile{9};
    exprs_.push_back(netlink::MetaLoad{MetaKey::kMark, profile});
    exprs_.push_back(netlink::Lookup{.set = part.map, .from = owner, .to = twice});
    // Interval sets are kept in network order.
    const auto set = raise_set(part.set);
    if (set && policy::set_info(*set).interval) {
      exprs_.push_back(netlink::Byteorder{profile, profile, true, 4, 4});
    }
    load(part.rest, Reg{10});
    if (part.by_row) {
      exprs_.push_back(netlink::MetaLoad{MetaKey::kMark, row});
      exprs_.push_back(netlink::Lookup{.set = part.set, .from = profile, .to = row_twice});
    } else {
      exprs_.push_back(netlink::Lookup{.set = part.set, .from = profile});
    }
    if (part.counts.empty()) return;
    exprs_.push_back(netlink::Lookup{.set = part.counts, .from = part.by_row ? row : owner});
  }
  void operator()(const policy::Meter& part) {
    load(std::array{part.key}, {});
    exprs_.push_back(
        netlink::Dynset{.set = part.set,
                        .op = netlink::DynsetOp::kUpdate,
                        .from = {},
                        .exprs = {netlink::Limit{part.rate, 1, part.burst, part.over}}});
  }
  void operator()(const policy::ConnectionsOver& part) {
    load(std::array{part.key}, {});
    exprs_.push_back(netlink::Dynset{.set = part.set,
                                     .op = netlink::DynsetOp::kAdd,
                                     .from = {},
                                     .exprs = {netlink::Connlimit{part.limit, true}}});
  }
  void operator()(const policy::RateLimit& part) {
    exprs_.push_back(netlink::Limit{part.rate, 1, part.burst, false});
  }
  void operator()(const policy::ClampSegments&) {
    exprs_.push_back(netlink::SegmentLoad{});
    exprs_.push_back(netlink::Byteorder{{}, {}, true, 2, 2});
    // Behind the option's kind and length.
    exprs_.push_back(netlink::TcpOptionStore{.option = kMaxSegment, .offset = 2, .length = 2});
  }
  void operator()(const policy::Count& part) {
    exprs_.push_back(netlink::CounterRef{part.counter});
  }
  void operator()(const policy::LogTo& part) {
    exprs_.push_back(netlink::Log{part.group, part.prefix, part.snaplen});
  }
  void operator()(const policy::Notrack&) { exprs_.push_back(netlink::Notrack{}); }
  void operator()(const policy::Verdict& part) {
    constexpr std::array kKinds = {netlink::VerdictKind::kAccept, netlink::VerdictKind::kDrop,
                                   netlink::VerdictKind::kJump, netlink::VerdictKind::kGoto};
    exprs_.push_back(netlink::Verdict{kKinds[static_cast<std::size_t>(part.kind)], part.chain});
  }
  void operator()(const policy::Reject& part) {
    exprs_.push_back(netlink::Reject{part.kind == policy::RejectKind::kTcpReset
                                         ? netlink::RejectKind::kTcpReset
                                         : netlink::RejectKind::kPortUnreachable});
  }
  void operator()(const policy::TranslateTo& part) {
    const auto bytes = part.address.bytes();
    exprs_.push_back(netlink::Immediate{{}, {bytes.begin(), bytes.end()}});
    exprs_.push_back(netlink::Nat{
        .kind = part.source ? netlink::NatKind::kSource : netlink::NatKind::kDestination,
        .v6 = part.address.is_v6(),
        .address = Reg{}});
  }
  void operator()(const policy::TranslateByMap& part) {
    load(part.key, {});
    exprs_.push_back(netlink::Lookup{.set = part.map, .from = {}, .to = Reg{}});
    netlink::Nat nat{
        .kind = netlink::NatKind::kDestination, .v6 = part.family == Family::kV6, .address = Reg{}};
    if (part.with_port) nat.port = Reg{static_cast<std::uint8_t>(nat.v6 ? 4 : 1)};
    exprs_.push_back(nat);
  }
  void operator()(const policy::Masquerade&) {
    exprs_.push_back(netlink::Masquerade{netlink::kNatFullyRandom});
  }

 private:
  static KeyType inline_type(Field field) {
    switch (field) {
      case Field::kIcmpType:
        return KeyType::kIcmpType;
      case Field::kIcmp6Type:
        return KeyType::kIcmp6Type;
      default:
        return lower_component(policy::field_info(field).kind);
    }
  }

  void compare(Expr load, Bytes value) {
    exprs_.push_back(std::move(load));
    exprs_.push_back(netlink::Compare{{}, netlink::CompareOp::kEqual, std::move(value)});
  }
  void any_bit(CtKey key, std::uint32_t bits) {
    exprs_.push_back(netlink::CtLoad{key, {}});
    exprs_.push_back(netlink::Bitwise{{}, {}, netlink::host_bytes(bits), Bytes(4)});
    exprs_.push_back(netlink::Compare{{}, netlink::CompareOp::kNotEqual, Bytes(4)});
  }

  // What must be known of a packet before these fields mean anything.
  void require(std::span<const Field> fields) {
    const bool ethernet = std::ranges::find(fields, Field::kEtherSource) != fields.end();
    for (const Field field : fields) {
      const auto& info = policy::field_info(field);
      if (info.ip != 0 && ip_ != info.ip) {
        ip_ = info.ip;
        const bool v4 = info.ip == 4;
        if (ethernet) {
          // The same said by the frame, where one is looked into anyway.
          compare(netlink::MetaLoad{MetaKey::kIiftype, {}}, host_bytes(kEthernet, 2));
          compare(netlink::PayloadLoad{PayloadBase::kLink, 12, 2, {}},
                  network_bytes(v4 ? kIpv4Ethertype : kIpv6Ethertype, 2));
        } else {
          compare(netlink::MetaLoad{MetaKey::kNfproto, {}},
                  host_bytes(v4 ? kIpv4Family : kIpv6Family, 1));
        }
      }
      if (info.transport != 0 && transport_ != info.transport) {
        transport_ = info.transport;
        compare(netlink::MetaLoad{MetaKey::kL4proto, {}}, Bytes{info.transport});
      }
    }
  }

  // Puts the fields into neighbouring registers from `at` on.
  void load(std::span<const Field> fields, Reg at) {
    require(fields);
    for (const Field field : fields) {
      load_one(field, at);
      const auto words = (policy::field_info(field).size + 3) / 4;
      at.index = static_cast<std::uint8_t>(at.index + words);
    }
  }
  void load_one(Field field, Reg at) {
    const Source source = source_of(field);
    const std::size_t size = policy::field_info(field).size;
    switch (source.kind) {
      case Source::Kind::kMeta:
        exprs_.push_back(netlink::MetaLoad{source.meta, at});
        break;
      case Source::Kind::kCt:
        exprs_.push_back(netlink::CtLoad{source.ct, at});
        break;
      case Source::Kind::kRandom:
        exprs_.push_back(netlink::NumgenRandom{at, policy::kSlots, 0});
        break;
      case Source::Kind::kPayload:
        exprs_.push_back(
            netlink::PayloadLoad{source.base, source.offset, static_cast<std::uint32_t>(size), at});
        break;
    }
    if (source.mask != 0) {
      exprs_.push_back(netlink::Bitwise{at, at, network_bytes(source.mask, size), Bytes(size)});
    }
  }

  Exprs exprs_;
  std::uint8_t ip_ = 0, transport_ = 0;  // what the rule has compared so far
};

}  // namespace

netlink::Exprs lower_rule(const policy::Rule& rule) {
  RuleWriter writer;
  for (const auto& part : rule) std::visit(writer, part);
  return std::move(writer).take();
}

netlink::ChainSpec lower_chain(const policy::Chain& chain) {
  constexpr std::array kHooks = {netlink::Hook::kPrerouting, netlink::Hook::kInput,
                                 netlink::Hook::kForward, netlink::Hook::kOutput,
                                 netlink::Hook::kPostrouting};
  netlink::ChainSpec spec{.name = chain.name};
  if (chain.base) {
    spec.base =
        netlink::BaseChain{chain.base->nat ? netlink::ChainType::kNat : netlink::ChainType::kFilter,
                           kHooks[static_cast<std::size_t>(chain.base->hook)], chain.base->priority,
                           netlink::Policy::kAccept};
  }
  return spec;
}

}  // namespace meshd
