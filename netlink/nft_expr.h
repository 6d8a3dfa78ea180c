// The expressions of an nftables rule as values: matches, look-ups and statements. A rule
// is a list of them; the kernel runs them in order until one breaks off.
//
// Invariants: two rules do the same iff their lists are ==: what the kernel adds (numbers
//             of anonymous sets, counter values, internal NAT flags) is not kept in them.
// Units:      constants are bytes as the register holds them: network order for packet
//             fields, host order for marks, uids, groups and indexes (see host_bytes()).
// Source:     linux/netfilter/nf_tables.h; libnftnl 1.2.4.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "netlink/nft_match.h"
#include "netlink/nft_spec.h"

namespace meshd::netlink {

struct Immediate {
  Reg to = {};
  Bytes value = {};
  auto operator<=>(const Immediate&) const = default;
};
enum class VerdictKind : std::uint8_t { kAccept, kDrop, kJump, kGoto, kReturn, kContinue };
struct Verdict {
  VerdictKind kind{};
  std::string chain = {};  // of kJump and kGoto
  auto operator<=>(const Verdict&) const = default;
};

struct Counter {
  auto operator<=>(const Counter&) const = default;
};
struct CounterRef {
  std::string name = {};
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
  std::string set = {};
  DynsetOp op{};
  Reg from = {};
  std::chrono::milliseconds timeout{0};  // 0: the set's default
  std::vector<ElementExpr> exprs = {};
  auto operator<=>(const Dynset&) const = default;
};

struct Log {  // to an NFLOG group
  std::uint16_t group = 0;
  std::string prefix = {};  // at most 127 bytes
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
  std::optional<Reg> address = {}, port = {};
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
  std::string name = {};
  auto operator<=>(const UnknownExpr&) const = default;
};

using Expr = std::variant<MetaLoad, MetaSet, PayloadLoad, ExthdrLoad, SegmentLoad, TcpOptionStore,
                          CtLoad, NumgenRandom, Compare, Range, Bitwise, Byteorder, Lookup, InSet,
                          Immediate, Verdict, Counter, CounterRef, Limit, Connlimit, Dynset, Log,
                          Reject, Nat, Masquerade, Notrack, UnknownExpr>;
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
