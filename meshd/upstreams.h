// The name servers that foreign names are forwarded to: as configured, or as the host's
// resolv.conf names them.
//
// Threads: any; reads files.
// Errors:  kInvalid with the reason, kSystem when a file is there and cannot be read.
// Source:  resolv.conf(5); systemd-resolved.service(8) for its stubs and its own list.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"

namespace meshd {

// More servers than that are never asked: each one that is down costs a timeout first.
inline constexpr std::size_t kMaxUpstreams = 8;
// A resolv.conf beyond this is none.
inline constexpr std::size_t kMaxResolvConfBytes = 64 << 10;

struct Upstream {
  IpAddress address;
  std::uint16_t port = 53;
  [[nodiscard]] std::string to_string() const;  // "192.0.2.1:53", "[2001:db8::1]:53"
  auto operator<=>(const Upstream&) const = default;
};

// "addr", "addr:port" or "[v6]:port".
[[nodiscard]] Result<Upstream> parse_upstream(std::string_view text);

struct HostUpstreams {
  std::vector<Upstream> servers;
  std::string source;                // the file they come from
  std::vector<std::string> skipped;  // "127.0.0.53: systemd-resolved's stub"
};

// From `path`. Stubs of systemd-resolved are left out, and where nothing else is listed the
// servers behind them are taken from `resolved_path`. `own`: addresses we answer on, left
// out too. No file, or nothing in it, is no error: then there is nobody to forward to.
[[nodiscard]] Result<HostUpstreams> read_resolv_conf(
    std::span<const IpAddress> own, const std::string& path = "/etc/resolv.conf",
    const std::string& resolved_path = "/run/systemd/resolve/resolv.conf");

}  // namespace meshd
