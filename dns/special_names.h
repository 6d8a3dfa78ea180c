// Names that are answered here whatever upstreams would say, and never asked of anybody else:
// those that mean something in one place only, and the reverse of private addresses.
//
// Source: RFC 6303, 6761, 6762, 7686, 7793, 8375.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "dns/name.h"

namespace meshd::dns {

// All names are in wire form, lower case.
[[nodiscard]] bool is_localhost(std::string_view name);
// Of what is no reverse name.
[[nodiscard]] bool is_special(std::string_view name);
[[nodiscard]] bool is_special(const ReverseName& name);

// Where a reverse name stands to the ranges that are ours. A range that ends within a label
// is several zones: 10.0.0.0/20 is 0.0.10.in-addr.arpa to 15.0.10.in-addr.arpa.
struct ReverseZone {
  enum class Place {
    kForeign,
    kAbove,  // one of our zones is below it
    kApex,
    kInside,
  };
  Place place = Place::kForeign;
  std::string_view apex;  // kApex and kInside: the zone, the end of the name
};
[[nodiscard]] ReverseZone reverse_zone(std::string_view name, const ReverseName& reverse,
                                       const std::vector<Prefix>& own_ranges);

}  // namespace meshd::dns
