// Flows to and from containers of other nodes, as real packets see the table: the outside host
// plays the other node, with addresses of its block.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/ruleset_samples.h"

namespace meshd::test {
namespace {

using policy::Element;
using policy::ElementBuilder;
using policy::SetId;

constexpr std::uint16_t kPort = 5432;

SetId version(SetId v4, Family family) {
  return static_cast<SetId>(static_cast<int>(v4) + (family == Family::kV4 ? 0 : 1));
}

class RulesetTrunkTest : public testing::Test {
 protected:
  void set_up(bool by_tunnel) {
    [[maybe_unused]] const auto& waited_for = bed_.outside();
    bed_.join_cluster(by_tunnel);
    for (const auto* text : {"10.213.200.0/24", "fd5a:1:2:1:200::/80"}) {
      const auto block = prefix(text);
      bed_.add({ElementBuilder(version(SetId::kRemote4, block.address().family()))
                    .addr(block.address())
                    .end()
                    .addr(block.last())
                    .build()});
    }
    // Who sends by an address that is not one of its own here, does so as another node would.
    EXPECT_EQ(output_in(bed_.outside().netns, R"(
      echo 1 > /proc/sys/net/ipv4/ip_forward
      echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
      ip -batch - <<END
      addr add 10.213.200.1/32 dev eth0
      addr add 10.213.99.1/32 dev eth0
      addr add fd5a:1:2:1:200::1/128 dev eth0 nodad preferred_lft 0
      addr add fd5a:1:2:1:99::1/128 dev eth0 nodad preferred_lft 0
      route add prohibit 10.213.200.9
      route add prohibit fd5a:1:2:1:200::9
END)"),
              "");
    EXPECT_EQ(output_of(R"(ip -batch - <<END
      route add 10.213.200.0/24 via 192.0.2.100
      route add fd5a:1:2:1:200::/80 via 2001:db8::100
END)"),
              "");
  }

  static IpAddress far(Family family, int host = 1) {
    const auto n = static_cast<std::uint64_t>(host);
    return (family == Family::kV4 ? ip("10.213.200.0") : ip("fd5a:1:2:1:200::")).plus(n);
  }
  static Element flow(SetId v4, const IpAddress& from, const IpAddress& to, Proto proto) {
    return ElementBuilder(version(v4, from.family()))
        .addr(from)
        .addr(to)
        .proto(proto)
        .port(kPort)
        .build();
  }
  [[nodiscard]] Talk from_far(Family family, Proto proto, const IpAddress& to,
                              std::chrono::milliseconds limit = kPatience) {
    return talk(bed_.outside().netns, proto, to, kPort, far(family), limit);
  }

  MeshBed bed_{2};
};

TEST_F(RulesetTrunkTest, FlowToElsewhereIsRefusedHeldOrPasses) {
  set_up(false);
  const EchoServer v4(bed_.outside().netns, far(Family::kV4), kPort);
  const EchoServer v6(bed_.outside().netns, far(Family::kV6), kPort);
  for_each_kind([this](Family family, Proto proto) {
    const auto ask = [&](std::chrono::milliseconds limit = kPatience) {
      return talk(bed_[0].netns, proto, far(family), kPort, std::nullopt, limit);
    };
    EXPECT_EQ(ask(), Talk::kRefused);
    const auto held = flow(SetId::kHold4, bed_[0].at(family), far(family), proto);
    bed_.add({held});
    const auto before = bed_.counter("c_held");
    EXPECT_EQ(ask(kSilence), Talk::kSilent);
    EXPECT_GT(bed_.counter("c_held"), before);
    bed_.apply({{held}, {flow(SetId::kAllow4, bed_[0].at(family), far(family), proto)}});
    EXPECT_EQ(ask(), Talk::kAnswered);
    EXPECT_EQ(talk(bed_[1].netns, proto, far(family), kPort), Talk::kRefused);
  });
  EXPECT_EQ(v4.last_peer(), bed_[0].v4) << "never masqueraded";
  EXPECT_EQ(v6.last_peer(), bed_[0].v6);
}

TEST_F(RulesetTrunkTest, FlowFromElsewhereIsJudgedHereToo) {
  set_up(false);
  const EchoServer v4(bed_[1].netns, bed_[1].v4, kPort), v6(bed_[1].netns, bed_[1].v6, kPort);
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(from_far(family, proto, bed_[1].at(family)), Talk::kRefused);
    bed_.add({flow(SetId::kAllow4, far(family), bed_[1].at(family), proto)});
    EXPECT_EQ(from_far(family, proto, bed_[1].at(family)), Talk::kAnswered);
    EXPECT_EQ(from_far(family, proto, bed_[0].at(family)), Talk::kRefused);
    EXPECT_EQ(talk(bed_[1].netns, proto, far(family), kPort), Talk::kRefused) << "the reverse";
  });
  EXPECT_EQ(v4.last_peer(), far(Family::kV4));
}

TEST_F(RulesetTrunkTest, WhatHasLeftIsNotRefusedToOtherNodes) {
  set_up(false);
  for_each_kind([this](Family family, Proto proto) {
    const auto nobody = bed_[1].at(family).plus(100);
    const auto before = bed_.counter("c_held");
    EXPECT_EQ(from_far(family, proto, nobody, kSilence), Talk::kSilent);
    EXPECT_GT(bed_.counter("c_held"), before);
    EXPECT_EQ(talk(bed_[0].netns, proto, nobody, kPort), Talk::kRefused);
  });
}

// The other node has not heard of it yet, or it would not send.
TEST_F(RulesetTrunkTest, WhatDrainsIsSilentToOtherNodes) {
  set_up(false);
  const EchoServer v4(bed_[1].netns, bed_[1].v4, kPort), v6(bed_[1].netns, bed_[1].v6, kPort);
  for_each_kind([this](Family family, Proto proto) {
    const auto& provider = bed_[1].at(family);
    const auto drain = MeshBed::draining(provider);
    bed_.add({flow(SetId::kAllow4, far(family), provider, proto),
              flow(SetId::kAllow4, bed_[0].at(family), provider, proto), drain});
    EXPECT_EQ(from_far(family, proto, provider, kSilence), Talk::kSilent);
    EXPECT_EQ(talk(bed_[0].netns, proto, provider, kPort), Talk::kRefused);
    bed_.remove({drain});
    EXPECT_EQ(from_far(family, proto, provider), Talk::kAnswered);
  });
}

// It left between two hooks. A table of the test's plays the time that passes: behind what asks
// whether the destination is here, it becomes one that is not.
TEST_F(RulesetTrunkTest, WhatLeavesMeanwhileIsNotRefusedToOtherNodes) {
  set_up(false);
  std::string rules, routes;
  for (const Family family : kFamilies) {
    const bool v4 = family == Family::kV4;
    const auto was = bed_[1].at(family).to_string();
    const auto nobody = bed_[1].at(family).plus(100).to_string();
    const std::string ip_version = v4 ? "ip" : "ip6";
    rules += ip_version + " daddr " + was + " " + ip_version + " daddr set " + nobody + "\n";
    routes += "route add " + nobody + " dev " + bed_[1].host_ifname + "\n";
  }
  ASSERT_EQ(output_of("ip -batch - <<END\n" + routes + "END\nnft -f - <<END\n" +
                      "table inet meanwhile { chain c {\n"
                      "type filter hook prerouting priority -80;\n" +
                      rules + "}\n}\nEND"),
            "");
  for_each_kind([this](Family family, Proto proto) {
    const auto before = bed_.counter("c_held");
    EXPECT_EQ(from_far(family, proto, bed_[1].at(family), kSilence), Talk::kSilent);
    EXPECT_GT(bed_.counter("c_held"), before);
  });
}

// A reply whose port looks like one that its sender waits for.
TEST_F(RulesetTrunkTest, RepliesAreNotHeld) {
  set_up(false);
  const EchoServer server(bed_[1].netns, bed_[1].v4, kPort);
  bed_.add({flow(SetId::kAllow4, far(Family::kV4), bed_[1].v4, Proto::kUdp)});
  MeshBed::Elements held;
  for (std::uint32_t port = 0; port < 65536; port += policy::kBlock) {
    held.push_back(ElementBuilder(SetId::kHold4Block)
                       .addr(bed_[1].v4)
                       .addr(far(Family::kV4))
                       .proto(Proto::kUdp)
                       .port(static_cast<std::uint16_t>(port))
                       .build());
  }
  bed_.add(held);
  EXPECT_EQ(from_far(Family::kV4, Proto::kUdp, bed_[1].v4), Talk::kAnswered);
}

// The other node has not heard yet that a container has left.
TEST_F(RulesetTrunkTest, WhoLooksForOneThatHasLeftWaits) {
  set_up(false);
  for_each_kind([this](Family family, Proto proto) {
    const auto nobody = bed_[1].at(family).plus(7);
    const auto before = bed_.counter("c_held");
    EXPECT_EQ(from_far(family, proto, nobody, kSilence), Talk::kSilent);
    EXPECT_GT(bed_.counter("c_held"), before);
    EXPECT_EQ(talk(bed_[0].netns, proto, nobody, kPort), Talk::kRefused);
    EXPECT_EQ(talk(bed_.outside().netns, proto, nobody, kPort), Talk::kRefused) << "no node's";
  });
}

TEST_F(RulesetTrunkTest, SourcesThatAreNoOtherNodesVanish) {
  set_up(false);
  const EchoServer v4(bed_[0].netns, bed_[0].v4, kPort), v6(bed_[0].netns, bed_[0].v6, kPort);
  // Of a container here, and of nobody's block.
  // The address of a container here; only now, since it is the other node's own with it.
  EXPECT_EQ(output_in(bed_.outside().netns, "ip addr add 10.213.0.2/32 dev eth0"), "");
  for (const auto* text : {"10.213.0.2", "10.213.99.1", "fd5a:1:2:1:99::1"}) {
    const auto source = ip(text);
    const auto family = source.family();
    bed_.add({flow(SetId::kAllow4, source, bed_[0].at(family), Proto::kUdp)});
    const auto before = bed_.counter("c_foreign");
    EXPECT_EQ(talk(bed_.outside().netns, Proto::kUdp, bed_[0].at(family), kPort, source, kSilence),
              Talk::kSilent)
        << text;
    EXPECT_GT(bed_.counter("c_foreign"), before) << text;
  }
  EXPECT_EQ(v4.questions() + v6.questions(), 0U);
}

TEST_F(RulesetTrunkTest, NodeIsNotForContainersElsewhereNorTheyForIt) {
  set_up(false);
  const EchoServer v4(bed_.node(), bed_.node_address(Family::kV4), kPort);
  const EchoServer v6(bed_.node(), bed_.node_address(Family::kV6), kPort);
  const EchoServer far4(bed_.outside().netns, far(Family::kV4), kPort);
  const EchoServer far6(bed_.outside().netns, far(Family::kV6), kPort);
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(from_far(family, proto, bed_.node_address(family)), Talk::kRefused);
    EXPECT_EQ(talk(bed_.outside().netns, proto, bed_.node_address(family), kPort), Talk::kAnswered)
        << "the uplink is the node's as ever";
    EXPECT_NE(talk(bed_.node(), proto, far(family), kPort), Talk::kAnswered);
  });
  EXPECT_EQ(far4.questions() + far6.questions(), 0U);
}

TEST_F(RulesetTrunkTest, TunnelBringsOtherNodesContainersOnly) {
  set_up(true);
  EXPECT_EQ(output_of("ip link set up0 group 78"), "");
  const EchoServer container(bed_[1].netns, bed_[1].v4, kPort);
  const EchoServer node(bed_.node(), bed_.node_address(Family::kV4), kPort);
  bed_.add({flow(SetId::kAllow4, far(Family::kV4), bed_[1].v4, Proto::kUdp)});
  EXPECT_EQ(from_far(Family::kV4, Proto::kUdp, bed_[1].v4), Talk::kAnswered);
  for (const auto& to : {bed_[1].v4, bed_.node_address(Family::kV4)}) {
    const auto before = bed_.counter("c_foreign");
    EXPECT_EQ(talk(bed_.outside().netns, Proto::kUdp, to, kPort, std::nullopt, kSilence),
              Talk::kSilent);
    EXPECT_GT(bed_.counter("c_foreign"), before);
  }
}

// Such as that a packet is too big: the sender is a router's address, and no container's.
// Prohibited, since what is only unreachable a UDP socket keeps to itself.
TEST_F(RulesetTrunkTest, ErrorsOnTheWayArrive) {
  set_up(false);
  const auto check = [this](Family family) {
    const auto allowed = flow(SetId::kAllow4, bed_[0].at(family), far(family, 9), Proto::kUdp);
    bed_.add({allowed});
    EXPECT_EQ(talk(bed_[0].netns, Proto::kUdp, far(family, 9), kPort), Talk::kOther);
    bed_.remove({allowed});
  };
  for (const auto family : kFamilies) check(family);
  EXPECT_EQ(output_of("ip link set up0 group 78"), "");
  check(Family::kV4);  // of IPv6 the neighbours would be lost: a tunnel has permanent ones
}

TEST_F(RulesetTrunkTest, SegmentsFitTheWayToOtherNodes) {
  set_up(false);
  EXPECT_EQ(output_of("ip route change 10.213.200.0/24 via 192.0.2.100 mtu 1300;"
                      "ip -6 route change fd5a:1:2:1:200::/80 via 2001:db8::100 mtu 1300"),
            "");
  const EchoServer far4(bed_.outside().netns, far(Family::kV4), kPort);
  const EchoServer far6(bed_.outside().netns, far(Family::kV6), kPort);
  const EchoServer near4(bed_[1].netns, bed_[1].v4, kPort), near6(bed_[1].netns, bed_[1].v6, kPort);
  for (const auto family : kFamilies) {
    for (const auto& to : {far(family), bed_[1].at(family)}) {
      bed_.add({flow(SetId::kAllow4, bed_[0].at(family), to, Proto::kTcp)});
      Conversation open(bed_[0].netns, Proto::kTcp, to, kPort);
      ASSERT_EQ(open.ask(), Talk::kAnswered);
      const bool is_far = to == far(family);
      const auto& netns = is_far ? bed_.outside().netns : bed_[1].netns;
      const auto headers = (family == Family::kV4 ? 20 : 40) + 20 + 12;  // with timestamps
      EXPECT_THAT(
          output_in(netns,
                    "ss -tinH state established dst '[" + bed_[0].at(family).to_string() + "]'"),
          testing::HasSubstr(" mss:" + std::to_string((is_far ? 1300 : 1500) - headers) + " "));
    }
  }
}

}  // namespace
}  // namespace meshd::test
