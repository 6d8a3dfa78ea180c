// The expressions of an nftables rule as values: matches, look-ups and statements. A rule
// is a list of them; the kernel runs them in order until one breaks off.
//
// Invariants: two rules do the same iff their lists are ==: what the kernel adds (numbers
//             of anonymous sets, counter values, internal NAT flags) is not kept in them.
// Units:      constants are bytes as the register holds them: network order for packet
//             fields, host order for marks, uids, groups and indexes (see meta_bytes()).
// Source:     linux/netfilter/nf_tables.h; libnftnl 1.2.4.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "netlink/nft_spec.h"

namespace meshd::netlink {

// One of the 16 registers of 4 bytes; a longer value runs on into the following ones, so
// the components of a concatenation are loaded into neighbouring registers.
struct Reg {
  std::uint8_t index = 0;  // 0..15
  auto operator<=>(const Reg&) const = default;
};

enum class MetaKey : std::uint8_t {
  kProtocol,
  kNfproto,
  kL4proto,
  kMark,
  kIif,
  kOif,
  kIifname,
  kOifname,
  kIifgroup,
  kOifgroup,
  kPkttype,
  kSkuid,
  kSkgid,
  kLength,
};
struct MetaLoad {
  MetaKey key{};
  Reg to;
  auto operator<=>(const MetaLoad&) const = default;
};
struct MetaSet {
  MetaKey key{};
  Reg from;
  auto operator<=>(const MetaSet&) const = default;
};

enum class PayloadBase : std::uint8_t { kLink, kNetwork, kTransport };
struct PayloadLoad {
  PayloadBase base{};
  std::uint32_t offset = 0, length = 0;
  Reg to;
  auto operator<=>(const PayloadLoad&) const = default;
};
// An IPv6 extension header: a field of it, or (present) one byte, 1 when it is there.
struct ExthdrLoad {
  std::uint8_t header = 0;  // IANA protocol number; 44: fragment
  std::uint32_t offset = 0, length = 1;
  bool present = false;
  Reg to;
  auto operator<=>(const ExthdrLoad&) const = default;
};
enum class CtKey : std::uint8_t { kState, kDirection, kStatus, kMark };
struct CtLoad {
  CtKey key{};
  Reg to;
  auto operator<=>(const CtLoad&) const = default;
};
// A number in [offset, offset + modulus), new for each packet; host order.
struct NumgenRandom {
  Reg to;
  std::uint32_t modulus = 1, offset = 0;
  auto operator<=>(const NumgenRandom&) const = default;
};

enum class CompareOp : std::uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual
};
struct Compare {
  Reg from;
  CompareOp op{};
  Bytes value;
  auto operator<=>(const Compare&) const = default;
};
struct Range {
  Reg from;
  bool inverted = false;
  Bytes first, last;  // inclusive; compared as big-endian numbers
  auto operator<=>(const Range&) const = default;
};
struct Bitwise {  // to = (from & mask) ^ flip
  Reg from, to;
  Bytes mask, flip;  // of one length
  auto operator<=>(const Bitwise&) const = default;
};
struct Byteorder {  // converts `length` bytes in units of `unit` (2, 4 or 8)
  Reg from, to;
  bool to_network = true;
  std::uint32_t length = 4, unit = 4;
  auto operator<=>(const Byteorder&) const = default;
};
// Goes on when the key at `from` is (inverted: is not) in the named set; with `to`, the
// map's value is put there; a verdict map acts at once.
struct Lookup {
  std::string set;
  Reg from;
  std::optional<Reg> to;
  bool verdict = false;
  bool inverted = false;
  auto operator<=>(const Lookup&) const = default;
};
// The same with the keys written in the rule: `{ tcp, udp }`. Of one or more components.
struct InSet {
  Reg from;
  std::vector<KeyType> types;
  std::vector<Bytes> keys;  // sorted and unique
  bool inverted = false;
  auto operator<=>(const InSet&) const = default;
};

struct Immediate {
  Reg to;
  Bytes value;
  auto operator<=>(const Immediate&) const = default;
};
enum class VerdictKind : std::uint8_t { kAccept, kDrop, kJump, kGoto, kReturn, kContinue };
struct Verdict {
  VerdictKind kind{};
  std::string chain;  // of kJump and kGoto
  auto operator<=>(const Verdict&) const = default;
};

struct Counter {
  auto operator<=>(const Counter&) const = default;
};
struct CounterRef {
  std::string name;
  auto operator<=>(const CounterRef&) const = default;
};
struct Limit {  // matches while below the rate; `over`: while above
  std::uint64_t rate = 1;
  std::uint64_t unit_s = 1;  // per second, 60: per minute
  std::uint32_t burst = 5;   // packets, never 0 (the kernel would make it 5)
  bool over = false;
  auto operator<=>(const Limit&) const = default;
};
struct Connlimit {  // matches while at most `count` connections; `over`: while more
  std::uint32_t count = 0;
  bool over = false;
  auto operator<=>(const Connlimit&) const = default;
};
// Puts the key at `from` into a dynamic set and runs the expressions kept with it.
using ElementExpr = std::variant<Counter, Limit, Connlimit>;
enum class DynsetOp : std::uint8_t { kAdd, kUpdate, kDelete };
struct Dynset {
  std::string set;
  DynsetOp op{};
  Reg from;
  std::chrono::milliseconds timeout{0};  // 0: the set's default
  std::vector<ElementExpr> exprs;
  auto operator<=>(const Dynset&) const = default;
};

struct Log {  // to an NFLOG group
  std::uint16_t group = 0;
  std::string prefix;  // at most 127 bytes
  std::uint32_t snaplen = 0;
  std::uint16_t queue_threshold = 0;
  auto operator<=>(const Log&) const = default;
};
enum class RejectKind : std::uint8_t {
  kTcpReset,
  kPortUnreachable,
  kAdminProhibited,
  kHostUnreachable,
  kNoRoute,  // icmpx
};
struct Reject {
  RejectKind kind{};
  auto operator<=>(const Reject&) const = default;
};

enum class NatKind : std::uint8_t { kSource, kDestination };
inline constexpr std::uint32_t kNatRandom = 4, kNatPersistent = 8, kNatFullyRandom = 16;
struct Nat {
  NatKind kind{};
  bool v6 = false;
  std::optional<Reg> address, port;
  std::uint32_t flags = 0;
  auto operator<=>(const Nat&) const = default;
};
struct Masquerade {
  std::uint32_t flags = 0;
  auto operator<=>(const Masquerade&) const = default;
};
struct Notrack {
  auto operator<=>(const Notrack&) const = default;
};
// Something read from the kernel that is none of the above; it cannot be written.
struct UnknownExpr {
  std::string name;
  auto operator<=>(const UnknownExpr&) const = default;
};

using Expr =
    std::variant<MetaLoad, MetaSet, PayloadLoad, ExthdrLoad, CtLoad, NumgenRandom, Compare, Range,
                 Bitwise, Byteorder, Lookup, InSet, Immediate, Verdict, Counter, CounterRef, Limit,
                 Connlimit, Dynset, Log, Reject, Nat, Masquerade, Notrack, UnknownExpr>;
using Exprs = std::vector<Expr>;

// Longest rule; the longest of ours has about 20 expressions.
inline constexpr std::size_t kMaxExprs = 64;
// Keys written into one rule; a bigger list belongs into a named set.
inline constexpr std::size_t kMaxInlineKeys = 256;

[[nodiscard]] Status check_exprs(const Exprs& exprs);
// libnftnl's text of the byte code, one expression after another: for golden tests and
// for messages that say how a rule differs.
[[nodiscard]] std::string exprs_text(const Exprs& exprs);

// A constant for a register that holds a host-order number of 32 bits.
[[nodiscard]] Bytes host_bytes(std::uint32_t value);
// An interface name as the kernel compares it: 16 bytes, zero-padded.
[[nodiscard]] Bytes ifname_bytes(std::string_view name);

}  // namespace meshd::netlink
