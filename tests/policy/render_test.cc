#include "policy/render.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/base_table.h"

namespace meshd::policy {
namespace {

using testing::HasSubstr;

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

TEST(ElementTextTest, ShowsWhatNftShows) {
  EXPECT_EQ(element_text(ElementBuilder(SetId::kAllow4)
                             .addr(ip("10.213.0.5"))
                             .addr(ip("10.213.0.6"))
                             .proto(Proto::kTcp)
                             .port(5432)
                             .build()),
            "10.213.0.5 . 10.213.0.6 . tcp . 5432");
  EXPECT_EQ(element_text(ElementBuilder(SetId::kBind6)
                             .ifname("mesh1")
                             .ether(Mac{{2, 0, 0, 0, 0, 0xab}})
                             .addr(ip("fd00::1"))
                             .build()),
            "\"mesh1\" . 02:00:00:00:00:ab . fd00::1");
  EXPECT_EQ(element_text(ElementBuilder(SetId::kVip4)
                             .addr(ip("10.214.0.1"))
                             .proto(Proto::kUdp)
                             .port(53)
                             .number(15)
                             .data()
                             .addr(ip("10.213.0.2"))
                             .build()),
            "10.214.0.1 . udp . 53 . 15 : 10.213.0.2");
  EXPECT_EQ(element_text(ElementBuilder(SetId::kUsers).number(65534).build()), "65534");
}

TEST(ElementTextTest, ShowsIntervalsPerComponent) {
  EXPECT_EQ(element_text(ElementBuilder(SetId::kEgress4)
                             .number(0xab)
                             .addr(ip("10.0.0.0"))
                             .proto(1)
                             .port(0)
                             .end()
                             .number(0xab)
                             .addr(ip("10.255.255.255"))
                             .proto(1)
                             .port(65535)
                             .data()
                             .number(0xcd)
                             .build()),
            "0x000000ab . 10.0.0.0-10.255.255.255 . icmp . 0-65535 : 0x000000cd");
  EXPECT_EQ(
      element_text(
          ElementBuilder(SetId::kNever6).addr(ip("fe80::")).end().addr(ip("fe80::ff")).build()),
      "fe80::-fe80::ff");
}

TEST(ElementTextTest, ShowsBytesOfWhatIsNotWellFormed) {
  EXPECT_THAT(element_text(ElementBuilder(SetId::kAllow4).addr(ip("10.0.0.1")).build()),
              testing::StartsWith("0x0a000001"));
}

TEST(RenderRuleTest, WritesEveryPart) {
  const Rule rule = {Match{Field::kL4proto, {6U, 17U}, true},
                     CtState{kCtNew | kCtRelated},
                     CtTranslated{},
                     CtConfirmed{},
                     InSet{{Field::kIp6Dest}, "local6", true},
                     Meter{"frag4", Field::kIp4Source, 5, 9, true},
                     ConnectionsOver{"conn6", Field::kIp6Source, 3},
                     RateLimit{1, 2},
                     Count{"c_x"},
                     LogTo{88, "p ", 64},
                     Notrack{},
                     TranslateTo{true, ip("10.0.0.1")},
                     Masquerade{},
                     Reject{RejectKind::kTcpReset},
                     Verdict{VerdictKind::kJump, "decide"}};
  EXPECT_EQ(render_rule(rule),
            "meta l4proto != { tcp, udp } ct state related,new ct status dnat "
            "ct status confirmed ip6 daddr != @local6 "
            "update @frag4 { ip saddr limit rate over 5/second burst 9 packets } "
            "add @conn6 { ip6 saddr ct count over 3 } limit rate 1/second burst 2 packets "
            "counter name c_x log prefix \"p \" group 88 snaplen 64 notrack "
            "snat ip to 10.0.0.1 masquerade fully-random reject with tcp reset jump decide");
}

TEST(RenderTest, MarksWhatNftCannotReadAsComments) {
  const Rule slot = {
      TranslateByMap{Family::kV4,
                     {Field::kIp4Dest, Field::kL4proto, Field::kDestPort, Field::kRandomSlot},
                     "vip4",
                     false}};
  const Rule profile = {InProfile{{Field::kIp4Source}, "a", {Field::kIp4Dest}, "b", false, "c"}};
  const Rule row = {InProfile{{Field::kIp4Source}, "a", {Field::kIp4Dest}, "b", true, "c"}};
  const Rule plain = {TranslateByMap{
      Family::kV6, {Field::kIp6Dest, Field::kL4proto, Field::kDestPort}, "pub6", true}};
  EXPECT_FALSE(nft_can_write(slot));
  EXPECT_FALSE(nft_can_write(profile));
  EXPECT_EQ(render_rule(profile), "ip saddr map @a . ip daddr @b ip saddr @c");
  EXPECT_EQ(render_rule(row), "ip saddr map @a . ip daddr map @b . ip saddr @c");
  EXPECT_TRUE(nft_can_write(plain));
  Table table{.name = "t", .counters = {}, .dynamic_sets = {}, .chains = {}};
  table.chains.push_back({"c", {}, {slot, plain}});
  const auto text = render(table, {});
  EXPECT_THAT(text, HasSubstr("\n    # dnat ip to ip daddr . meta l4proto . th dport . numgen "
                              "random mod 16 map @vip4\n"));
  EXPECT_THAT(text, HasSubstr("\n    dnat ip6 to ip6 daddr . meta l4proto . th dport map @pub6\n"));
}

TEST(RenderTest, PutsElementsIntoTheirSets) {
  const std::vector<Element> elements = {
      ElementBuilder(SetId::kLocal4).addr(ip("10.213.0.1")).build(),
      ElementBuilder(SetId::kLocal4).addr(ip("10.213.0.2")).build(),
      ElementBuilder(SetId::kEgressProfile4).addr(ip("10.213.0.2")).data().number(7).build(),
      ElementBuilder(SetId::kUsers).number(0).build()};
  const auto text =
      render(Table{.name = "t", .counters = {"c"}, .dynamic_sets = {}, .chains = {}}, elements);
  EXPECT_THAT(text,
              HasSubstr("  set local4 {\n    type ipv4_addr\n    size 8192\n    elements = {\n"
                        "      10.213.0.1,\n      10.213.0.2,\n    }\n  }\n"));
  EXPECT_THAT(text, HasSubstr("  map egp4 {\n    type ipv4_addr : mark . mark\n    size 8192\n"
                              "    elements = {\n"
                              "      10.213.0.2 : 0x00000007 . 0x00000007,\n    }\n  }\n"));
  EXPECT_THAT(text, HasSubstr("  set users {\n    type uid\n    size 1024\n    elements = {\n"
                              "      0,\n    }\n  }\n"));
  EXPECT_THAT(text, HasSubstr("  set local6 {\n    type ipv6_addr\n    size 8192\n  }\n"));
}

}  // namespace
}  // namespace meshd::policy
