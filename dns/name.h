// Domain names in wire form: length-prefixed labels with the root's empty one at the end,
// held in a std::string. Look-ups use the lower-cased form (RFC 4343).
//
// Errors: a name that does not fit RFC 1035's limits is refused, never shortened.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "dns/wire.h"

namespace meshd::dns {

// "db.svc.mesh.internal" or with a final dot; no escapes: our own names have none.
[[nodiscard]] std::optional<std::string> to_wire(std::string_view text);
// For people: bytes that are no printable ASCII, dots and backslashes are escaped \DDD.
[[nodiscard]] std::string to_text(std::string_view wire);
void append_label(std::string& text, std::string_view label);  // escaped likewise

// Reads a name, following compression backwards only. With `compressed` false a pointer
// is a failure of the reader. `out` gets the name as written.
void read_name(Reader& reader, std::string& out, bool compressed);
// Past a name, without looking at where its pointers lead.
void skip_name(Reader& reader);

void lower(std::string& wire);
[[nodiscard]] bool equal_names(std::string_view a, std::string_view b);  // case folded
// Both lower-cased: is `wire` the zone or below it?
[[nodiscard]] bool is_under(std::string_view wire, std::string_view zone);
// Without its first label; the root stays the root.
[[nodiscard]] std::string_view parent(std::string_view wire);
[[nodiscard]] std::size_t label_count(std::string_view wire);  // the root has none
[[nodiscard]] std::string_view first_label(std::string_view wire);

// 1.0.213.10.in-addr.arpa and the like, in wire form.
[[nodiscard]] std::string reverse_name(const IpAddress& address);
// What a name below in-addr.arpa or ip6.arpa stands for, as far as its labels are an address's,
// from the right: 213.10.in-addr.arpa is 10.213.0.0/16.
struct ReverseName {
  Prefix prefix;
  bool exact = true;  // false: further labels, which are no part of an address, stand in front
  [[nodiscard]] bool whole() const { return exact && prefix.host_bits() == 0; }
};
[[nodiscard]] std::optional<ReverseName> parse_reverse(std::string_view lower_wire);
// The part of a reverse name that stands for its first `bits` bits: its end.
[[nodiscard]] std::string_view reverse_suffix(std::string_view lower_wire, Family family, int bits);
// Bits that one label stands for.
[[nodiscard]] constexpr int reverse_step(Family family) { return family == Family::kV4 ? 8 : 4; }

}  // namespace meshd::dns
