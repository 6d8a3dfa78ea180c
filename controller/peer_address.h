// From whom a call comes, as gRPC tells it: "ipv4:192.0.2.1:4711", "ipv6:[2001:db8::1]:4711",
// the latter percent-encoded.
#pragma once

#include <string_view>

#include "base/ip.h"
#include "base/result.h"

namespace meshd::controller {

// A v4-mapped address is the IPv4 address that it maps.
[[nodiscard]] Result<IpAddress> peer_address(std::string_view peer);

}  // namespace meshd::controller
