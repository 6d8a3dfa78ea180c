#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <vector>

#include "netlink/address_route.h"
#include "netlink/link.h"
#include "netlink/link_monitor.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/talk.h"

namespace meshd::netlink {
namespace {

using test::make_netns;
using test::must;

class RtLinkTest : public test::RtFixture {};

TEST_F(RtLinkTest, VethComesWithGroupAndPeerInTheTarget) {
  const Netns container = make_netns();
  const Link host = must(create_veth(channel(), veth(container)));
  EXPECT_EQ(host.name, "v1");
  EXPECT_EQ(host.mac, kHostMac);
  EXPECT_EQ(host.group, kGroup);
  EXPECT_EQ(host.kind, "veth");
  EXPECT_EQ(host.mtu, 1400U);
  EXPECT_FALSE(host.up);
  EXPECT_TRUE(host.peer_netnsid.has_value());

  Channel inside = must(open_channel_in(container.fd(), Channel::Protocol::kRoute));
  const auto peer = must(find_link(inside, "eth0"));
  ASSERT_TRUE(peer);
  EXPECT_EQ(peer->mac, kPeerMac);
  EXPECT_EQ(peer->mtu, 1400U);
  EXPECT_EQ(peer->index, host.peer_index);
  EXPECT_FALSE(must(find_link(channel(), "eth0")));
}

TEST_F(RtLinkTest, SecondEnsureWritesNothing) {
  const Netns container = make_netns();
  const Link made = must(create_veth(channel(), veth(container)));
  const LinkWish wish{.up = true, .arp = false, .no_link_local = true, .mtu = 1300};
  EXPECT_NE(must(ensure_link(channel(), made, wish)), "");
  const Link now = *must(find_link(channel(), made.index));
  EXPECT_TRUE(now.up);
  EXPECT_FALSE(now.arp);
  EXPECT_EQ(now.no_link_local, true);
  EXPECT_EQ(now.mtu, 1300U);
  const auto changes = channel().changes();
  EXPECT_EQ(must(ensure_link(channel(), now, wish)), "");
  EXPECT_EQ(channel().changes(), changes);
}

TEST_F(RtLinkTest, LinkWithoutLinkLocalNeverGetsOne) {
  const Netns container = make_netns();
  const Link host = must(create_veth(channel(), veth(container)));
  Channel inside = must(open_channel_in(container.fd(), Channel::Protocol::kRoute));
  const Link peer = *must(find_link(inside, "eth0"));
  const LinkWish wish{.up = true, .no_link_local = true};
  must(ensure_link(inside, peer, wish));
  must(ensure_link(channel(), host, wish));
  // Both ends run now; an address would have been made as the link came up.
  EXPECT_TRUE(must(find_link(channel(), host.index))->running);
  EXPECT_TRUE(must(list_addresses(channel(), host.index)).empty());
  EXPECT_TRUE(must(list_addresses(inside, peer.index)).empty());
}

TEST_F(RtLinkTest, ErrorNamesObjectErrnoAndKernelsWords) {
  const Netns container = make_netns();
  must(create_veth(channel(), veth(container)));
  const auto again = create_veth(channel(), veth(make_netns()));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kSystem);
  EXPECT_EQ(again.error().sys_errno, EEXIST);
  EXPECT_NE(again.error().what.find("create veth v1"), std::string::npos);

  Link gone;
  gone.index = 4711;
  gone.name = "ghost";
  const auto unknown = ensure_link(channel(), gone, {.up = true});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().sys_errno, ENODEV);
  EXPECT_NE(unknown.error().what.find("ghost"), std::string::npos);

  const auto too_small = ensure_link(channel(), *must(find_link(channel(), "v1")), {.mtu = 7});
  ASSERT_FALSE(too_small);
  EXPECT_EQ(too_small.error().sys_errno, EINVAL);
  EXPECT_NE(too_small.error().what.find("mtu less than device minimum"), std::string::npos)
      << too_small.error().what;
}

TEST_F(RtLinkTest, RefusedVethLeavesNothing) {
  const Netns container = make_netns();
  must(create_veth(channel(), veth(container)));
  // eth0 is taken in the container.
  const auto refused = create_veth(channel(), veth(container, "v2"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().sys_errno, EEXIST);
  VethSpec no_target = veth(container, "v3");
  no_target.peer_netns_fd = -1;
  EXPECT_FALSE(create_veth(channel(), no_target));
  EXPECT_EQ(must(list_links(channel(), kGroup)).size(), 1U);
}

TEST_F(RtLinkTest, RefusesNamesTheKernelWouldBend) {
  const Netns container = make_netns();
  for (const char* name : {"", "v%d", "a/b", "sixteen-letters-", "a b", "..", "a:1"}) {
    const auto refused = create_veth(channel(), veth(container, name));
    ASSERT_FALSE(refused) << name;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalid) << name;
  }
  EXPECT_FALSE(delete_link(channel(), 0));  // index 0 would mean a whole group to the kernel
}

TEST_F(RtLinkTest, RenamesAndFindsByBoth) {
  const Netns container = make_netns();
  const Link made = must(create_veth(channel(), veth(container)));
  EXPECT_NE(must(ensure_link(channel(), made, {.name = "mv0"})), "");
  EXPECT_FALSE(must(find_link(channel(), "v1")));
  EXPECT_EQ(must(find_link(channel(), "mv0"))->index, made.index);
  EXPECT_EQ(must(find_link(channel(), made.index))->name, "mv0");
}

TEST_F(RtLinkTest, DeletingTwiceIsHarmless) {
  const Netns container = make_netns();
  const Link made = must(create_veth(channel(), veth(container)));
  EXPECT_TRUE(must(delete_link(channel(), made.name)));
  EXPECT_FALSE(must(delete_link(channel(), made.name)));
  EXPECT_FALSE(must(delete_link(channel(), made.index)));
}

TEST_F(RtLinkTest, LoopbackComesUpOnce) {
  const Netns container = make_netns();
  Channel inside = must(open_channel_in(container.fd(), Channel::Protocol::kRoute));
  EXPECT_TRUE(must(ensure_loopback_up(inside)));
  EXPECT_FALSE(must(ensure_loopback_up(inside)));
  EXPECT_EQ(inside.changes(), 1U);
}

// Our end first, as attach brings them up, and a datagram that nobody sends again.
TEST_F(RtLinkTest, FirstPacketByALinkThatWasWaitedForArrives) {
  const Netns container = make_netns();
  Channel inside = must(open_channel_in(container.fd(), Channel::Protocol::kRoute));
  const Link host = must(create_veth(channel(), veth(container)));
  const auto there = test::ip("10.88.0.2");
  EXPECT_EQ(test::output_of("ip addr add 10.88.0.1/24 dev v1"), "");
  EXPECT_EQ(test::output_in(container, "ip addr add 10.88.0.2/24 dev eth0"), "");
  const test::EchoServer server(container, there, 7);
  must(ensure_link(channel(), host, {.up = true}));
  must(put_neighbours(channel(), std::vector<Neighbour>{{host.index, there, kPeerMac}}));
  must(ensure_link(inside, *must(find_link(inside, "eth0")), {.up = true}));
  must(await_operational(channel(), host.index));
  EXPECT_EQ(test::talk_here(Proto::kUdp, there, 7), test::Talk::kAnswered);
}

TEST_F(RtLinkTest, LinkThatDoesNotBecomeOperationalIsNotWaitedForForEver) {
  const Netns container = make_netns();
  const Link host = must(create_veth(channel(), veth(container)));
  must(ensure_link(channel(), host, {.up = true}));  // and the other end stays down
  const auto begun = std::chrono::steady_clock::now();
  must(await_operational(channel(), host.index));
  EXPECT_GE(std::chrono::steady_clock::now() - begun, kSettle);
  EXPECT_FALSE(must(find_link(channel(), host.index))->operational);
}

TEST_F(RtLinkTest, LinkThatVanishesIsNotWaitedFor) {
  const Netns container = make_netns();
  const Link host = must(create_veth(channel(), veth(container)));
  ASSERT_TRUE(must(delete_link(channel(), host.index)));
  const auto waited = await_operational(channel(), host.index);
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().code, ErrorCode::kNotFound);
}

TEST_F(RtLinkTest, TwoHundredCyclesLeaveNothing) {
  const Netns container = make_netns();
  const std::size_t before = must(list_links(channel())).size();
  for (int i = 0; i < 200; ++i) {
    must(create_veth(channel(), veth(container)));
    ASSERT_TRUE(must(delete_link(channel(), "v1")));
  }
  EXPECT_EQ(must(list_links(channel())).size(), before);
  EXPECT_TRUE(must(list_links(channel(), kGroup)).empty());
  Channel inside = must(open_channel_in(container.fd(), Channel::Protocol::kRoute));
  EXPECT_FALSE(must(find_link(inside, "eth0")));
}

TEST_F(RtLinkTest, VanishedNetnsTakesTheHostEndWithIt) {
  LinkMonitor monitor = must(LinkMonitor::open(kGroup));
  {
    const Netns container = make_netns();
    must(create_veth(channel(), veth(container)));
  }
  // The kernel tears a namespace down in its own time.
  bool removed = false;
  for (int i = 0; i < 100 && !removed && test::readable(monitor.fd()); ++i) {
    for (const LinkEvent& event : must(monitor.read())) {
      removed = removed || (event.removed && event.ours && event.name == "v1");
    }
  }
  EXPECT_TRUE(removed);
  EXPECT_FALSE(must(find_link(channel(), "v1")));
}

}  // namespace
}  // namespace meshd::netlink
