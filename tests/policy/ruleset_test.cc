#include "policy/ruleset.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace meshd::policy {
namespace {

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

std::string hex(std::span<const std::uint8_t> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const auto byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

TEST(SetInfoTest, NamesAreUnique) {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < kSetCount; ++i) names.insert(set_name(static_cast<SetId>(i)));
  EXPECT_EQ(names.size(), kSetCount);
}

TEST(SetInfoTest, NamesFollowTheirIds) {
  EXPECT_EQ(set_name(SetId::kBind4), "bind4");
  EXPECT_EQ(set_name(SetId::kAllow6Block), "allow6_b16");
  EXPECT_EQ(set_name(SetId::kHold4Block), "hold4_b16");
  EXPECT_EQ(set_name(SetId::kVip6Block), "vip6_b16");
  EXPECT_EQ(set_name(SetId::kPubProfile4), "pubp4");
  EXPECT_EQ(set_name(SetId::kEgressProfile6), "egp6");
  EXPECT_EQ(set_name(SetId::kNever4), "never4");
  EXPECT_EQ(set_name(SetId::kUsers), "users");
}

TEST(SetInfoTest, LargestElementFillsTheCapacityExactly) {
  std::size_t largest = 0;
  for (std::size_t i = 0; i < kSetCount; ++i) {
    const auto& info = set_info(static_cast<SetId>(i));
    std::size_t size = 0;
    for (const auto component : info.key) size += (component_size(component) + 3) / 4 * 4;
    if (info.interval) size *= 2;
    for (const auto component : info.data) size += (component_size(component) + 3) / 4 * 4;
    largest = std::max(largest, size);
  }
  EXPECT_EQ(largest, Element::kCapacity);
}

TEST(ElementBuilderTest, PadsEachComponentAsTheKernelDoes) {
  const auto element = ElementBuilder(SetId::kAllow4)
                           .addr(ip("10.213.0.5"))
                           .addr(ip("10.213.0.6"))
                           .proto(Proto::kTcp)
                           .port(5432)
                           .build();
  EXPECT_EQ(hex(element.key()), "0ad500050ad500060600000015380000");
  EXPECT_TRUE(is_well_formed(element));
}

TEST(ElementBuilderTest, WritesInterfaceNamesAndMacsPadded) {
  const auto element = ElementBuilder(SetId::kBind4)
                           .ifname("mesh7")
                           .ether(Mac{{2, 0, 0, 0, 0, 7}})
                           .addr(ip("10.213.0.7"))
                           .build();
  EXPECT_EQ(hex(element.key()),
            "6d657368370000000000000000000000"
            "0200000000070000"
            "0ad50007");
  EXPECT_TRUE(is_well_formed(element));
}

TEST(ElementBuilderTest, KeepsTheNulOfAnInterfaceNameThatIsTooLong) {
  const auto element = ElementBuilder(SetId::kBind4)
                           .ifname("a-name-of-more-than-fifteen")
                           .ether(Mac{})
                           .addr(ip("10.213.0.7"))
                           .build();
  EXPECT_EQ(element.key()[14], '-');
  EXPECT_EQ(element.key()[15], 0);
}

TEST(ElementBuilderTest, SeparatesKeyEndAndData) {
  const auto interval = ElementBuilder(SetId::kSource4)
                            .number(7)
                            .addr(ip("192.0.2.0"))
                            .end()
                            .number(7)
                            .addr(ip("192.0.2.255"))
                            .build();
  EXPECT_EQ(hex(interval.key()), "00000007c0000200");
  EXPECT_EQ(hex(interval.key_end()), "00000007c00002ff");
  EXPECT_TRUE(is_well_formed(interval));
  const auto row = ElementBuilder(SetId::kEgress6)
                       .number(7)
                       .addr(ip("fd00::"))
                       .proto(Proto::kTcp)
                       .port(80)
                       .end()
                       .number(7)
                       .addr(ip("fd00::ff"))
                       .proto(Proto::kTcp)
                       .port(81)
                       .data()
                       .number(0x1234)
                       .build();
  EXPECT_EQ(hex(row.key()).substr(0, 8), "00000007");
  EXPECT_EQ(hex(row.data()), "34120000") << "no part of the interval: in host order";
  EXPECT_TRUE(is_well_formed(row));
  const auto slot = ElementBuilder(SetId::kVip6)
                        .addr(ip("fd00::1"))
                        .proto(Proto::kUdp)
                        .port(53)
                        .number(15)
                        .data()
                        .addr(ip("fd00::2"))
                        .build();
  EXPECT_EQ(hex(slot.key()).substr(32),
            "11000000"
            "00350000"
            "0f000000");
  EXPECT_EQ(hex(slot.data()), "fd000000000000000000000000000002");
  EXPECT_TRUE(is_well_formed(slot));
}

TEST(ElementBuilderTest, CopyGoesOnByItself) {
  ElementBuilder first(SetId::kDrain4);
  ElementBuilder second = first;
  second.addr(ip("10.213.0.1"));
  EXPECT_EQ(first.build().key_size, 0);
  EXPECT_EQ(second.build().key_size, 4);
}

TEST(ElementBuilderTest, WrongComponentsAreNotWellFormed) {
  EXPECT_FALSE(is_well_formed(ElementBuilder(SetId::kAllow4).addr(ip("10.0.0.1")).build()));
  EXPECT_FALSE(is_well_formed(ElementBuilder(SetId::kDrain4).addr(ip("fd00::1")).build()));
  EXPECT_FALSE(is_well_formed(ElementBuilder(SetId::kMesh4).addr(ip("10.0.0.0")).build()));
  auto too_long = ElementBuilder(SetId::kAllow6);
  for (int i = 0; i < 9; ++i) too_long.addr(ip("fd00::1"));
  EXPECT_FALSE(is_well_formed(too_long.build()));
}

}  // namespace
}  // namespace meshd::policy
