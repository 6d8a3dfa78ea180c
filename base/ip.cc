#include "base/ip.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace meshd {
namespace {

// Longer text cannot be an address: INET6_ADDRSTRLEN counts the NUL.
constexpr std::size_t kMaxAddressText = INET6_ADDRSTRLEN - 1;

int max_length(Family family) { return family == Family::kV4 ? 32 : 128; }

}  // namespace

std::string_view proto_name(Proto proto) { return proto == Proto::kTcp ? "tcp" : "udp"; }

IpAddress IpAddress::v4(std::uint32_t host_order) {
  IpAddress result;
  for (int i = 0; i < 4; ++i) {
    result.bytes_[static_cast<std::size_t>(i)] =
        static_cast<std::uint8_t>(host_order >> (24 - 8 * i));
  }
  return result;
}

IpAddress IpAddress::v4(std::span<const std::uint8_t, 4> bytes) {
  IpAddress result;
  std::ranges::copy(bytes, result.bytes_.begin());
  return result;
}

IpAddress IpAddress::v6(std::span<const std::uint8_t, 16> bytes) {
  IpAddress result;
  result.family_ = Family::kV6;
  std::ranges::copy(bytes, result.bytes_.begin());
  return result;
}

Result<IpAddress> IpAddress::parse(std::string_view text) {
  const auto bad = [&] {
    return fail(ErrorCode::kInvalid, "\"" + std::string(text.substr(0, kMaxAddressText)) +
                                         "\" is not an IPv4 or IPv6 address");
  };
  // An embedded NUL would make inet_pton read less than was given.
  if (text.size() > kMaxAddressText || text.contains('\0')) return bad();
  const std::string copy(text);
  IpAddress result;
  if (inet_pton(AF_INET, copy.c_str(), result.bytes_.data()) == 1) return result;
  result.family_ = Family::kV6;
  if (inet_pton(AF_INET6, copy.c_str(), result.bytes_.data()) == 1) return result;
  return bad();
}

std::uint32_t IpAddress::v4_host_order() const {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | bytes_[i];
  return value;
}

IpAddress IpAddress::plus(std::uint64_t n) const {
  IpAddress result = *this;
  for (std::size_t i = bytes().size(); i-- > 0 && n != 0;) {
    n += result.bytes_[i];
    result.bytes_[i] = static_cast<std::uint8_t>(n);
    n >>= 8;
  }
  return result;
}

std::string IpAddress::to_string() const {
  char buffer[INET6_ADDRSTRLEN];
  return inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes_.data(), buffer, sizeof buffer);
}

Prefix Prefix::of(const IpAddress& address, int length) {
  std::array<std::uint8_t, 16> bytes{};
  std::ranges::copy(address.bytes(), bytes.begin());
  const auto size = address.bytes().size();
  for (std::size_t i = 0; i < size; ++i) {
    const int keep = std::clamp(length - static_cast<int>(8 * i), 0, 8);
    bytes[i] &= static_cast<std::uint8_t>(0xff00 >> keep);
  }
  Prefix result;
  result.address_ = address.is_v4() ? IpAddress::v4(std::span(bytes).first<4>())
                                    : IpAddress::v6(std::span<const std::uint8_t, 16>(bytes));
  result.length_ = length;
  return result;
}

Result<Prefix> Prefix::parse(std::string_view text) {
  const auto slash = text.find('/');
  auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) return std::unexpected(std::move(address).error());
  int length = max_length(address->family());
  if (slash != std::string_view::npos) {
    const auto digits = text.substr(slash + 1);
    int parsed = -1;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), parsed);
    if (error != std::errc() || end != digits.end() || digits.empty() || digits[0] == '-' ||
        parsed > length || digits.size() > 3) {
      return fail(ErrorCode::kInvalid, "\"" + std::string(text.substr(0, 64)) +
                                           "\": the prefix length is 0 to " +
                                           std::to_string(length));
    }
    length = parsed;
  }
  auto result = Prefix::of(*address, length);
  if (result.address() != *address) {
    return fail(ErrorCode::kInvalid, "\"" + std::string(text.substr(0, 64)) +
                                         "\" has host bits set; did you mean " +
                                         result.to_string() + "?");
  }
  return result;
}

IpAddress Prefix::last() const {
  std::array<std::uint8_t, 16> bytes{};
  std::ranges::copy(address_.bytes(), bytes.begin());
  const auto size = address_.bytes().size();
  for (std::size_t i = 0; i < size; ++i) {
    const int keep = std::clamp(length_ - static_cast<int>(8 * i), 0, 8);
    bytes[i] |= static_cast<std::uint8_t>(0xff >> keep);
  }
  return address_.is_v4() ? IpAddress::v4(std::span(bytes).first<4>())
                          : IpAddress::v6(std::span<const std::uint8_t, 16>(bytes));
}

bool Prefix::contains(const IpAddress& address) const {
  return address.family() == family() && Prefix::of(address, length_).address_ == address_;
}

bool Prefix::contains(const Prefix& other) const {
  return other.length_ >= length_ && contains(other.address_);
}

bool Prefix::overlaps(const Prefix& other) const {
  return contains(other) || other.contains(*this);
}

std::string Prefix::to_string() const {
  return address_.to_string() + "/" + std::to_string(length_);
}

std::string Mac::to_string() const {
  char buffer[18];
  std::snprintf(buffer, sizeof buffer, "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1],
                bytes[2], bytes[3], bytes[4], bytes[5]);
  return buffer;
}

}  // namespace meshd
