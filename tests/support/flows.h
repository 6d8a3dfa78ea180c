// Sockets inside named places: a UDP or TCP server in a container, clients on the node.
//
// Owns: descriptors, closed with their owners.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "base/unique_fd.h"
#include "tests/support/rt_fixture.h"

namespace meshd::test {

struct Endpoint {
  sockaddr_storage storage{};
  socklen_t length = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

inline Endpoint endpoint(const IpAddress& address, std::uint16_t port) {
  Endpoint made;
  if (address.is_v4()) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&made.storage);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    std::memcpy(&v4->sin_addr, address.bytes().data(), 4);
    made.length = sizeof(sockaddr_in);
  } else {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&made.storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    std::memcpy(&v6->sin6_addr, address.bytes().data(), 16);
    made.length = sizeof(sockaddr_in6);
  }
  return made;
}

// Of the calling thread's namespace.
inline UniqueFd make_socket(const IpAddress& address, int type) {
  return UniqueFd(socket(address.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0));
}

// Bound, and listening when it is TCP; `v6_only` for IPv6.
inline UniqueFd serve(const netlink::Netns& netns, const char* address, std::uint16_t port,
                      int type = SOCK_STREAM, bool v6_only = false) {
  const IpAddress where = ip(address);
  UniqueFd fd;
  must(netlink::run_in_netns(netns.fd(), [&] { fd = make_socket(where, type); }));
  const int on = v6_only ? 1 : 0;
  if (where.is_v6()) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  const Endpoint local = endpoint(where, port);
  EXPECT_EQ(bind(fd.get(), local.get(), local.length), 0) << strerror(errno);
  if (type == SOCK_STREAM) {
    EXPECT_EQ(listen(fd.get(), 8), 0);
  }
  return fd;
}

// A client on the node, connected; one byte is sent when it is UDP.
inline UniqueFd call(const char* address, std::uint16_t port, int type) {
  const IpAddress where = ip(address);
  UniqueFd fd = make_socket(where, type);
  const Endpoint remote = endpoint(where, port);
  EXPECT_EQ(connect(fd.get(), remote.get(), remote.length), 0) << strerror(errno);
  if (type == SOCK_DGRAM) {
    EXPECT_EQ(send(fd.get(), "x", 1, 0), 1) << strerror(errno);
  }
  return fd;
}

}  // namespace meshd::test
