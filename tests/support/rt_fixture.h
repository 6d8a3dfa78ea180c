// A test in a network namespace of its own, with containers beside it: further namespaces
// that are held by descriptors only and are gone with them.
//
// Owns: nothing that outlives the process.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/unique_fd.h"
#include "netlink/address_route.h"
#include "netlink/link.h"
#include "netlink/netns.h"
#include "tests/support/netns.h"

namespace meshd::test {

// The value, or a failed test with the reason.
template <class T>
T must(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().what;
    std::abort();  // each test is a process: nothing after this could be trusted
  }
  return *std::move(result);
}

inline void must(const Status& status) { ASSERT_TRUE(status) << status.error().what; }

inline IpAddress ip(const char* text) { return must(IpAddress::parse(text)); }
inline Prefix prefix(const char* text) { return must(Prefix::parse(text)); }

// A namespace without a name.
inline netlink::Netns make_netns() {
  Result<netlink::Netns> made = fail(ErrorCode::kInternal, "no namespace");
  std::thread([&made] {
    if (unshare(CLONE_NEWNET) == 0) made = netlink::Netns::own();
  }).join();
  return must(std::move(made));
}

// Output of a command run inside that namespace.
inline std::string output_in(const netlink::Netns& netns, const std::string& command) {
  std::string output;
  must(netlink::run_in_netns(netns.fd(), [&] { output = output_of(command); }));
  return output;
}

inline bool readable(int fd, std::chrono::milliseconds limit = std::chrono::seconds(5)) {
  pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&wait, 1, static_cast<int>(limit.count())) == 1;
}

class RtFixture : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kGroup = 77;
  static constexpr Mac kHostMac{{2, 0, 0, 0, 0, 1}};
  static constexpr Mac kPeerMac{{2, 0, 0, 0, 0, 2}};

  void SetUp() override {
    must(PrivateNetns::enter());
    channel_.emplace(must(netlink::Channel::open(netlink::Channel::Protocol::kRoute)));
  }

  netlink::Channel& channel() { return *channel_; }

  static netlink::VethSpec veth(const netlink::Netns& target, std::string name = "v1") {
    return {.host_name = std::move(name),
            .host_mac = kHostMac,
            .host_group = kGroup,
            .peer_name = "eth0",
            .peer_mac = kPeerMac,
            .peer_netns_fd = target.fd(),
            .mtu = 1400};
  }

  // A container with eth0 10.88.0.2/24 and fd88::2/64, the node's v1 at .1 and ::1, up.
  netlink::Netns connected_container() {
    netlink::Netns container = make_netns();
    must(netlink::create_veth(channel(), veth(container)));
    EXPECT_EQ(output_of("ip addr add 10.88.0.1/24 dev v1; ip addr add fd88::1/64 dev v1 nodad;"
                        "ip link set v1 up"),
              "");
    EXPECT_EQ(output_in(container,
                        "ip link set lo up; ip addr add 10.88.0.2/24 dev eth0;"
                        "ip addr add fd88::2/64 dev eth0 nodad; ip link set eth0 up"),
              "");
    return container;
  }

 private:
  std::optional<netlink::Channel> channel_;
};

}  // namespace meshd::test
