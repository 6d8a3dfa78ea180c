#include "controller/peer_address.h"

#include <algorithm>
#include <array>
#include <string>

namespace meshd::controller {
namespace {

constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

}  // namespace

Result<IpAddress> peer_address(std::string_view peer) {
  const auto unknown = [&] {
    return fail(ErrorCode::kInvalid, "peer: no address in " + std::string(peer));
  };
  const auto family_end = peer.find(':');
  const auto port_begin = peer.rfind(':');
  if (family_end == std::string_view::npos || port_begin <= family_end) return unknown();
  const auto family = peer.substr(0, family_end);
  auto text = std::string(peer.substr(family_end + 1, port_begin - family_end - 1));
  if (family == "ipv6") {
    for (const std::string_view bracket : {"%5B", "%5D", "[", "]"}) {
      if (const auto at = text.find(bracket); at != std::string::npos) {
        text.erase(at, bracket.size());
      }
    }
    // A zone names the interface; the address is the same.
    text.erase(std::min(text.find('%'), text.size()));
  } else if (family != "ipv4") {
    return unknown();
  }
  const auto address = IpAddress::parse(text);
  if (!address) return unknown();
  const auto bytes = address->bytes();
  if (address->is_v6() && std::ranges::equal(bytes.first(12), kMapped)) {
    return IpAddress::v4(bytes.subspan(12).first<4>());
  }
  return *address;
}

}  // namespace meshd::controller
