#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "netlink/vxlan.h"
#include "tests/support/rt_fixture.h"

namespace meshd::netlink {
namespace {

using test::ip;
using test::must;
using test::output_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class RtVxlanTest : public test::RtFixture {
 protected:
  static VxlanSpec spec(const char* local = "192.0.2.1") {
    return {.name = "mesh0",
            .mac = {{2, 0x6d, 192, 0, 2, 1}},
            .group = 78,
            .mtu = 1430,
            .tunnel = {.id = 88, .port = 8472, .local = ip(local)}};
  }
  static FdbEntry to(const Link& link, std::uint8_t number) {
    const Mac mac{{2, 0, 0, 0, 0, number}};
    return {link.index, mac, ip("192.0.2.0").plus(number)};
  }
};

TEST_F(RtVxlanTest, DeviceIsMadeAsAskedFor) {
  for (const char* local : {"192.0.2.1", "2001:db8::1"}) {
    const Link made = must(create_vxlan(channel(), spec(local)));
    EXPECT_EQ(made.group, 78U);
    EXPECT_EQ(made.mtu, 1430U);
    EXPECT_EQ(made.mac, spec().mac);
    EXPECT_FALSE(made.up);
    EXPECT_EQ(made.vxlan, spec(local).tunnel);
    EXPECT_THAT(output_of("ip -d link show mesh0"), HasSubstr("nolearning"));
    const auto again = create_vxlan(channel(), spec(local));
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().sys_errno, EEXIST);
    ASSERT_TRUE(must(delete_link(channel(), made.index)));
  }
  auto bad = spec();
  bad.name = "a/b";
  EXPECT_EQ(create_vxlan(channel(), bad).error().code, ErrorCode::kInvalid);
}

TEST_F(RtVxlanTest, ForeignDevicesAreReadWithWhatSetsThemApart) {
  ASSERT_EQ(output_of("ip link add x0 type vxlan id 7 dstport 4789 remote 192.0.2.9;"
                      "ip link add x1 type vxlan dstport 4790 external"),
            "");
  const auto x0 = must(find_link(channel(), "x0"))->vxlan;
  ASSERT_TRUE(x0);
  EXPECT_EQ(x0->id, 7U);
  EXPECT_EQ(x0->port, 4789);
  EXPECT_EQ(x0->remote, ip("192.0.2.9"));
  EXPECT_TRUE(x0->learning);
  EXPECT_TRUE(must(find_link(channel(), "x1"))->vxlan->external);
  EXPECT_FALSE(must(find_link(channel(), "lo"))->vxlan);
}

TEST_F(RtVxlanTest, ForwardingEntriesAreWrittenOnce) {
  const Link link = must(create_vxlan(channel(), spec()));
  const std::vector<FdbEntry> wanted = {to(link, 2), to(link, 3)};
  EXPECT_EQ(must(ensure_fdb(channel(), link.index, wanted)).written, wanted);
  const auto changes = channel().changes();
  const auto again = must(ensure_fdb(channel(), link.index, wanted));
  EXPECT_THAT(again.written, IsEmpty());
  EXPECT_THAT(again.unwanted, IsEmpty());
  EXPECT_EQ(channel().changes(), changes);
  EXPECT_THAT(must(list_fdb(channel(), link.index)), UnorderedElementsAre(wanted[0], wanted[1]));
  EXPECT_THAT(output_of("bridge fdb show dev mesh0"),
              HasSubstr("02:00:00:00:00:02 dst 192.0.2.2 self permanent"));
}

TEST_F(RtVxlanTest, ForwardingEntriesOfOthersAreSeenAndReplaced) {
  const Link link = must(create_vxlan(channel(), spec()));
  const std::vector<FdbEntry> wanted = {to(link, 2)};
  ASSERT_EQ(output_of("bridge fdb add 02:00:00:00:00:02 dev mesh0 dst 192.0.2.66 self permanent;"
                      "bridge fdb add 00:00:00:00:00:00 dev mesh0 dst 192.0.2.67 self permanent;"
                      "bridge fdb add 02:00:00:00:00:09 dev mesh0 dst 192.0.2.9 port 4789 self"),
            "");
  const auto difference = must(ensure_fdb(channel(), link.index, wanted));
  EXPECT_EQ(difference.written, wanted);
  ASSERT_EQ(difference.unwanted.size(), 2U);
  for (const auto& entry : difference.unwanted) {
    EXPECT_TRUE(must(delete_fdb(channel(), entry))) << entry.to_string();
    EXPECT_FALSE(must(delete_fdb(channel(), entry)));
  }
  EXPECT_THAT(must(list_fdb(channel(), link.index)), ElementsAre(wanted[0]));
}

TEST_F(RtVxlanTest, EntriesAreOfOneDevice) {
  const Link link = must(create_vxlan(channel(), spec()));
  ASSERT_EQ(output_of("ip link add x0 type vxlan id 7 dstport 4789 remote 192.0.2.9"), "");
  EXPECT_THAT(must(list_fdb(channel(), link.index)), IsEmpty());
  EXPECT_THAT(must(list_fdb(channel(), 4711)), IsEmpty());
  EXPECT_FALSE(must(delete_fdb(channel(), to(link, 2))));
}

TEST_F(RtVxlanTest, RefusalNamesTheEntry) {
  auto entry = FdbEntry{4711, {{2, 0, 0, 0, 0, 2}}, ip("192.0.2.2")};
  const auto refused = ensure_fdb(channel(), 4711, std::span(&entry, 1));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("forwarding entry 02:00:00:00:00:02 to 192.0.2.2"));
}

}  // namespace
}  // namespace meshd::netlink
