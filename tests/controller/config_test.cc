// mesh-controller's configuration: what of it reaches the controller, and what is refused where.
#include "controller/config.h"

#include <gmock/gmock.h>

namespace meshd::controller {
namespace {

using testing::HasSubstr;

TEST(ControllerConfigTest, ProxiesAreAddressesAndPrefixes) {
  const auto config = parse_config("f", "proxy:\n  addresses: [192.0.2.8, \"2001:db8::/64\"]\n");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_THAT(config->proxies, testing::ElementsAre(Prefix::parse("192.0.2.8").value(),
                                                    Prefix::parse("2001:db8::/64").value()));
}

TEST(ControllerConfigTest, WhatIsNoAddressIsNamedWithItsLine) {
  const auto config = parse_config("f", "name: c1\nproxy:\n  addresses: [192.0.2.8, proxy1]\n");
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().what, HasSubstr("f:3: proxy.addresses[1]: "));
}

TEST(ControllerConfigTest, OutsidePortsAreARange) {
  EXPECT_EQ(parse_config("f", "{}").value().gateway_ports, policy::PortSpan());
  const auto config = parse_config("f", "gateway: {ports: 30000-32767}");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_EQ(config->gateway_ports, (policy::PortSpan{30000, 32767}));
  const auto named = parse_config("f", "gateway: {ports: 30000-32767, nodes: [g1, g2]}");
  EXPECT_THAT(named->gateway_nodes, testing::ElementsAre("g1", "g2"));
  const auto no_name = parse_config("f", "gateway: {ports: 30000-32767, nodes: [G/1]}");
  ASSERT_FALSE(no_name);
  EXPECT_THAT(no_name.error().what, HasSubstr("f:1: gateway.nodes[0]: "));
  const auto wrong = parse_config("f", "gateway: {ports: \"80\"}");
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().what, HasSubstr("f:1: gateway.ports: '80' is not FIRST-LAST"));
}

}  // namespace
}  // namespace meshd::controller
