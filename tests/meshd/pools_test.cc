#include "meshd/pools.h"

#include <gtest/gtest.h>

namespace meshd {
namespace {

TEST(PoolsTest, ResolversAddressesAreOfTheNodesOwnRange) {
  const auto ula = Prefix::parse("fd12:3456:789a::/48").value();
  EXPECT_EQ(resolver4(0).to_string(), "169.254.1.1");
  EXPECT_EQ(resolver4(1).to_string(), "169.254.1.2");
  EXPECT_EQ(resolver6(ula, 0).to_string(), "fd12:3456:789a:53::53");
  EXPECT_EQ(resolver6(ula, 1).to_string(), "fd12:3456:789a:53::54");
}

TEST(PoolsTest, ResolversAddressesAreKnownWithoutTheNodesRange) {
  for (const char* text : {"169.254.1.1", "169.254.1.2", "fd00:1:2:53::53", "fdff:1:2:53::54"}) {
    EXPECT_TRUE(looks_like_resolver(IpAddress::parse(text).value())) << text;
  }
  for (const char* text : {"169.254.1.3", "127.0.0.1", "::1", "fd00:1:2:53::55", "fd00:1:2:54::53",
                           "fd00:1:2:53:1::53", "2001:db8:1:53::53"}) {
    EXPECT_FALSE(looks_like_resolver(IpAddress::parse(text).value())) << text;
  }
}

}  // namespace
}  // namespace meshd
