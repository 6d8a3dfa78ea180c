#include "netlink/sock_diag.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>

#include <algorithm>

#include "netlink/netns.h"

namespace meshd::netlink {
namespace {

constexpr std::uint8_t kAfInet = 2;
constexpr std::uint8_t kAfInet6 = 10;
constexpr unsigned kTcpListen = 10;  // TCP_LISTEN, which only kernel-internal headers name

bool is_any(const IpAddress& address) {
  return std::ranges::all_of(address.bytes(), [](std::uint8_t byte) { return byte == 0; });
}

// ::ffff:a.b.c.d as the IPv4 address (RFC 4291 2.5.5.2).
IpAddress without_mapping(const IpAddress& address) {
  const auto bytes = address.bytes();
  if (address.is_v4() || bytes[10] != 0xff || bytes[11] != 0xff) return address;
  const auto zeros = bytes.first(10);
  if (std::ranges::any_of(zeros, [](std::uint8_t byte) { return byte != 0; })) return address;
  return IpAddress::v4(bytes.subspan<12, 4>());
}

}  // namespace

bool serves(const Listener& listener, const IpAddress& address) {
  if (listener.address == address) return true;
  if (!is_any(listener.address)) return false;
  if (listener.address.family() == address.family()) return true;
  return listener.address.is_v6() && !listener.v6_only;
}

std::optional<Listener> decode_listener(ByteView content) {
  const auto header = read_host<inet_diag_msg>(content);
  if (!header || header->idiag_state != kTcpListen) return std::nullopt;
  const auto source = std::as_bytes(std::span(header->id.idiag_src));
  std::optional<IpAddress> address;
  if (header->idiag_family == kAfInet) address = read_address(source.first(4));
  if (header->idiag_family == kAfInet6) address = read_address(source);
  if (!address) return std::nullopt;
  const Attributes<24> attributes(after(content, sizeof(inet_diag_msg)));
  const auto port = std::as_bytes(std::span(&header->id.idiag_sport, 1));
  return Listener{
      .address = without_mapping(*address),
      .port = static_cast<std::uint16_t>(std::to_integer<unsigned>(port[0]) << 8 |
                                         std::to_integer<unsigned>(port[1])),
      .v6_only = read_host<std::uint8_t>(attributes.bytes(INET_DIAG_SKV6ONLY)).value_or(0) != 0,
      .ifindex = header->id.idiag_if};
}

Result<ListenerPoller> ListenerPoller::open(int netns_fd) {
  return ListenerPoller(TRY(open_channel_in(netns_fd, Channel::Protocol::kSockDiag)));
}

Result<std::vector<Listener>> ListenerPoller::poll() {
  std::vector<Listener> all;
  for (const std::uint8_t family : {kAfInet, kAfInet6}) {
    inet_diag_req_v2 request{};
    request.sdiag_family = family;
    request.sdiag_protocol = static_cast<std::uint8_t>(Proto::kTcp);
    request.idiag_states = 1U << kTcpListen;
    Message message(SOCK_DIAG_BY_FAMILY, 0);
    message.header(request);
    const std::size_t before = all.size();
    CHECK_OK(channel_.dump(
        std::move(message), "list listeners", [&] { all.resize(before); },
        [&all](std::uint16_t type, ByteView content) {
          if (type != SOCK_DIAG_BY_FAMILY || all.size() >= kMaxListeners) return;
          if (const auto listener = decode_listener(content)) all.push_back(*listener);
        }));
  }
  std::ranges::sort(all);
  const auto repeats = std::ranges::unique(all);
  all.erase(repeats.begin(), repeats.end());
  return all;
}

}  // namespace meshd::netlink
