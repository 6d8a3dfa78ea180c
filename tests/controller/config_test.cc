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

}  // namespace
}  // namespace meshd::controller
