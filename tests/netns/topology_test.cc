// The node's part of the topology, in a network namespace that is the node.
#include "meshd/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  EXPECT_EQ(must(read_sysctl(kForward4)), "1");
  EXPECT_EQ(must(read_sysctl(kForward6)), "1");
  for (const auto family : kFamilies) EXPECT_TRUE(topology().forwarding_was_off(family));
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
  EXPECT_FALSE(topology().forwarding_was_off(Family::kV4));
  EXPECT_TRUE(topology().forwarding_was_off(Family::kV6));
  // Switched off by somebody while we run: repaired, and still not off before us.
  must(write_sysctl(kForward4, "0"));
  EXPECT_THAT(must(topology().audit({})).what, Contains(HasSubstr("ip_forward was 0")));
  EXPECT_FALSE(topology().forwarding_was_off(Family::kV4));
  EXPECT_THAT(must(topology().audit({})).what, IsEmpty());
}

TEST_F(TopologyTest, BridgeOfTheUplinkIsNoEnginesBridge) {
  ASSERT_EQ(output_of("ip link set lo up; for b in eng upl; do ip link add $b type bridge;"
                      "ip link set $b up; done; ip addr add 172.30.0.1/24 dev eng;"
                      "ip addr add 192.0.2.7/24 dev upl; ip route add default via 192.0.2.1"),
            "");
  EXPECT_THAT(must(topology().node_network()).bridges,
              ElementsAre(Prefix::parse("172.30.0.0/24").value()));
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
  must(Topology::purge({}, {}));
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
