// Bounds-checked walks over netlink messages and their attributes: bytes in, spans out.
// Nothing is believed that does not lie within the bytes given; what is cut off ends the
// walk, and the caller sees an attribute that is not there.
//
// Units:  be32() and be64() turn network order, in which nftables writes numbers, into
//         host order; host32() takes what netlink itself writes.
// Source: linux/netlink.h; attributes and messages are aligned to 4 bytes.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

namespace meshd::netlink {

using AttributeBytes = std::span<const std::byte>;

inline constexpr std::size_t align4(std::size_t length) { return (length + 3) & ~std::size_t{3}; }

template <class T>
[[nodiscard]] inline std::optional<T> read_host(AttributeBytes bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// Calls fn(type, payload) for each attribute; the nested and byte-order marks are cut off.
template <class Fn>
void for_each_attribute(AttributeBytes bytes, Fn&& fn) {
  constexpr std::size_t kHeader = 4;
  constexpr std::uint16_t kTypeMask = 0x3fff;  // NLA_TYPE_MASK
  while (bytes.size() >= kHeader) {
    const std::size_t length = *read_host<std::uint16_t>(bytes);
    const std::uint16_t type = *read_host<std::uint16_t>(bytes.subspan(2));
    if (length < kHeader || length > bytes.size()) return;
    fn(static_cast<std::uint16_t>(type & kTypeMask), bytes.subspan(kHeader, length - kHeader));
    bytes = bytes.subspan(std::min(align4(length), bytes.size()));
  }
}

// The attributes of one nest with types below N; of equal types the last counts.
template <std::size_t N>
class Attributes {
 public:
  explicit Attributes(AttributeBytes bytes) {
    for_each_attribute(bytes, [this](std::uint16_t type, AttributeBytes payload) {
      if (type < N) payloads_[type] = payload, present_[type] = true;
    });
  }
  [[nodiscard]] bool has(std::size_t type) const { return present_[type]; }
  [[nodiscard]] AttributeBytes bytes(std::size_t type) const { return payloads_[type]; }
  // 0 where the attribute is missing or too short.
  [[nodiscard]] std::uint32_t be32(std::size_t type) const {
    const std::uint32_t value = host32(type);
    return std::endian::native == std::endian::little ? __builtin_bswap32(value) : value;
  }
  [[nodiscard]] std::uint64_t be64(std::size_t type) const {
    const std::uint64_t value = read_host<std::uint64_t>(payloads_[type]).value_or(0);
    return std::endian::native == std::endian::little ? __builtin_bswap64(value) : value;
  }
  [[nodiscard]] std::uint16_t be16(std::size_t type) const {
    const std::uint16_t value = read_host<std::uint16_t>(payloads_[type]).value_or(0);
    return std::endian::native == std::endian::little ? __builtin_bswap16(value) : value;
  }
  [[nodiscard]] std::uint32_t host32(std::size_t type) const {
    return read_host<std::uint32_t>(payloads_[type]).value_or(0);
  }
  // Up to the NUL, or all of it where there is none.
  [[nodiscard]] std::string_view text(std::size_t type) const {
    const auto payload = payloads_[type];
    const std::string_view all(reinterpret_cast<const char*>(payload.data()), payload.size());
    return all.substr(0, all.find('\0'));
  }
  [[nodiscard]] std::span<const std::uint8_t> octets(std::size_t type) const {
    const auto payload = payloads_[type];
    return {reinterpret_cast<const std::uint8_t*>(payload.data()), payload.size()};
  }

 private:
  std::array<AttributeBytes, N> payloads_{};
  std::array<bool, N> present_{};
};

struct MessageView {
  std::uint16_t type = 0, flags = 0;
  std::uint32_t sequence = 0, port_id = 0;
  AttributeBytes payload;  // what follows the header of 16 bytes
  AttributeBytes whole;    // with the header
};

// Calls fn(MessageView) for each whole message of a datagram.
template <class Fn>
void for_each_message(AttributeBytes datagram, Fn&& fn) {
  constexpr std::size_t kHeader = 16;
  while (datagram.size() >= kHeader) {
    const std::size_t length = *read_host<std::uint32_t>(datagram);
    if (length < kHeader || length > datagram.size()) return;
    MessageView view;
    view.type = *read_host<std::uint16_t>(datagram.subspan(4));
    view.flags = *read_host<std::uint16_t>(datagram.subspan(6));
    view.sequence = *read_host<std::uint32_t>(datagram.subspan(8));
    view.port_id = *read_host<std::uint32_t>(datagram.subspan(12));
    view.payload = datagram.subspan(kHeader, length - kHeader);
    view.whole = datagram.first(length);
    fn(view);
    datagram = datagram.subspan(std::min(align4(length), datagram.size()));
  }
}

}  // namespace meshd::netlink
