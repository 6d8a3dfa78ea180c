// What rtnetlink, conntrack, sock_diag and nflog messages have in common beyond attributes:
// a fixed header in front, and addresses.
//
// Invariants: nothing is read outside the span; what does not fit is absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/ip.h"
#include "netlink/attributes.h"

namespace meshd::netlink {

using ByteView = AttributeBytes;

// What follows a fixed header of `header` bytes.
[[nodiscard]] inline ByteView after(ByteView bytes, std::size_t header) {
  const std::size_t skip = align4(header);
  return skip < bytes.size() ? bytes.subspan(skip) : ByteView{};
}

// 4 bytes are an IPv4 address, 16 an IPv6 one, anything else none.
[[nodiscard]] inline std::optional<IpAddress> read_address(ByteView bytes) {
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  if (bytes.size() == 4) return IpAddress::v4(std::span<const std::uint8_t, 4>(data, 4));
  if (bytes.size() == 16) return IpAddress::v6(std::span<const std::uint8_t, 16>(data, 16));
  return std::nullopt;
}

[[nodiscard]] inline ByteView address_bytes(const IpAddress& address) {
  return std::as_bytes(address.bytes());
}

}  // namespace meshd::netlink
