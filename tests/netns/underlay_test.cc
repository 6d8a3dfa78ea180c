// Packets of containers to other nodes, with real routes and tunnels between namespaces.
#include "meshd/underlay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/rtnetlink.h>

#include "meshd/topology.h"
#include "netlink/vxlan.h"
#include "tests/support/ruleset_samples.h"
#include "tests/support/underlay_bed.h"

namespace meshd {
namespace {

using test::must;
using test::UnderlayBed;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using enum UnderlayBed::Wire;

constexpr std::uint16_t kPort = 7777;

// Ping, TCP, and a packet as large as may be, by both families.
void expect_connected(UnderlayBed& bed, std::size_t from, std::size_t to, int mtu) {
  for (const auto family : kFamilies) {
    SCOPED_TRACE(testing::Message()
                 << from << " to " << to << " by IPv" << (family == Family::kV4 ? 4 : 6));
    ASSERT_TRUE(bed.reaches(from, to, family)) << bed.ours(from) << bed.ours(to);
    const test::EchoServer server(bed[to].container, bed[to].at(family), kPort);
    EXPECT_EQ(test::talk(bed[from].container, Proto::kTcp, bed[to].at(family), kPort),
              test::Talk::kAnswered);
    EXPECT_EQ(server.last_peer(), bed[from].at(family)) << "nobody translates sources";
    EXPECT_TRUE(bed.carries(from, to, family, mtu));
    EXPECT_FALSE(bed.carries(from, to, family, mtu + 1));
  }
}

void expect_cut(UnderlayBed& bed, std::size_t from, std::size_t to) {
  for (const auto family : kFamilies) {
    EXPECT_NE(test::ping(bed[from].container, bed[to].at(family), test::kSilence),
              test::Talk::kAnswered);
  }
}

TEST(UnderlayTest, NodesOnOneLinkRouteToEachOther) {
  UnderlayBed bed({kBridge, kBridge, kBridge});
  bed.apply_all();
  expect_connected(bed, 0, 1, 1500);
  expect_connected(bed, 2, 0, 1500);
  EXPECT_THAT(bed.ours(0), Not(HasSubstr("mesh0")));
  EXPECT_THAT(bed.in_node(0, "ip route"),
              HasSubstr("10.213.2.0/24 via 192.0.2.2 dev eth0 proto 213 onlink"));
}

TEST(UnderlayTest, NodesBehindRoutersTunnelToEachOther) {
  UnderlayBed bed({kRouter, kRouter, kRouter});
  bed.apply_all();
  expect_connected(bed, 0, 1, 1450);
  expect_connected(bed, 2, 0, 1450);
  const auto ours = bed.ours(0);
  EXPECT_THAT(ours, HasSubstr("10.213.2.0/24 via 10.213.2.0 dev mesh0 proto 213 onlink"));
  EXPECT_THAT(ours, HasSubstr("02:6d:c6:33:64:21 dev mesh0 dst 198.51.100.33 self permanent"));
}

TEST(UnderlayTest, TunnelGoesByIpv6WhereNodesHaveNothingElse) {
  UnderlayBed bed({kRouter, kRouter});
  for (std::size_t i = 0; i < 2; ++i) {
    bed[i].told.underlay.erase(bed[i].told.underlay.begin());
    ASSERT_EQ(bed.in_node(i, "ip -4 addr flush dev eth0"), "");
  }
  bed.apply_all();
  expect_connected(bed, 0, 1, 1430);
}

TEST(UnderlayTest, NodeFromAfarJoinsThoseOnALink) {
  UnderlayBed bed({kBridge, kBridge, kRouter});
  bed.apply_all();
  expect_connected(bed, 0, 1, 1450);
  expect_connected(bed, 0, 2, 1450);
  EXPECT_THAT(bed.ours(0), HasSubstr("10.213.2.0/24 via 192.0.2.2 dev eth0"));
  EXPECT_THAT(bed.ours(0), HasSubstr("10.213.3.0/24 via 10.213.3.0 dev mesh0"));
}

TEST(UnderlayTest, TunnelCanBeAskedForOnALink) {
  UnderlayBed bed({kBridge, kBridge});
  bed.apply_all({.mode = UnderlayMode::kVxlan});
  expect_connected(bed, 1, 0, 1450);
  EXPECT_THAT(bed.ours(0), Not(HasSubstr("dev eth0")));
}

TEST(UnderlayTest, PacketsFollowAPlanThatChanges) {
  UnderlayBed bed({kBridge, kBridge});
  bed.apply_all({.mode = UnderlayMode::kVxlan});
  ASSERT_TRUE(bed.reaches(0, 1, Family::kV4));
  bed.apply_all();
  expect_connected(bed, 0, 1, 1500);
  EXPECT_THAT(bed.ours(0), Not(HasSubstr("mesh0")));
  EXPECT_EQ(bed.in_node(0, "ip route show 10.213.2.0/24 | wc -l"), "1\n");
  EXPECT_EQ(bed.in_node(0, "ip -6 route show fd5a:1:2:1:2::/80 | wc -l"), "1\n");
}

TEST(UnderlayTest, NodeThatLeavesTakesItsEntriesWithIt) {
  UnderlayBed bed({kRouter, kRouter, kRouter});
  bed.apply_all();
  ASSERT_TRUE(bed.reaches(0, 2, Family::kV4));
  bed.apply(0, bed.plan(0, {}, 2));
  expect_connected(bed, 0, 1, 1450);
  expect_cut(bed, 0, 2);
  for (const char* of_the_third : {"10.213.3.", "fd5a:1:2:1:3", "02:6d:c6:33:64:31"}) {
    EXPECT_THAT(bed.ours(0), Not(HasSubstr(of_the_third)));
  }
}

TEST(UnderlayTest, NothingIsLeftOfAnEmptyPlan) {
  for (const auto& wires : {std::vector{kBridge, kRouter}, std::vector{kBridge, kBridge}}) {
    SCOPED_TRACE(wires.size());
    UnderlayBed bed(wires);
    const auto routes = bed.in_node(0, "ip route; ip -6 route");
    bed.apply_all();
    ASSERT_NE(bed.ours(0), "");
    bed.apply(0, {});
    EXPECT_EQ(bed.ours(0), "");
    expect_cut(bed, 0, 1);
    EXPECT_EQ(bed.in_node(0, "ip route; ip -6 route"), routes) << "the ranges' own stay";
  }
}

// What each of these does is undone by one audit, which tells of it; the next has nothing to tell.
TEST(UnderlayTest, ForeignHandsAreRepaired) {
  UnderlayBed bed({kRouter, kRouter});
  bed.apply_all();
  ASSERT_TRUE(bed.reaches(0, 1, Family::kV4));
  const auto before = bed.ours(0);
  ASSERT_THAT(bed.audit(0), IsEmpty());
  const char* const mac = "02:6d:c6:33:64:21";
  const std::vector<std::pair<std::string, std::string>> hands = {
      {"ip route del 10.213.2.0/24", "route 10.213.2.0/24 via 10.213.2.0 dev mesh0 was missing"},
      {"ip route change 10.213.2.0/24 via 198.51.100.18 dev eth0", "route 10.213.2.0/24"},
      {"ip route add 10.213.9.0/24 via 198.51.100.18 proto 213", "belonged to nobody"},
      {"ip -6 route del fd5a:1:2:1:2::/80", "route fd5a:1:2:1:2::/80"},
      {"ip neigh del 10.213.2.0 dev mesh0", "neighbour 10.213.2.0"},
      {"ip neigh replace 10.213.2.0 lladdr 02:00:00:00:00:66 dev mesh0 nud permanent",
       "neighbour 10.213.2.0"},
      {"ip neigh add 10.213.9.0 lladdr 02:00:00:00:00:66 dev mesh0 nud permanent",
       "neighbour 10.213.9.0 at 02:00:00:00:00:66 dev mesh0 belonged to nobody"},
      {std::string("bridge fdb del ") + mac + " dev mesh0 dst 198.51.100.33",
       std::string("forwarding entry ") + mac + " to 198.51.100.33 was missing"},
      {std::string("bridge fdb replace ") + mac + " dev mesh0 dst 198.51.100.99 self permanent",
       "forwarding entry"},
      {"bridge fdb add 00:00:00:00:00:00 dev mesh0 dst 198.51.100.99 self permanent",
       "forwarding entry 00:00:00:00:00:00 to 198.51.100.99 belonged to nobody"},
      {"ip link set mesh0 down", "link mesh0 had another up"},
      {"ip link set mesh0 mtu 1400", "link mesh0 had another mtu"},
      {"ip link set mesh0 group 5", "link mesh0 had another group"},
      {"ip link set mesh0 address 02:00:00:00:00:66", "link mesh0 had another address"},
      {"ip link set mesh0 type vxlan learning", "link mesh0 was another tunnel"},
      {"ip link set mesh0 down && ip link set mesh0 name other", "link other belonged to nobody"},
      {"ip link del mesh0", "link mesh0 was missing"},
  };
  for (const auto& [command, told] : hands) {
    SCOPED_TRACE(command);
    ASSERT_EQ(bed.in_node(0, command), "");
    EXPECT_THAT(bed.audit(0), Contains(HasSubstr(told)));
    EXPECT_THAT(bed[0].underlay->trouble(), IsEmpty());
    EXPECT_THAT(bed.audit(0), IsEmpty());
    EXPECT_EQ(bed.ours(0), before);
  }
  expect_connected(bed, 0, 1, 1450);
}

TEST(UnderlayTest, ForeignHandsOnRoutesWithoutATunnelAreRepaired) {
  UnderlayBed bed({kBridge, kBridge});
  bed.apply_all();
  for (const char* command :
       {"ip route del 10.213.2.0/24", "ip -6 route flush proto 213 root fd5a:1:2:1:2::/80",
        "ip route change 10.213.2.0/24 via 192.0.2.254",
        "ip link set eth0 down && ip link set eth0 up && ip addr add 2001:db8::1/64 dev eth0 nodad"
        " && ip route add default via 192.0.2.254"}) {
    SCOPED_TRACE(command);
    ASSERT_EQ(bed.in_node(0, command), "");
    EXPECT_THAT(bed.audit(0), Not(IsEmpty()));
    EXPECT_THAT(bed.audit(0), IsEmpty());
  }
  expect_connected(bed, 0, 1, 1500);
}

// A link that is down is told of, keeps nothing else from being made, and is tried again.
TEST(UnderlayTest, LinkThatIsDownIsTroubleForItsRoutesOnly) {
  UnderlayBed bed({kBridge, kBridge});
  const auto plan = bed.plan(0);
  ASSERT_EQ(bed.in_node(0, "ip link set eth0 down"), "");
  const auto refused = must(netlink::call_in_netns(bed[0].netns.fd(), [&]() -> Result<Error> {
    const auto status = bed[0].underlay->apply(plan);
    if (status) return fail(ErrorCode::kInternal, "a route by a link that is down");
    return status.error();
  }));
  EXPECT_THAT(refused.what, HasSubstr("underlay: add route 10.213.2.0/24 via 192.0.2.2 dev eth0"));
  EXPECT_THAT(bed[0].underlay->trouble(), SizeIs(2));
  ASSERT_EQ(bed.in_node(0, "ip link set eth0 up"), "");
  EXPECT_THAT(bed.audit(0), IsEmpty()) << "made late, which is nobody's doing";
  EXPECT_THAT(bed[0].underlay->trouble(), IsEmpty());
  EXPECT_THAT(bed.ours(0), HasSubstr("10.213.2.0/24 via 192.0.2.2 dev eth0"));
  ASSERT_EQ(bed.in_node(0, "ip link set eth0 down && ip link set eth0 up"), "");
  EXPECT_THAT(bed.audit(0), Contains(HasSubstr("route 10.213.2.0/24"))) << "now it was taken away";
}

TEST(UnderlayTest, LinkOfThatNameThatIsNotOursIsLeftAlone) {
  UnderlayBed bed({kBridge, kBridge, kRouter});
  ASSERT_EQ(bed.in_node(0, "ip link add mesh0 type bridge"), "");
  const auto plan = bed.plan(0);
  must(netlink::run_in_netns(bed[0].netns.fd(), [&] {
    const auto refused = bed[0].underlay->apply(plan);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().what, "underlay: link mesh0 is not ours: give it another name");
  }));
  EXPECT_THAT(bed.in_node(0, "ip -d link show mesh0"), HasSubstr("bridge"));
  EXPECT_THAT(bed.ours(0), HasSubstr("10.213.2.0/24 via 192.0.2.2 dev eth0"));
  ASSERT_EQ(bed.in_node(0, "ip link del mesh0"), "");
  EXPECT_THAT(bed.audit(0), IsEmpty()) << "made late, which is nobody's doing";
  bed.apply(2, bed.plan(2));
  EXPECT_TRUE(bed.reaches(0, 2, Family::kV4));
}

// A link on the way takes less than the nodes know of. Beneath IPv4 the packets of a tunnel go in
// pieces. IPv6 never splits on the way: containers hear what fits, of IPv6; of IPv4 the kernel
// does not tell them (docs/cluster-underlay.md).
TEST(UnderlayTest, SmallerLinkOnTheWayIsFound) {
  for (const bool by_v6 : {false, true}) {
    SCOPED_TRACE(by_v6 ? "beneath IPv6" : "beneath IPv4");
    UnderlayBed bed({kRouter, kRouter});
    for (std::size_t i = 0; by_v6 && i < 2; ++i) {
      bed[i].told.underlay.erase(bed[i].told.underlay.begin());
      ASSERT_EQ(bed.in_node(i, "ip -4 addr flush dev eth0"), "");
    }
    bed.apply_all();
    const int full = by_v6 ? 1430 : 1450;
    for (const auto family : kFamilies) {
      ASSERT_TRUE(bed.reaches(0, 1, family));
      ASSERT_TRUE(bed.carries(0, 1, family, full));
    }
    ASSERT_EQ(test::output_of("ip link set up2 mtu 1400"), "");
    ASSERT_EQ(bed.in_node(1, "ip link set eth0 mtu 1400"), "");
    for (const auto family : kFamilies) {
      if (by_v6 && family == Family::kV4) continue;
      SCOPED_TRACE(family == Family::kV4 ? "IPv4 inside" : "IPv6 inside");
      if (by_v6) {
        EXPECT_FALSE(bed.carries(0, 1, family, full)) << "this one tells the node";
        // Of the next ones the node itself says so.
        const auto said = bed.in_container(
            0, "ping -n -c 5 -i 0.2 -W 1 -M do -s 1350 " + bed[1].at(family).to_string());
        EXPECT_THAT(said, HasSubstr("mtu=1330")) << said;
      }
      EXPECT_TRUE(bed.carries(0, 1, family, by_v6 ? 1330 : full));
      EXPECT_TRUE(bed.streams(0, 1, family));
      EXPECT_TRUE(bed.streams(1, 0, family));
    }
  }
}

// A new process finds everything as it is to be: no event, and so no packet lost.
TEST(UnderlayTest, RestartWritesNothing) {
  UnderlayBed bed({kBridge, kBridge, kRouter});
  bed.apply_all();
  auto events =
      must(netlink::open_channel_in(bed[0].netns.fd(), netlink::Channel::Protocol::kRoute));
  for (const unsigned group : {RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
                               RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF}) {
    must(events.join_group(group));
  }
  bed.restart(0);
  bed.apply(0, bed.plan(0));
  EXPECT_THAT(bed.audit(0), IsEmpty());
  EXPECT_EQ(bed[0].underlay->changes(), 0U);
  while (const auto datagram = must(events.receive_now())) {
    netlink::for_each_message(*datagram, [](const netlink::MessageView& message) {
      ADD_FAILURE() << "an event of type " << message.type;
    });
  }
  ASSERT_EQ(bed.in_node(0, "ip neigh del 10.213.3.0 dev mesh0"), "");
  EXPECT_TRUE(must(events.receive_now())) << "this listener hears what happens";
}

// Node 3 knows node 1, which does not know node 3: what it sends arrives and teaches nothing.
TEST(UnderlayTest, UnknownNodesAreNotLearned) {
  UnderlayBed bed({kRouter, kRouter, kRouter});
  bed.apply(0, bed.plan(0, {}, 2));
  bed.apply(1, bed.plan(1));
  bed.apply(2, bed.plan(2));
  ASSERT_TRUE(bed.reaches(1, 0, Family::kV4));
  const auto received = [&] {
    return bed.in_node(0, "cat /proc/net/dev | sed -n 's/^ *mesh0: *[0-9]* *\\([0-9]*\\).*/\\1/p'");
  };
  const auto before = std::stoi(received());
  expect_cut(bed, 2, 0);
  EXPECT_GE(std::stoi(received()), before + 2) << "this test sent nothing";
  auto channel =
      must(netlink::open_channel_in(bed[0].netns.fd(), netlink::Channel::Protocol::kRoute));
  const auto tunnel = must(netlink::find_link(channel, kTunnelName));
  const auto entries = must(netlink::list_fdb(channel, tunnel->index));
  ASSERT_THAT(entries, SizeIs(1));
  EXPECT_EQ(entries[0].remote, test::ip("198.51.100.33"));
  EXPECT_THAT(bed.audit(0), IsEmpty());
}

TEST(UnderlayTest, NodeWhoseAddressChangedIsFound) {
  UnderlayBed bed({kRouter, kRouter});
  bed.apply_all();
  ASSERT_TRUE(bed.reaches(0, 1, Family::kV4));
  ASSERT_EQ(bed.in_node(1,
                        "ip addr del 198.51.100.33/28 dev eth0;"
                        "ip addr add 198.51.100.40/28 dev eth0;"
                        "ip route add default via 198.51.100.34"),
            "");
  bed[1].told.underlay[0] = test::ip("198.51.100.40");
  bed.apply_all();
  expect_connected(bed, 0, 1, 1450);
  const auto fdb = bed.in_node(0, "bridge fdb show dev mesh0");
  EXPECT_THAT(fdb, HasSubstr("198.51.100.40"));
  EXPECT_THAT(fdb, Not(HasSubstr("198.51.100.33")));
}

// The audit of the node's own links does not take routes to others for strangers.
TEST(UnderlayTest, TopologyLeavesRoutesToOtherNodesAlone) {
  UnderlayBed bed({kBridge, kRouter});
  bed.apply_all();
  const auto before = bed.ours(0);
  must(netlink::run_in_netns(bed[0].netns.fd(), [] {
    auto topology = must(Topology::make(test::sample_settings()));
    LinkPlan plan;
    plan.host_ifname = "mesh1";
    plan.mac = Mac{{2, 0, 0, 0, 1, 5}};
    plan.v4 = test::ip("10.213.1.5");
    plan.v6 = test::ip("fd5a:1:2:1:1::5");
    must(topology.audit({plan}));
    EXPECT_THAT(must(topology.audit({plan})).what, IsEmpty());
  }));
  EXPECT_EQ(bed.ours(0), before);
}

TEST(UnderlayTest, PurgeKnowsWhatIsOurs) {
  UnderlayBed bed({kBridge, kBridge, kRouter});
  bed.apply_all();
  ASSERT_EQ(bed.in_node(0,
                        "ip link add flannel.1 type vxlan id 1 dstport 8472 nolearning;"
                        "ip route add 203.0.113.0/24 via 192.0.2.254"),
            "");
  must(netlink::call_in_netns(bed[0].netns.fd(), [] { return Topology::purge({}); }));
  EXPECT_EQ(bed.ours(0), "");
  EXPECT_EQ(bed.in_node(0, "ip route show proto 213; ip -6 route show proto 213"), "");
  EXPECT_THAT(bed.in_node(0, "ip link; ip route"),
              testing::AllOf(HasSubstr("flannel.1"), HasSubstr("203.0.113.0/24")));
}

TEST(UnderlayTest, AddressesAreThoseOfTheWayOut) {
  UnderlayBed bed({kBridge});
  ASSERT_EQ(bed.in_node(0,
                        "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0;"
                        "ip link set docker0 up"),
            "");
  auto& underlay = *bed[0].underlay;
  EXPECT_THAT(must(underlay.addresses({})),
              ElementsAre(test::ip("192.0.2.1"), test::ip("2001:db8::1")));
  EXPECT_THAT(must(underlay.addresses({.device = "docker0"})), ElementsAre(test::ip("172.17.0.1")));
  EXPECT_THAT(must(underlay.addresses({.addresses = {test::ip("192.0.2.9")}})),
              ElementsAre(test::ip("192.0.2.9")));
}

// A peer to which some other tunnel leads is on no link.
TEST(UnderlayTest, LinksWithoutArpAreNoLinksToRouteBy) {
  UnderlayBed bed({kBridge});
  ASSERT_EQ(bed.in_node(0,
                        "ip link add wg0 type veth peer name wg1; ip link set wg0 arp off up;"
                        "ip addr add 203.0.113.1/24 dev wg0; ip link set wg0 mtu 1420"),
            "");
  bool eth0 = false, wg0 = false;
  for (const auto& route : must(bed[0].underlay->routes())) {
    if (route.destination == test::prefix("192.0.2.0/24")) eth0 = route.on_link;
    if (route.destination != test::prefix("203.0.113.0/24")) continue;
    wg0 = true;
    EXPECT_FALSE(route.on_link);
    EXPECT_EQ(route.mtu, 1420U);
  }
  EXPECT_TRUE(eth0);
  EXPECT_TRUE(wg0);
}

}  // namespace
}  // namespace meshd
