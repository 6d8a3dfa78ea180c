// The node's part of the topology, in a network namespace that is the node.
#include "meshd/topology.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <utility>

#include "netlink/netns.h"
#include "tests/support/netns.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/ruleset_samples.h"

namespace meshd {
namespace {

using netlink::read_sysctl;
using netlink::write_sysctl;
using test::must;
using test::output_of;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

constexpr const char* kForward4 = "net/ipv4/ip_forward";
constexpr const char* kForward6 = "net/ipv6/conf/all/forwarding";

class TopologyTest : public testing::Test {
 protected:
  void SetUp() override {
    auto entered = test::PrivateNetns::enter();
    ASSERT_TRUE(entered) << entered.error().what;
    must(write_sysctl(kForward4, "0"));
    must(write_sysctl(kForward6, "0"));
    topology_.emplace(must(Topology::make(test::sample_settings())));
  }
  Topology& topology() { return *topology_; }

  std::optional<Topology> topology_;
};

TEST_F(TopologyTest, SysctlsAreRememberedBeforeTheyAreChanged) {
  std::vector<std::string> seen;
  topology().set_memory({}, [&](const std::vector<OldSysctl>& old) -> Status {
    for (const auto& one : old) {
      EXPECT_EQ(must(read_sysctl(one.key)), one.value) << one.key;
      seen.push_back(one.key + "=" + one.value);
    }
    return {};
  });
  must(topology().ensure_node());
  EXPECT_THAT(seen, testing::UnorderedElementsAre(std::string(kForward4) + "=0",
                                                  std::string(kForward6) + "=0"));
  // Nobody is forwarded before there is a table that could refuse him.
  for (const auto* key : {kForward4, kForward6}) EXPECT_EQ(must(read_sysctl(key)), "0");
  EXPECT_THAT(must(topology().audit({})).what, IsEmpty());
  for (const auto* key : {kForward4, kForward6}) EXPECT_EQ(must(read_sysctl(key)), "0");
  must(topology().begin_forwarding());
  for (const auto* key : {kForward4, kForward6}) EXPECT_EQ(must(read_sysctl(key)), "1");
  for (const auto family : kFamilies) EXPECT_TRUE(topology().forwarding_was_off(family));
}

TEST_F(TopologyTest, FamilyThatComesLaterIsForwardedWhenTheTableHasIt) {
  auto settings = test::sample_settings();
  const auto pool6 = std::exchange(settings.pool6, std::nullopt);
  topology().set_settings(settings);
  must(topology().ensure_node());
  must(topology().begin_forwarding());
  EXPECT_EQ(must(read_sysctl(kForward4)), "1");
  settings.pool6 = pool6;
  topology().set_settings(settings);
  must(topology().ensure_node());
  must(topology().audit({}));
  EXPECT_EQ(must(read_sysctl(kForward6)), "0");
  EXPECT_TRUE(topology().forwarding_was_off(Family::kV6));
  must(topology().begin_forwarding());
  EXPECT_EQ(must(read_sysctl(kForward6)), "1");
}

TEST_F(TopologyTest, SysctlsThatCannotBeRememberedStayAsTheyAre) {
  topology().set_memory({}, [](const std::vector<OldSysctl>&) -> Status {
    return fail(ErrorCode::kSystem, "disk full", ENOSPC);
  });
  const auto refused = topology().ensure_node();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().what, "disk full");
  EXPECT_EQ(must(read_sysctl(kForward4)), "0");
  EXPECT_EQ(must(read_sysctl(kForward6)), "0");
}

TEST_F(TopologyTest, ForwardingThatWasOnIsNotTakenForOurs) {
  must(write_sysctl(kForward4, "1"));
  must(topology().ensure_node());
  must(topology().begin_forwarding());
  EXPECT_FALSE(topology().forwarding_was_off(Family::kV4));
  EXPECT_TRUE(topology().forwarding_was_off(Family::kV6));
  // Switched off by somebody while we run: repaired, and still not off before us.
  must(write_sysctl(kForward4, "0"));
  EXPECT_THAT(must(topology().audit({})).what, Contains(HasSubstr("ip_forward was 0")));
  EXPECT_FALSE(topology().forwarding_was_off(Family::kV4));
  EXPECT_THAT(must(topology().audit({})).what, IsEmpty());
}

// Of the default route; with a port that no other namespace has the end of, or an end of a pair
// that another bridge has; and two that lead nowhere else, of which one gets a container just now.
TEST_F(TopologyTest, BridgesThatMayLeadOutsideAreNoEngines) {
  ASSERT_EQ(output_of("ip link set lo up; i=0; for b in eng now upl lan next bare; do"
                      "  ip link add $b type bridge; ip link set $b up; i=$((i + 1));"
                      "  [ $b = bare ] || ip addr add 172.30.$i.1/24 dev $b;"
                      "done; ip route add default via 172.30.3.2;"
                      "ip addr add fd00:7::1/64 dev now nodad;"
                      "ip link add vx type vxlan id 3 dstport 0 local 192.0.2.1;"
                      "ip link set vx master lan;"
                      "ip link add p2 type veth peer name p3; ip link set p2 master next;"
                      "ip link set p3 master bare;"
                      "ip link add p4 type veth peer name p5; ip link set p4 master now"),
            "");
  const auto container = test::make_netns();
  ASSERT_EQ(output_of(fmt::format("ip link add c1 type veth peer name eth0 netns /proc/{}/fd/{};"
                                  "ip link set c1 master eng",
                                  getpid(), container.fd())),
            "");
  const auto network = must(topology().node_network());
  EXPECT_THAT(network.engines4, UnorderedElementsAre("eng", "now"));
  EXPECT_THAT(network.engines6, ElementsAre("now"));
  // Whom the resolver answers is another matter: there nobody is let through.
  EXPECT_THAT(network.bridges, testing::SizeIs(5));
  EXPECT_THAT(network.bridges, Not(Contains(Prefix::parse("172.30.3.0/24").value())));
}

// A node that is a container itself: what ends where its way out does leads there as well.
TEST_F(TopologyTest, BridgeToTheNamespaceOfTheWayOutIsNoEngines) {
  const auto parent = test::make_netns(), container = test::make_netns();
  const auto pair = [](std::string_view name, const netlink::Netns& to) {
    return fmt::format("ip link add {} type veth peer name x{} netns /proc/{}/fd/{}; ", name, name,
                       getpid(), to.fd());
  };
  ASSERT_EQ(output_of(pair("up0", parent) + pair("lan0", parent) + pair("c0", container) +
                      "ip addr add 172.30.1.1/24 dev up0; ip link set up0 up;"
                      "ip route add default via 172.30.1.2;"
                      "ip link add lan type bridge; ip addr add 172.30.2.1/24 dev lan;"
                      "ip link add eng type bridge; ip addr add 172.30.3.1/24 dev eng;"
                      "ip link set lan0 master lan; ip link set c0 master eng"),
            "");
  EXPECT_THAT(must(topology().node_network()).engines4, ElementsAre("eng"));
}

TEST_F(TopologyTest, RoutesOfOthersNameTheirLink) {
  ASSERT_EQ(output_of("ip link add eng type bridge; ip link set eng up;"
                      "ip addr add 172.30.0.1/24 dev eng"),
            "");
  must(topology().ensure_node());
  const auto routes = must(topology().routes());
  EXPECT_THAT(routes, Contains(Field(&HostRoute::device, "eng")));
  for (const auto& route : routes) {
    EXPECT_FALSE(route.destination == *test::sample_settings().pool4) << "ours";
  }
}

TEST_F(TopologyTest, MissingLinksAreToldAndForeignNamesakesLeftAlone) {
  must(topology().ensure_node());
  ASSERT_EQ(output_of("ip link add mesh2 type bridge"), "");
  LinkPlan gone, stolen;
  gone.host_ifname = "mesh1";
  stolen.host_ifname = "mesh2";
  const auto repairs = must(topology().audit({gone, stolen}));
  EXPECT_THAT(repairs.missing, ElementsAre("mesh1", "mesh2"));
  EXPECT_THAT(repairs.what, IsEmpty());
  must(topology().disconnect("mesh2"));
  EXPECT_TRUE(must(topology().name_taken("mesh2")));
}

// By the mark that ours carry, and by their looks where a kernel kept no mark.
// As at joining: other ranges are the daemon's own change, what is done to them is not.
TEST_F(TopologyTest, OwnChangeOfRangesIsNoRepair) {
  const auto ranges = [] {
    return output_of("{ ip route; ip -6 route; } | grep 'dev lo proto 213'");
  };
  must(topology().audit({}));
  auto settings = test::sample_settings();
  settings.pool4 = test::prefix("10.99.0.0/16");
  settings.vip_pool6.reset();
  topology().set_settings(settings);
  EXPECT_THAT(must(topology().audit({})).what, IsEmpty());
  EXPECT_THAT(ranges(), AllOf(HasSubstr("10.99.0.0/16"), HasSubstr("10.214.0.0/16"),
                              Not(HasSubstr("10.213.0.0/16")), Not(HasSubstr("fd5a:1:2:2::/64"))));
  ASSERT_EQ(output_of("ip route del 10.99.0.0/16"), "");
  EXPECT_THAT(must(topology().audit({})).what, ElementsAre(HasSubstr("10.99.0.0/16")));
  ASSERT_EQ(output_of("ip route add 10.213.0.0/16 dev lo proto 213"), "");
  EXPECT_THAT(must(topology().audit({})).what,
              ElementsAre(AllOf(HasSubstr("10.213.0.0/16"), HasSubstr("belonged to nobody"))));
}

TEST_F(TopologyTest, PurgeKnowsTheResolversAddressesByThemselves) {
  must(topology().ensure_node());
  const auto with_resolver = output_of("ip addr show dev lo");
  EXPECT_THAT(with_resolver, HasSubstr("169.254.1.1/32"));
  EXPECT_THAT(with_resolver, HasSubstr("fd5a:1:2:53::1/128"));
  ASSERT_EQ(output_of("ip addr add fd00:1:2:53::53/128 dev lo nodad preferred_lft 0;"
                      "ip addr add fd00:1:2:53::54/128 dev lo nodad;"
                      "ip addr add 169.254.1.9/32 dev lo"),
            "");
  must(Topology::purge({}));
  const auto left = output_of("ip addr show dev lo");
  for (const char* ours : {"169.254.1.1/", "169.254.1.2/", "fd5a:1:2:53::", "fd00:1:2:53::53"}) {
    EXPECT_THAT(left, Not(HasSubstr(ours)));
  }
  for (const char* others : {"169.254.1.9/", "fd00:1:2:53::54/"}) {
    EXPECT_THAT(left, HasSubstr(others));
  }
}

}  // namespace
}  // namespace meshd
