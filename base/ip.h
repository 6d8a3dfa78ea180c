// IP addresses, prefixes, ports and protocols as values: the vocabulary that policy,
// names and kernel share.
//
// Invariant: an IpAddress is of exactly one family; a v4-mapped v6 text is not folded
//            into v4. A Prefix has no host bits set.
// Units:     bytes() are in network order, ports in host order.
// Source:    RFC 4291, RFC 5952 (text form, through inet_ntop).
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace meshd {

enum class Family : std::uint8_t { kV4, kV6 };
inline constexpr std::array kFamilies = {Family::kV4, Family::kV6};

enum class Proto : std::uint8_t { kTcp = 6, kUdp = 17 };  // IANA protocol numbers
[[nodiscard]] std::string_view proto_name(Proto proto);   // "tcp", "udp"

class IpAddress {
 public:
  IpAddress() = default;  // 0.0.0.0
  [[nodiscard]] static IpAddress v4(std::uint32_t host_order);
  [[nodiscard]] static IpAddress v4(std::span<const std::uint8_t, 4> bytes);
  [[nodiscard]] static IpAddress v6(std::span<const std::uint8_t, 16> bytes);
  [[nodiscard]] static Result<IpAddress> parse(std::string_view text);

  [[nodiscard]] Family family() const { return family_; }
  [[nodiscard]] bool is_v4() const { return family_ == Family::kV4; }
  [[nodiscard]] bool is_v6() const { return family_ == Family::kV6; }
  [[nodiscard]] std::span<const std::uint8_t> bytes() const {
    return {bytes_.data(), is_v4() ? 4U : 16U};
  }
  [[nodiscard]] std::uint32_t v4_host_order() const;  // only for is_v4()
  // The address `n` after this one; wraps at the end of the family's space.
  [[nodiscard]] IpAddress plus(std::uint64_t n) const;
  [[nodiscard]] std::string to_string() const;

  auto operator<=>(const IpAddress&) const = default;

 private:
  Family family_ = Family::kV4;
  std::array<std::uint8_t, 16> bytes_{};  // v4 uses the first four
};

class Prefix {
 public:
  Prefix() = default;  // 0.0.0.0/0
  // Host bits of `address` are cleared.
  [[nodiscard]] static Prefix of(const IpAddress& address, int length);
  // "10.0.0.0/8", or a bare address (a host prefix). Host bits set are an error that
  // names the prefix that was probably meant.
  [[nodiscard]] static Result<Prefix> parse(std::string_view text);

  [[nodiscard]] const IpAddress& address() const { return address_; }
  [[nodiscard]] int length() const { return length_; }
  [[nodiscard]] Family family() const { return address_.family(); }
  [[nodiscard]] int host_bits() const { return (address_.is_v4() ? 32 : 128) - length_; }
  [[nodiscard]] IpAddress last() const;
  [[nodiscard]] bool contains(const IpAddress& address) const;
  [[nodiscard]] bool contains(const Prefix& other) const;
  [[nodiscard]] bool overlaps(const Prefix& other) const;
  [[nodiscard]] std::string to_string() const;

  auto operator<=>(const Prefix&) const = default;

 private:
  IpAddress address_;
  int length_ = 0;
};

// Ethernet address.
struct Mac {
  std::array<std::uint8_t, 6> bytes{};
  [[nodiscard]] std::string to_string() const;  // "02:00:00:00:00:01"
  auto operator<=>(const Mac&) const = default;
};

}  // namespace meshd

template <>
struct std::hash<meshd::IpAddress> {
  std::size_t operator()(const meshd::IpAddress& address) const noexcept {
    const auto bytes = address.bytes();
    return std::hash<std::string_view>{}(
        {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
};
