#include "base/ip.h"

#include <gtest/gtest.h>

namespace meshd {
namespace {

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }
Prefix prefix(std::string_view text) { return Prefix::parse(text).value(); }

TEST(IpAddressTest, PrintsWhatItParsed) {
  for (const auto* text : {"0.0.0.0", "10.213.0.1", "255.255.255.255", "::", "::1", "fe80::1",
                           "2001:db8::8a2e:370:7334", "::ffff:10.0.0.1"}) {
    EXPECT_EQ(ip(text).to_string(), text);
  }
}

TEST(IpAddressTest, RefusesWhatIsNoAddress) {
  using namespace std::string_view_literals;
  for (const auto text :
       {""sv, "10.0.0"sv, "10.0.0.256"sv, "010.0.0.1"sv, "1.2.3.4 "sv, "::g"sv, "fe80::1%eth0"sv,
        "10.0.0.1\0"sv, "1111:2222:3333:4444:5555:6666:7777:8888:9999"sv}) {
    const auto result = IpAddress::parse(text);
    ASSERT_FALSE(result) << text;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  }
}

TEST(IpAddressTest, MappedAddressStaysV6) { EXPECT_TRUE(ip("::ffff:10.0.0.1").is_v6()); }

TEST(IpAddressTest, CountsWithCarry) {
  EXPECT_EQ(ip("10.0.0.255").plus(1), ip("10.0.1.0"));
  EXPECT_EQ(ip("10.0.0.0").plus(65536), ip("10.1.0.0"));
  EXPECT_EQ(ip("255.255.255.255").plus(1), ip("0.0.0.0"));
  EXPECT_EQ(ip("fd00::ffff:ffff:ffff:ffff").plus(1), ip("fd00::1:0:0:0:0"));
  EXPECT_EQ(ip("10.0.0.1").v4_host_order(), 0x0a000001U);
}

TEST(PrefixTest, ParsesAndPrints) {
  EXPECT_EQ(prefix("10.0.0.0/8").to_string(), "10.0.0.0/8");
  EXPECT_EQ(prefix("10.1.2.3").to_string(), "10.1.2.3/32");
  EXPECT_EQ(prefix("fd00::/8").to_string(), "fd00::/8");
  EXPECT_EQ(prefix("0.0.0.0/0").length(), 0);
}

TEST(PrefixTest, RefusesHostBitsAndNamesWhatWasMeant) {
  const auto result = Prefix::parse("10.1.2.3/8");
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().what.find("10.0.0.0/8"), std::string::npos) << result.error().what;
}

TEST(PrefixTest, RefusesBadLengths) {
  for (const auto* text : {"10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8x", "::/129",
                           "10.0.0.0/0008", "/8"}) {
    EXPECT_FALSE(Prefix::parse(text)) << text;
  }
}

TEST(PrefixTest, ContainsAndOverlaps) {
  EXPECT_TRUE(prefix("10.0.0.0/9").contains(ip("10.127.255.255")));
  EXPECT_FALSE(prefix("10.0.0.0/9").contains(ip("10.128.0.0")));
  EXPECT_FALSE(prefix("0.0.0.0/0").contains(ip("::1")));
  EXPECT_TRUE(prefix("10.0.0.0/8").overlaps(prefix("10.4.0.0/16")));
  EXPECT_TRUE(prefix("10.4.0.0/16").overlaps(prefix("10.0.0.0/8")));
  EXPECT_FALSE(prefix("10.4.0.0/16").overlaps(prefix("10.5.0.0/16")));
  EXPECT_EQ(prefix("10.4.0.0/14").last(), ip("10.7.255.255"));
  EXPECT_EQ(prefix("fd00::/64").last(), ip("fd00::ffff:ffff:ffff:ffff"));
}

TEST(MacTest, Prints) {
  EXPECT_EQ((Mac{{0x02, 0, 0, 0xab, 0, 0x01}}).to_string(), "02:00:00:ab:00:01");
}

}  // namespace
}  // namespace meshd
