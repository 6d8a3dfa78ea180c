#include "meshd/pools.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace meshd {
namespace {

const Prefix kDefaultPool4 = Prefix::of(IpAddress::v4(0x0ad50000), 16);  // 10.213.0.0/16
const Prefix kDefaultVip4 = Prefix::of(IpAddress::v4(0x0ad60000), 16);   // 10.214.0.0/16

// Ranges that mean something else to every host (RFC 6890).
constexpr std::array kTaken = {
    std::pair{"0.0.0.0/8", "this network"},     std::pair{"127.0.0.0/8", "loopback"},
    std::pair{"169.254.0.0/16", "link-local"},  std::pair{"224.0.0.0/3", "multicast or reserved"},
    std::pair{"::/8", "loopback or v4-mapped"}, std::pair{"fe80::/10", "link-local"},
    std::pair{"ff00::/8", "multicast"},
};

Result<PoolChoice> parse_pool(std::string_view field, std::string_view text, Family family) {
  const auto wrong = [&](std::string reason) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", field, reason));
  };
  PoolChoice choice;
  if (text.empty()) return choice;
  if (text == "off") {
    choice.off = true;
    return choice;
  }
  const auto prefix = Prefix::parse(text);
  if (!prefix) return wrong(prefix.error().what);
  if (prefix->family() != family) {
    return wrong(fmt::format("'{}' is not {}", text, family == Family::kV4 ? "IPv4" : "IPv6"));
  }
  const auto [shortest, longest] = family == Family::kV4 ? std::pair{kShortestPool4, kLongestPool4}
                                                         : std::pair{kShortestPool6, kLongestPool6};
  if (prefix->length() < shortest || prefix->length() > longest) {
    return wrong(
        fmt::format("/{} is not between /{} and /{}", prefix->length(), shortest, longest));
  }
  for (const auto& [range, meaning] : kTaken) {
    if (Prefix::parse(range)->overlaps(*prefix)) {
      return wrong(fmt::format("{} overlaps {} ({})", text, range, meaning));
    }
  }
  choice.prefix = *prefix;
  return choice;
}

// A family is on with both of its pools, or off with both.
Status check_pair(std::string_view pool_field, PoolChoice& pool, std::string_view vip_field,
                  PoolChoice& vip) {
  if (pool.off && vip.prefix) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: needs {}, which is off", vip_field, pool_field));
  }
  if (vip.off && !pool.off) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: off, while {} is on: services would have no address", vip_field,
                            pool_field));
  }
  vip.off = pool.off;
  return {};
}

Status check_overlap(std::string_view pool_field, const std::optional<Prefix>& pool,
                     std::string_view vip_field, const std::optional<Prefix>& vip) {
  if (!pool || !vip || !pool->overlaps(*vip)) return {};
  return fail(ErrorCode::kInvalid, fmt::format("{}: {} overlaps {} {}", vip_field, vip->to_string(),
                                               pool_field, pool->to_string()));
}

std::optional<Prefix> chosen(const PoolChoice& choice, const Prefix& otherwise) {
  if (choice.off) return std::nullopt;
  return choice.prefix ? *choice.prefix : otherwise;
}

// The n-th /64 of a /48.
Prefix subnet(const Prefix& ula, std::uint8_t n) {
  std::array<std::uint8_t, 16> bytes{};
  std::ranges::copy(ula.address().bytes(), bytes.begin());
  bytes[7] = n;
  return Prefix::of(IpAddress::v6(bytes), 64);
}

}  // namespace

Result<PoolConfig> parse_pools(std::string_view ipv4, std::string_view ipv6, std::string_view vip4,
                               std::string_view vip6) {
  PoolConfig config;
  config.ipv4 = TRY(parse_pool("pool.ipv4", ipv4, Family::kV4));
  config.ipv6 = TRY(parse_pool("pool.ipv6", ipv6, Family::kV6));
  config.vip4 = TRY(parse_pool("pool.vip4", vip4, Family::kV4));
  config.vip6 = TRY(parse_pool("pool.vip6", vip6, Family::kV6));
  CHECK_OK(check_pair("pool.ipv4", config.ipv4, "pool.vip4", config.vip4));
  CHECK_OK(check_pair("pool.ipv6", config.ipv6, "pool.vip6", config.vip6));
  if (config.ipv4.off && config.ipv6.off) {
    return fail(ErrorCode::kInvalid, "pool.ipv6: off, and pool.ipv4 too: nothing is left");
  }
  // What does not depend on the node's ULA can be said before a store is there.
  CHECK_OK(check_overlap("pool.ipv4", chosen(config.ipv4, kDefaultPool4), "pool.vip4",
                         chosen(config.vip4, kDefaultVip4)));
  CHECK_OK(check_overlap("pool.ipv6", config.ipv6.prefix, "pool.vip6", config.vip6.prefix));
  return config;
}

Result<Pools> resolve_pools(const PoolConfig& config, const Prefix& ula) {
  Pools pools{chosen(config.ipv4, kDefaultPool4), chosen(config.ipv6, subnet(ula, 1)),
              chosen(config.vip4, kDefaultVip4), chosen(config.vip6, subnet(ula, 2))};
  CHECK_OK(check_overlap("pool.ipv4", pools.pool4, "pool.vip4", pools.vip4));
  CHECK_OK(check_overlap("pool.ipv6", pools.pool6, "pool.vip6", pools.vip6));
  return pools;
}

IpAddress resolver4(int number) {
  return IpAddress::v4(0xa9fe0101U + static_cast<std::uint32_t>(number));  // 169.254.1.1, .2
}

// Subnet 0x53, interface 0x53 and 0x54.
IpAddress resolver6(const Prefix& ula, int number) {
  std::array<std::uint8_t, 16> bytes{};
  std::ranges::copy(ula.address().bytes().first(6), bytes.begin());
  bytes[7] = 0x53;
  bytes[15] = static_cast<std::uint8_t>(0x53 + number);
  return IpAddress::v6(bytes);
}

bool looks_like_resolver(const IpAddress& address) {
  if (address.is_v4()) return address == resolver4(0) || address == resolver4(1);
  if (address.bytes()[0] != 0xfd) return false;
  const auto ula = Prefix::of(address, 48);
  return address == resolver6(ula, 0) || address == resolver6(ula, 1);
}

Status check_routes(const Pools& pools, std::span<const HostRoute> routes) {
  const std::array fields = {
      std::pair{"pool.ipv4", &pools.pool4}, std::pair{"pool.ipv6", &pools.pool6},
      std::pair{"pool.vip4", &pools.vip4}, std::pair{"pool.vip6", &pools.vip6}};
  for (const auto& route : routes) {
    if (route.destination.length() == 0) continue;
    for (const auto& [field, pool] : fields) {
      if (!*pool || !(*pool)->overlaps(route.destination)) continue;
      return fail(ErrorCode::kConflict,
                  fmt::format("{} {} overlaps the host's route {} dev {}: set {} to a range that "
                              "is free",
                              field, (*pool)->to_string(), route.destination.to_string(),
                              route.device, field));
    }
  }
  return {};
}

}  // namespace meshd
