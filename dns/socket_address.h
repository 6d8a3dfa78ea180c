// sockaddr as a value: the one place where addresses meet the socket calls.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdint>

#include "base/ip.h"

namespace meshd::dns {

struct SocketAddress {
  sockaddr_storage storage_{};
  socklen_t size_ = sizeof(sockaddr_storage);

  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage_); }
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  [[nodiscard]] socklen_t size() const { return size_; }

  [[nodiscard]] IpAddress address() const {
    if (storage_.ss_family == AF_INET) {
      return IpAddress::v4(ntohl(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_addr.s_addr));
    }
    const auto& v6 = *reinterpret_cast<const sockaddr_in6*>(&storage_);
    return IpAddress::v6(std::span<const std::uint8_t, 16>(v6.sin6_addr.s6_addr, 16));
  }
  [[nodiscard]] std::uint16_t port() const {
    // The port stands at the same place in both.
    return ntohs(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_port);
  }
};

inline SocketAddress to_sockaddr(const IpAddress& address, std::uint16_t port) {
  SocketAddress result;
  if (address.is_v4()) {
    auto& v4 = *reinterpret_cast<sockaddr_in*>(&result.storage_);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    v4.sin_addr.s_addr = htonl(address.v4_host_order());
    result.size_ = sizeof v4;
  } else {
    auto& v6 = *reinterpret_cast<sockaddr_in6*>(&result.storage_);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::ranges::copy(address.bytes(), v6.sin6_addr.s6_addr);
    result.size_ = sizeof v6;
  }
  return result;
}

}  // namespace meshd::dns
