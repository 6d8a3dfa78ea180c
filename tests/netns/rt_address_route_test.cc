#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "netlink/address_route.h"
#include "netlink/uplink.h"
#include "tests/support/rt_fixture.h"

namespace meshd::netlink {
namespace {

using test::ip;
using test::make_netns;
using test::must;
using test::output_of;
using test::prefix;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<Address> resolver_addresses() {
  return {{.ifindex = kLoopbackIndex,
           .address = ip("169.254.1.1"),
           .prefix_length = 32,
           .scope = Scope::kHost},
          {.ifindex = kLoopbackIndex,
           .address = ip("fd88:53::53"),
           .prefix_length = 128,
           .deprecated = true,
           .nodad = true,
           .no_prefix_route = true}};
}

std::vector<Route> mesh_routes() {
  return {{.destination = prefix("10.88.0.0/15"),
           .ifindex = kLoopbackIndex,
           .scope = Scope::kLink,
           .metric = 4278198272},
          {.destination = prefix("fd88::/31"), .ifindex = kLoopbackIndex, .metric = 4278198272},
          {.destination = prefix("fd90::/32"), .ifindex = kLoopbackIndex}};
}

class RtAddressRouteTest : public test::RtFixture {
 protected:
  // A container's two ends, up and without addresses.
  struct Pair {
    Netns container;
    Channel inside;
    Link host, peer;
  };
  Pair pair() {
    Netns container = make_netns();
    Channel inside = must(open_channel_in(container.fd(), Channel::Protocol::kRoute));
    const Link host = must(create_veth(channel(), veth(container)));
    const Link peer = *must(find_link(inside, "eth0"));
    const LinkWish wish{.up = true, .no_link_local = true};
    must(ensure_link(inside, peer, wish));
    must(ensure_link(channel(), host, wish));
    return {std::move(container), std::move(inside), host, peer};
  }
};

TEST_F(RtAddressRouteTest, AddressesAreWrittenOnce) {
  const auto wanted = resolver_addresses();
  EXPECT_THAT(must(ensure_addresses(channel(), wanted)), SizeIs(2));
  const auto changes = channel().changes();
  EXPECT_THAT(must(ensure_addresses(channel(), wanted)), IsEmpty());
  EXPECT_EQ(channel().changes(), changes);
  EXPECT_THAT(output_of("ip addr show dev lo"), HasSubstr("inet 169.254.1.1/32 scope host lo"));
  EXPECT_THAT(output_of("ip addr show dev lo"), HasSubstr("deprecated"));
}

TEST_F(RtAddressRouteTest, ChangedAddressIsPutRight) {
  const auto wanted = resolver_addresses();
  must(ensure_addresses(channel(), wanted));
  ASSERT_EQ(output_of("ip addr del 169.254.1.1/32 dev lo; ip addr add 169.254.1.1/32 dev lo;"
                      "ip -6 addr change fd88:53::53/128 dev lo preferred_lft forever"),
            "");
  EXPECT_THAT(must(ensure_addresses(channel(), wanted)), SizeIs(2));
  EXPECT_THAT(must(ensure_addresses(channel(), wanted)), IsEmpty());
}

TEST_F(RtAddressRouteTest, AddressIsRemovedOnce) {
  const auto wanted = resolver_addresses();
  must(ensure_addresses(channel(), wanted));
  for (const Address& address : wanted) {
    EXPECT_TRUE(must(delete_address(channel(), address)));
    EXPECT_FALSE(must(delete_address(channel(), address)));
  }
}

TEST_F(RtAddressRouteTest, RoutesToLoAreWrittenOnce) {
  const auto wanted = mesh_routes();
  EXPECT_THAT(must(ensure_routes(channel(), wanted)), SizeIs(3));
  const auto changes = channel().changes();
  EXPECT_THAT(must(ensure_routes(channel(), wanted)), IsEmpty())
      << output_of("ip route; ip -6 route");
  EXPECT_EQ(channel().changes(), changes);
  EXPECT_THAT(output_of("ip route"), HasSubstr("10.88.0.0/15 dev lo proto 213"));
}

TEST_F(RtAddressRouteTest, ForeignRouteInOurPlaceIsReplaced) {
  const auto wanted = mesh_routes();
  must(ensure_routes(channel(), wanted));
  ASSERT_EQ(output_of("ip route replace unreachable 10.88.0.0/15 metric 4278198272;"
                      "ip -6 route replace unreachable fd90::/32 metric 1024"),
            "");
  EXPECT_THAT(must(ensure_routes(channel(), wanted)), ElementsAre(wanted[0], wanted[2]));
  EXPECT_THAT(must(ensure_routes(channel(), wanted)), IsEmpty());
  EXPECT_THAT(output_of("ip route; ip -6 route"), Not(HasSubstr("unreachable 10.88")));
}

TEST_F(RtAddressRouteTest, OurRoutesAreListedByProtocolAndRemovedOnce) {
  ASSERT_EQ(output_of("ip route add 192.0.2.0/24 dev lo; ip -6 route add 2001:db8::/32 dev lo"),
            "");
  const auto wanted = mesh_routes();
  must(ensure_routes(channel(), wanted));
  const auto ours = must(list_routes(channel(), {.protocol = kOurProtocol}));
  EXPECT_THAT(ours, SizeIs(3));
  for (const Route& route : ours) {
    EXPECT_TRUE(must(delete_route(channel(), route))) << route.to_string();
    EXPECT_FALSE(must(delete_route(channel(), route)));
  }
  EXPECT_THAT(must(list_routes(channel(), {.protocol = kOurProtocol})), IsEmpty());
  EXPECT_THAT(output_of("ip route; ip -6 route"), HasSubstr("192.0.2.0/24"));
}

TEST_F(RtAddressRouteTest, TablesThatAreNotThereListNothing) {
  EXPECT_THAT(must(list_routes(channel(), {.table = 7001})), IsEmpty());
  EXPECT_THAT(must(list_routes(channel(), {.ifindex = 4711})), IsEmpty());
  EXPECT_THAT(must(list_addresses(channel(), 4711)), IsEmpty());
  EXPECT_THAT(must(list_neighbours(channel(), 4711)), IsEmpty());
}

TEST_F(RtAddressRouteTest, ContainerSideIsConfiguredOnce) {
  Pair ends = pair();
  const int eth0 = ends.peer.index;
  const std::vector<Address> addresses = {
      {.ifindex = eth0, .address = ip("10.88.0.9"), .prefix_length = 32},
      {.ifindex = eth0, .address = ip("fd88::9"), .prefix_length = 128, .nodad = true}};
  const std::vector<Neighbour> neighbours = {
      {.ifindex = eth0, .address = ip("169.254.1.1"), .mac = kHostMac},
      {.ifindex = eth0, .address = ip("fe80::1"), .mac = kHostMac}};
  const std::vector<Route> routes = {
      {.destination = prefix("169.254.1.1/32"), .ifindex = eth0, .scope = Scope::kLink},
      {.destination = prefix("0.0.0.0/0"), .ifindex = eth0, .gateway = ip("169.254.1.1")},
      {.destination = prefix("::/0"), .ifindex = eth0, .gateway = ip("fe80::1")},
      {.destination = prefix("198.51.100.0/24"),
       .ifindex = eth0,
       .gateway = ip("203.0.113.1"),
       .onlink = true,
       .table = 7001}};
  EXPECT_THAT(must(ensure_addresses(ends.inside, addresses)), SizeIs(2));
  EXPECT_THAT(must(ensure_neighbours(ends.inside, neighbours)), SizeIs(2));
  EXPECT_THAT(must(ensure_routes(ends.inside, routes)), SizeIs(4));
  const auto changes = ends.inside.changes();
  EXPECT_THAT(must(ensure_addresses(ends.inside, addresses)), IsEmpty());
  EXPECT_THAT(must(ensure_neighbours(ends.inside, neighbours)), IsEmpty());
  EXPECT_THAT(must(ensure_routes(ends.inside, routes)), IsEmpty());
  EXPECT_EQ(ends.inside.changes(), changes);
  EXPECT_THAT(uplinks(must(list_routes(ends.inside, {})), Family::kV6), ElementsAre(eth0));
}

TEST_F(RtAddressRouteTest, RuleIsWrittenOnceAndMovedWithoutAGap) {
  std::vector<SourceRule> rules = {{.from = prefix("10.88.0.9/32"), .table = 7001, .priority = 100},
                                   {.from = prefix("fd88::9/128"), .table = 7001, .priority = 100}};
  EXPECT_THAT(must(ensure_rules(channel(), rules)), SizeIs(2));
  EXPECT_THAT(must(ensure_rules(channel(), rules)), IsEmpty());
  rules[0].table = 7002;
  EXPECT_THAT(must(ensure_rules(channel(), rules)), ElementsAre(rules[0]));
  EXPECT_THAT(must(list_rules(channel())), ElementsAre(rules[0], rules[1]));
  EXPECT_TRUE(must(delete_rule(channel(), rules[0])));
  EXPECT_FALSE(must(delete_rule(channel(), rules[0])));
}

TEST_F(RtAddressRouteTest, ForeignRulesAreLeftAlone) {
  ASSERT_EQ(output_of("ip rule add from 10.88.0.9 fwmark 1 table 7002 priority 100"), "");
  const std::vector<SourceRule> rules = {
      {.from = prefix("10.88.0.9/32"), .table = 7001, .priority = 100}};
  must(ensure_rules(channel(), rules));
  EXPECT_THAT(output_of("ip rule"), HasSubstr("fwmark 0x1 lookup 7002"));
}

TEST_F(RtAddressRouteTest, StrangersNeighbourIsPutRight) {
  Pair ends = pair();
  const std::vector<Neighbour> wanted = {
      {.ifindex = ends.host.index, .address = ip("10.88.0.9"), .mac = kPeerMac},
      {.ifindex = ends.host.index, .address = ip("fd88::9"), .mac = kPeerMac}};
  EXPECT_THAT(must(ensure_neighbours(channel(), wanted)), SizeIs(2));
  ASSERT_EQ(output_of("ip neigh replace 10.88.0.9 lladdr 02:00:00:00:00:99 dev v1 nud reachable"),
            "");
  EXPECT_THAT(must(ensure_neighbours(channel(), wanted)), ElementsAre(wanted[0]));
  EXPECT_THAT(must(list_neighbours(channel(), ends.host.index)), SizeIs(2));
  EXPECT_TRUE(must(delete_neighbour(channel(), wanted[0])));
  EXPECT_FALSE(must(delete_neighbour(channel(), wanted[0])));
}

TEST_F(RtAddressRouteTest, RefusalCarriesObjectErrnoAndKernelsWords) {
  const Pair ends = pair();
  const std::vector<Route> wanted = {{.destination = prefix("198.51.100.0/24"),
                                      .ifindex = ends.host.index,
                                      .gateway = ip("203.0.113.1")}};
  const auto refused = ensure_routes(channel(), wanted);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kSystem);
  EXPECT_EQ(refused.error().sys_errno, ENETUNREACH);
  EXPECT_THAT(refused.error().what, HasSubstr("198.51.100.0/24"));
  EXPECT_THAT(refused.error().what, HasSubstr("Nexthop has invalid gateway"));
}

TEST_F(RtAddressRouteTest, ThousandRoutesAreReadInOneDump) {
  const Pair ends = pair();
  std::vector<Route> wanted;
  for (std::uint64_t i = 1; i <= 1000; ++i) {
    wanted.push_back({.destination = Prefix::of(ip("10.88.0.0").plus(i), 32),
                      .ifindex = ends.host.index,
                      .scope = Scope::kLink});
    wanted.push_back(
        {.destination = Prefix::of(ip("fd88::").plus(i), 128), .ifindex = ends.host.index});
  }
  EXPECT_THAT(must(ensure_routes(channel(), wanted)), SizeIs(2000));
  EXPECT_THAT(must(ensure_routes(channel(), wanted)), IsEmpty());
}

TEST_F(RtAddressRouteTest, UplinksAndGlobalAddressesLeaveOutMeshAndPassingOnes) {
  ASSERT_EQ(output_of("ip link add up0 type veth peer name up1; ip link set up0 up;"
                      "ip link set up1 up;"
                      "ip addr add 192.0.2.7/24 dev up0; ip addr add 192.0.2.8/24 dev up0;"
                      "ip addr add 2001:db8::7/64 dev up0 nodad;"
                      "ip addr add 2001:db8::8/64 dev up0 nodad preferred_lft 0;"
                      "ip link add m0 group 77 type veth peer name m1;"
                      "ip addr add 198.51.100.1/24 dev m0;"
                      "ip route add default via 192.0.2.1 metric 50;"
                      "ip -6 route add default via 2001:db8::1 dev up0"),
            "");
  must(ensure_addresses(channel(), resolver_addresses()));
  const auto links = must(list_links(channel()));
  const auto routes = must(list_routes(channel(), {.table = kMainTable}));
  const std::uint32_t ours[] = {kGroup};
  const auto addresses = must(list_addresses(channel()));
  EXPECT_THAT(global_addresses(links, addresses, ours),
              ElementsAre(ip("192.0.2.7"), ip("2001:db8::7")));
  const int up0 = must(find_link(channel(), "up0"))->index;
  EXPECT_THAT(uplinks(routes, Family::kV4), ElementsAre(up0));
  EXPECT_THAT(uplinks(routes, Family::kV6), ElementsAre(up0));
}

// One with a default route of IPv6, one with IPv4's, one that was told already, one without.
TEST_F(RtAddressRouteTest, UplinksThatWouldLoseTheirRouterAreFound) {
  ASSERT_EQ(output_of("for n in a b c d; do ip link add up$n type bridge;"
                      "ip link set up$n up; done;"
                      "ip -6 route add default via fe80::1 dev upa;"
                      "ip addr add 192.0.2.7/24 dev upb; ip route add default via 192.0.2.1;"
                      "ip -6 route add default via fe80::1 dev upc metric 2000"),
            "");
  for (const char* link : {"upa", "upb", "upd"}) {
    must(ensure_sysctl(std::string("net/ipv6/conf/") + link + "/accept_ra", "1"));
  }
  must(ensure_sysctl("net/ipv6/conf/upc/accept_ra", "2"));
  const auto losing = links_losing_router(must(list_links(channel())),
                                          must(list_routes(channel(), {.table = kMainTable})));
  std::vector<std::string> names;
  for (const auto& link : losing) names.push_back(link.name);
  EXPECT_THAT(names, ElementsAre("upa", "upb"));
}

}  // namespace
}  // namespace meshd::netlink
