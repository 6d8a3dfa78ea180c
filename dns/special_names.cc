#include "dns/special_names.h"

#include <algorithm>
#include <array>

namespace meshd::dns {
namespace {

constexpr std::string_view kLocalhost("\11localhost\0", 11);
constexpr std::array kSpecial = {
    std::string_view("\7invalid\0", 9),     std::string_view("\5onion\0", 7),
    std::string_view("\5local\0", 7),       std::string_view("\4test\0", 6),
    std::string_view("\4home\4arpa\0", 11),
};

const std::vector<Prefix>& special_ranges() {
  static const auto ranges = [] {
    std::vector<Prefix> result;
    for (const auto* text :
         {"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
          "172.16.0.0/12", "192.0.2.0/24", "192.168.0.0/16", "198.51.100.0/24", "203.0.113.0/24",
          "255.255.255.255/32", "::/128", "::1/128", "2001:db8::/32", "fc00::/7", "fe80::/10"}) {
      result.push_back(Prefix::parse(text).value());
    }
    return result;
  }();
  return ranges;
}

}  // namespace

bool is_localhost(std::string_view name) { return is_under(name, kLocalhost); }

bool is_special(std::string_view name) {
  return std::ranges::any_of(kSpecial, [&](std::string_view one) { return is_under(name, one); });
}

bool is_special(const ReverseName& name) {
  return std::ranges::any_of(special_ranges(),
                             [&](const Prefix& one) { return one.contains(name.prefix); });
}

ReverseZone reverse_zone(std::string_view name, const ReverseName& reverse,
                         const std::vector<Prefix>& own_ranges) {
  using enum ReverseZone::Place;
  ReverseZone result;
  for (const auto& range : own_ranges) {
    if (!range.overlaps(reverse.prefix)) continue;
    const int step = reverse_step(range.family());
    const int cut = (range.length() + step - 1) / step * step;  // bits of the zones' names
    const int bits = reverse.prefix.length();
    if (bits < cut) {
      // Behind labels that are no address's nothing of ours can stand.
      if (reverse.exact) result.place = kAbove;
      continue;
    }
    result.place = bits == cut && reverse.exact ? kApex : kInside;
    result.apex = reverse_suffix(name, range.family(), cut);
    return result;
  }
  return result;
}

}  // namespace meshd::dns
