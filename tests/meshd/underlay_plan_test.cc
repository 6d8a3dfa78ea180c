// Which way packets take to which node, from values alone.
#include "meshd/underlay_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meshd {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using Nodes = std::map<std::string, policy::RemoteNode>;

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }
Prefix prefix(std::string_view text) { return Prefix::parse(text).value(); }

UnderlayRoute on_link(std::string_view destination, std::string device, std::uint32_t mtu = 1500) {
  return {prefix(destination), std::move(device), true, mtu, 0};
}
UnderlayRoute by_router(std::string_view destination, std::string device,
                        std::uint32_t mtu = 1500) {
  return {prefix(destination), std::move(device), false, mtu, 0};
}

// 192.0.2.1 and 2001:db8::1 on eth0, with a router to everything else.
UnderlaySelf self() {
  return {{ip("192.0.2.1"), ip("2001:db8::1")},
          {prefix("10.213.0.0/16"), prefix("fd5a:1:2:1::/64")},
          {prefix("10.213.0.0/16"), prefix("fd5a:1:2:1::/64"), prefix("10.214.0.0/16")},
          {prefix("10.213.1.0/24"), prefix("fd5a:1:2:1:1::/80")},
          {on_link("192.0.2.0/24", "eth0"), on_link("2001:db8::/64", "eth0"),
           by_router("0.0.0.0/0", "eth0"), by_router("::/0", "eth0")}};
}
policy::RemoteNode peer(int number, std::string_view v4, std::string_view v6 = {}) {
  const auto text = std::to_string(number);
  policy::RemoteNode made{
      "n" + text,
      {prefix("10.213." + text + ".0/24"), prefix("fd5a:1:2:1:" + text + "::/80")},
      {ip(v4)}};
  if (!v6.empty()) made.underlay.push_back(ip(v6));
  return made;
}
policy::RemoteNode near() { return peer(2, "192.0.2.2", "2001:db8::2"); }
policy::RemoteNode far() { return peer(3, "198.51.100.3", "2001:db8:1::3"); }

TEST(UnderlayPlanTest, NobodyElseMeansNothing) {
  EXPECT_EQ(plan_underlay({}, self(), {}), UnderlayPlan());
}

TEST(UnderlayPlanTest, NodeOnALinkIsRoutedTo) {
  const auto plan = plan_underlay({{"n2", near()}}, self(), {});
  EXPECT_FALSE(plan.tunnel);
  EXPECT_THAT(plan.peers, IsEmpty());
  EXPECT_THAT(plan.problems, IsEmpty());
  EXPECT_THAT(plan.trunks, ElementsAre("eth0"));
  EXPECT_EQ(plan.mtu, 1500U);
  EXPECT_THAT(
      plan.routes,
      ElementsAre(UnderlayPlan::Route{prefix("10.213.2.0/24"), "eth0", ip("192.0.2.2")},
                  UnderlayPlan::Route{prefix("fd5a:1:2:1:2::/80"), "eth0", ip("2001:db8::2")}));
}

TEST(UnderlayPlanTest, NodeBehindARouterIsTunnelledTo) {
  const auto plan = plan_underlay({{"n3", far()}}, self(), {});
  const Mac mac{{0x02, 0x6d, 198, 51, 100, 3}};
  const auto gateway6 = ip("fe80::6d:c6ff:fe33:6403");
  ASSERT_TRUE(plan.tunnel);
  EXPECT_EQ(plan.tunnel->local, ip("192.0.2.1"));
  EXPECT_EQ(plan.tunnel->mac, (Mac{{0x02, 0x6d, 192, 0, 2, 1}}));
  EXPECT_EQ(plan.tunnel->mtu, 1450U);
  EXPECT_EQ(plan.mtu, 1450U);
  EXPECT_THAT(plan.trunks, ElementsAre(kTunnelName));
  EXPECT_THAT(plan.peers, ElementsAre(UnderlayPlan::Peer{
                              mac, ip("198.51.100.3"), {ip("10.213.3.0"), gateway6}}));
  EXPECT_THAT(
      plan.routes,
      ElementsAre(UnderlayPlan::Route{prefix("10.213.3.0/24"), kTunnelName, ip("10.213.3.0")},
                  UnderlayPlan::Route{prefix("fd5a:1:2:1:3::/80"), kTunnelName, gateway6}));
}

// A node that joins from afar does not move the others' flows.
TEST(UnderlayPlanTest, EachNodeHasItsOwnWay) {
  const auto alone = plan_underlay({{"n2", near()}}, self(), {});
  const auto both = plan_underlay({{"n2", near()}, {"n3", far()}}, self(), {});
  for (const auto& route : alone.routes) EXPECT_THAT(both.routes, testing::Contains(route));
  EXPECT_THAT(both.peers, SizeIs(1));
  EXPECT_THAT(both.trunks, ElementsAre("eth0", kTunnelName));
  EXPECT_EQ(both.mtu, 1450U) << "a packet must fit whichever way it goes";
}

TEST(UnderlayPlanTest, RouteThatIsLongerDecidesWhatIsOnALink) {
  auto node = self();
  node.routes.push_back(by_router("192.0.2.2/32", "eth0"));
  EXPECT_TRUE(plan_underlay({{"n2", near()}}, node, {}).tunnel);
  node.routes.back().on_link = true;
  EXPECT_FALSE(plan_underlay({{"n2", near()}}, node, {}).tunnel);
  // Of two equally long ones that of the lower metric.
  node.routes.push_back(by_router("192.0.2.2/32", "eth1"));
  node.routes.back().metric = 7;
  EXPECT_FALSE(plan_underlay({{"n2", near()}}, node, {}).tunnel);
}

// Its IPv6 could only go through a tunnel, and one node takes one way.
TEST(UnderlayPlanTest, NodeThatLacksAFamilyBeneathIsTunnelledTo) {
  const auto plan = plan_underlay({{"n2", peer(2, "192.0.2.2")}}, self(), {});
  EXPECT_THAT(plan.trunks, ElementsAre(kTunnelName));
  EXPECT_THAT(plan.routes, SizeIs(2));
}

TEST(UnderlayPlanTest, ModesAreObeyed) {
  const auto vxlan = plan_underlay({{"n2", near()}}, self(), {.mode = UnderlayMode::kVxlan});
  EXPECT_THAT(vxlan.trunks, ElementsAre(kTunnelName));
  const auto routed =
      plan_underlay({{"n2", near()}, {"n3", far()}}, self(), {.mode = UnderlayMode::kRouted});
  EXPECT_FALSE(routed.tunnel);
  EXPECT_THAT(routed.routes, SizeIs(2));
  EXPECT_THAT(routed.problems,
              ElementsAre("node n3: no IPv4 address of it is on a link of this node, and "
                          "underlay.mode is ROUTED",
                          HasSubstr("no IPv6 address")));
}

TEST(UnderlayPlanTest, DeviceIsTheOnlyOneToRouteBy) {
  EXPECT_TRUE(plan_underlay({{"n2", near()}}, self(), {.device = "eth1"}).tunnel);
  EXPECT_FALSE(plan_underlay({{"n2", near()}}, self(), {.device = "eth0"}).tunnel);
}

TEST(UnderlayPlanTest, FirstContainersHaveTheTunnelsMtuBeforeAnyNodeIsKnown) {
  const auto plan = plan_underlay({}, self(), {.mode = UnderlayMode::kVxlan});
  EXPECT_FALSE(plan.tunnel);
  EXPECT_EQ(plan.mtu, 1450U);
}

TEST(UnderlayPlanTest, SmallestLinkBeneathIsTheMeasure) {
  auto node = self();
  node.routes.push_back(by_router("198.51.100.0/24", "wan", 1400));
  const auto plan =
      plan_underlay({{"n2", near()}, {"n3", far()}, {"n4", peer(4, "203.0.113.4")}}, node, {});
  EXPECT_EQ(plan.tunnel->mtu, 1350U);
  node.routes.back().mtu = 1300;
  EXPECT_THAT(plan_underlay({{"n3", far()}}, node, {}).problems,
              ElementsAre(HasSubstr("room for 1250 bytes, and IPv6 needs 1280")));
}

// Everybody counts everybody, so everybody comes to the same.
TEST(UnderlayPlanTest, OuterFamilyIsTheOneThatMostNodesHave) {
  const auto only6 = [](int number) {
    auto made = peer(number, "198.51.100.9");
    made.underlay = {ip("2001:db8:1::" + std::to_string(number))};
    return made;
  };
  auto plan = plan_underlay({{"n3", far()}, {"n4", only6(4)}}, self(), {});
  EXPECT_EQ(plan.tunnel->local, ip("2001:db8::1"));
  EXPECT_EQ(plan.tunnel->mtu, 1430U);
  EXPECT_THAT(plan.peers, SizeIs(2));
  EXPECT_THAT(plan.problems, IsEmpty());
  // As many of both: IPv4, and who has none is told of.
  auto node = self();
  node.addresses.pop_back();
  plan = plan_underlay({{"n3", far()}, {"n4", only6(4)}}, node, {});
  EXPECT_EQ(plan.tunnel->local, ip("192.0.2.1"));
  EXPECT_THAT(plan.problems,
              ElementsAre("node n4: it has no IPv4 address for a tunnel, as most nodes have"));
}

// A route of ours must not lead the node's own traffic astray, whoever tells of it.
TEST(UnderlayPlanTest, BlocksThatAreNotANodesToGiveAreRefused) {
  auto wild = near();
  wild.blocks = {prefix("0.0.0.0/0"),       prefix("10.214.3.0/24"), prefix("10.213.0.0/16"),
                 prefix("10.213.1.128/25"), prefix("10.213.3.0/25"), prefix("10.213.9.0/24")};
  const auto plan = plan_underlay({{"n2", far()}, {"n3", wild}}, self(), {});
  EXPECT_THAT(plan.problems,
              ElementsAre("node n3: its block 0.0.0.0/0 is not part of the mesh's pools",
                          "node n3: its block 10.214.3.0/24 is not part of the mesh's pools",
                          "node n3: its block 10.213.0.0/16 overlaps this node's own",
                          "node n3: its block 10.213.1.128/25 overlaps this node's own",
                          "node n3: its block 10.213.3.0/25 overlaps that of another node"));
  EXPECT_THAT(plan.routes, SizeIs(3));
  EXPECT_THAT(plan.routes,
              testing::Contains(Field(&UnderlayPlan::Route::block, prefix("10.213.9.0/24"))));
}

TEST(UnderlayPlanTest, AddressesThatLeadNowhereAreRefused) {
  const auto plan =
      plan_underlay({{"n2", peer(2, "192.0.2.1")}, {"n3", peer(3, "10.213.3.9")}}, self(), {});
  EXPECT_THAT(plan.routes, IsEmpty());
  EXPECT_THAT(plan.problems,
              ElementsAre("node n2: its address 192.0.2.1 is this node's own",
                          "node n2: no address that it can be reached by",
                          "node n3: its address 10.213.3.9 is one of the mesh's ranges",
                          "node n3: no address that it can be reached by"));
  auto node = self();
  node.routes.resize(2);  // no default routes
  EXPECT_THAT(plan_underlay({{"n3", far()}}, node, {}).problems,
              ElementsAre("node n3: no route leads to its address 198.51.100.3"));
}

TEST(UnderlayPlanTest, TwoNodesWithOneAddressAreNotMixedUp) {
  const auto plan =
      plan_underlay({{"n3", peer(3, "198.51.100.3")}, {"n4", peer(4, "198.51.100.3")}}, self(), {});
  EXPECT_THAT(plan.peers, SizeIs(1));
  EXPECT_THAT(plan.problems, ElementsAre(HasSubstr("node n4: its address 198.51.100.3 cannot")));
}

TEST(UnderlayPlanTest, ForeignRoutesWithinABlockAreNamed) {
  const auto plan = plan_underlay({{"n3", far()}}, self(), {});
  EXPECT_TRUE(check_underlay(plan, {}));
  const HostRoute harmless[] = {{prefix("10.0.0.0/8"), "eth1"}, {prefix("10.213.4.0/24"), "eth1"}};
  EXPECT_TRUE(check_underlay(plan, harmless));
  const HostRoute harmful[] = {{prefix("10.213.3.128/25"), "docker0"}};
  const auto refused = check_underlay(plan, harmful);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kConflict);
  EXPECT_EQ(refused.error().what,
            "the host's route 10.213.3.128/25 dev docker0 takes packets for other nodes' block "
            "10.213.3.0/24: remove it");
}

TEST(UnderlayPlanTest, TunnelAddressesOfBothFamiliesDiffer) {
  EXPECT_EQ(tunnel_mac(ip("192.0.2.7")).to_string(), "02:6d:c0:00:02:07");
  const auto one = tunnel_mac(ip("2001:db8::1")), other = tunnel_mac(ip("2001:db8::2"));
  EXPECT_NE(one, other);
  EXPECT_EQ(one.bytes[0], 0x06) << "unicast, locally administered, not one of IPv4's";
  EXPECT_EQ(link_local_of(Mac{{0x02, 0x6d, 0xc0, 0, 2, 7}}), ip("fe80::6d:c0ff:fe00:207"));
}

}  // namespace
}  // namespace meshd
