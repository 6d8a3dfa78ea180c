// The rules of our table as values: a dozen shapes of match and statement, each of which
// has one text (render.h) and one byte code (meshd/lower_ruleset.h).
//
// Invariants: a rule's parts are tried in order, the first that does not match ends it. A
//             field of one IP version matches packets of that version only, a field of
//             one transport protocol likewise; the lowering sees to it.
// Units:      numbers in host order.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ip.h"
#include "policy/field.h"
#include "policy/ruleset.h"

namespace meshd::policy {

// Field is (negated: is none of) the values. Addresses, or numbers.
using Value = std::variant<std::uint32_t, IpAddress>;
struct Match {
  Field field{};
  std::vector<Value> values = {};
  bool negated = false;
  bool operator==(const Match&) const = default;
};

// The connection has at least one of these, as linux/netfilter/nf_conntrack_common.h and
// nf_tables.h number them.
inline constexpr std::uint32_t kCtInvalid = 1, kCtEstablished = 2, kCtRelated = 4, kCtNew = 8;
struct CtState {
  std::uint32_t any_of = 0;
  bool operator==(const CtState&) const = default;
};
// The connection's destination was translated.
struct CtTranslated {
  bool operator==(const CtTranslated&) const = default;
};
// A packet of the connection has passed before, replied to or not.
struct CtConfirmed {
  bool operator==(const CtConfirmed&) const = default;
};

// The fields, one after another, are (negated: are not) in a set.
struct InSet {
  std::vector<Field> key = {};
  std::string set = {};
  bool negated = false;
  bool operator==(const InSet&) const = default;
};
// A map gives a profile for the first fields; profile and the other fields are in a set. Then,
// where there is one, the owner is in a third, whose element counts: nothing counts that does
// not match. With `by_row` the second is a map too, to a row, and the third has row and owner.
// Profile and row stay in registers: the packet's mark belongs to others.
struct InProfile {
  std::vector<Field> owner = {};
  std::string map = {};
  std::vector<Field> rest = {};
  std::string set = {};
  bool by_row = false;
  std::string counts = {};
  bool operator==(const InProfile&) const = default;
};

// Packets a second, kept per value of `key` in a dynamic set. Matches below the rate;
// `over`: above.
struct Meter {
  std::string set = {};
  Field key{};
  std::uint32_t rate = 0, burst = 0;
  bool over = false;
  bool operator==(const Meter&) const = default;
};
// More than `limit` connections of this value of `key`.
struct ConnectionsOver {
  std::string set = {};
  Field key{};
  std::uint32_t limit = 0;
  bool operator==(const ConnectionsOver&) const = default;
};
// Below so many packets a second in all.
struct RateLimit {
  std::uint32_t rate = 0, burst = 0;
  bool operator==(const RateLimit&) const = default;
};

// The largest segment that a SYN offers becomes what the ways of both directions carry, if that
// is less. Only where a packet's way is known: from `forward` on.
struct ClampSegments {
  bool operator==(const ClampSegments&) const = default;
};

struct Count {
  std::string counter = {};
  bool operator==(const Count&) const = default;
};
struct LogTo {
  std::uint16_t group = 0;
  std::string prefix = {};
  std::uint32_t snaplen = 0;  // bytes of the packet
  bool operator==(const LogTo&) const = default;
};
struct Notrack {
  bool operator==(const Notrack&) const = default;
};

enum class VerdictKind : std::uint8_t { kAccept, kDrop, kJump, kGoto };
struct Verdict {
  VerdictKind kind{};
  std::string chain = {};
  bool operator==(const Verdict&) const = default;
};
enum class RejectKind : std::uint8_t { kTcpReset, kPortUnreachable };
struct Reject {
  RejectKind kind{};
  bool operator==(const Reject&) const = default;
};
// Source or destination becomes one address.
struct TranslateTo {
  bool source = false;
  IpAddress address;
  bool operator==(const TranslateTo&) const = default;
};
// Destination becomes what the map has for the fields: an address, or address and port.
struct TranslateByMap {
  Family family{};
  std::vector<Field> key = {};
  std::string map = {};
  bool with_port = false;
  bool operator==(const TranslateByMap&) const = default;
};
struct Masquerade {
  bool operator==(const Masquerade&) const = default;
};

using Part = std::variant<Match, CtState, CtTranslated, CtConfirmed, InSet, InProfile, Meter,
                          ConnectionsOver, RateLimit, ClampSegments, Count, LogTo, Notrack, Verdict,
                          Reject, TranslateTo, TranslateByMap, Masquerade>;
using Rule = std::vector<Part>;

enum class Hook : std::uint8_t { kPrerouting, kInput, kForward, kOutput, kPostrouting };
struct Chain {
  struct Base {
    bool nat = false;  // else filter
    Hook hook{};
    std::int32_t priority = 0;
    bool operator==(const Base&) const = default;
  };
  std::string name;
  std::optional<Base> base;  // its policy is accept: others' packets are not ours to stop
  std::vector<Rule> rules;
  bool operator==(const Chain&) const = default;
};

// A set that rules fill and the kernel empties.
struct DynamicSet {
  std::string name;
  Component key{};
  std::uint32_t size = 0;
  std::chrono::seconds timeout{0};  // 0: elements go with their last connection
  bool operator==(const DynamicSet&) const = default;
};

// Everything constant. The sets that hold elements are those of set_info(), all of them.
struct Table {
  std::string name;
  std::vector<std::string> counters;
  std::vector<DynamicSet> dynamic_sets;
  std::vector<Chain> chains;
  bool operator==(const Table&) const = default;
};

}  // namespace meshd::policy
