// A gateway with real packets: connections from outside to a raw publication on another node, as
// the compiler's elements have it. The provider's node is a host behind a second link that knows
// no way to the outside, so that what is answered has come back by the gateway.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "meshd/addressing.h"
#include "netlink/conntrack.h"
#include "policy/plan.h"
#include "policy/profile.h"
#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/ruleset_samples.h"

namespace meshd::test {
namespace {

using policy::OutsideKey;

constexpr std::uint16_t kOutsidePort = 30000, kNodePort = 25432, kForeignPort = 2222;

class RulesetGatewayTest : public testing::Test {
 protected:
  explicit RulesetGatewayTest(policy::TableOptions options = {}) : bed_(1, options) {
    [[maybe_unused]] const auto& waited_for = bed_.outside();
    bed_.become_gateway();
    provider_.emplace(make_netns());
    EXPECT_EQ(output_of(fmt::format(R"(ip -batch - <<END
      link add name up1 type veth peer name eth0 netns /proc/{}/fd/{}
      addr add 198.51.100.1/24 dev up1
      addr add 2001:db8:1::1/64 dev up1 nodad
      link set up1 up
END)",
                                    getpid(), provider_->fd())),
              "");
    EXPECT_EQ(output_in(*provider_, R"(ip -batch - <<END
      link set lo up
      addr add 198.51.100.2/24 dev eth0
      addr add 2001:db8:1::2/64 dev eth0 nodad
      link set eth0 up
END)"),
              "");
    await_link();
    world_.settings = bed_.settings();
    for (const Family family : kFamilies) {
      world_.settings.publish_addresses.push_back(bed_.node_address(family));
    }
    [[maybe_unused]] const auto base = compiler_.rebuild(world_);  // the bed has made that
    v4_.emplace(*provider_, provider(Family::kV4), kNodePort);
    v6_.emplace(*provider_, provider(Family::kV6), kNodePort);
  }

  // IPv6 hears of a carrier late.
  void await_link() {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (ping(bed_.node(), provider(Family::kV6), std::chrono::milliseconds(50)) !=
           Talk::kAnswered) {
      ASSERT_LT(std::chrono::steady_clock::now(), limit) << "the second link carries no IPv6";
    }
  }
  [[nodiscard]] static IpAddress provider(Family family) {
    return ip(family == Family::kV4 ? "198.51.100.2" : "2001:db8:1::2");
  }
  [[nodiscard]] static IpAddress gateway(Family family) {
    return ip(family == Family::kV4 ? "198.51.100.1" : "2001:db8:1::1");
  }
  // Brings the world in force: elements, then what connection tracking still translates.
  void bring(const policy::Touched& touched) {
    const auto delta = compiler_.update(world_, touched).elements;
    bed_.apply(delta);
    EraseRequest erase;
    note_translations(
        world_, delta, [this](const policy::Element& e) { return compiler_.contains(e); }, erase);
    if (erase.empty()) return;
    netlink::EraseWish wish;
    for (const auto& t : erase.translations) {
      wish.translations.push_back({t.proto, t.from, t.first, t.last, t.to});
    }
    [[maybe_unused]] const auto erased = must(must(netlink::Conntrack::open()).erase(wish));
  }
  void lead(const std::vector<std::string>& sources, std::uint16_t node_port = kNodePort) {
    policy::Touched touched;
    for (const Proto proto : kProtos) {
      const OutsideKey key{proto, kOutsidePort};
      auto& outside = world_.outside[key];
      outside = {"far", 5432, provider(Family::kV4), provider(Family::kV6), node_port, {}};
      for (const auto& source : sources) outside.allow_from.push_back(prefix(source));
      touched.outside.insert(key);
    }
    bring(touched);
  }
  void lead_nowhere() {
    policy::Touched touched;
    for (const auto& [key, outside] : world_.outside) touched.outside.insert(key);
    world_.outside.clear();
    bring(touched);
  }
  [[nodiscard]] Talk from_outside(Family family, Proto proto,
                                  std::optional<IpAddress> source = std::nullopt) const {
    return talk(bed_.outside().netns, proto, bed_.node_address(family), kOutsidePort, source);
  }
  [[nodiscard]] const EchoServer& server(Family family) const {
    return family == Family::kV4 ? *v4_ : *v6_;
  }

  MeshBed bed_;
  std::optional<netlink::Netns> provider_;
  policy::World world_;
  policy::Compiler compiler_;
  std::optional<EchoServer> v4_, v6_;
};

TEST_F(RulesetGatewayTest, PermittedSourceComesToTheProvidersNodeAsTheGateway) {
  lead({"192.0.2.100/32", "2001:db8::/64"});
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(from_outside(family, proto, bed_.outside().at(family)), Talk::kAnswered);
    EXPECT_EQ(server(family).last_peer(), gateway(family));
  });
  for (const Proto proto : kProtos) {
    EXPECT_EQ(from_outside(Family::kV4, proto, ip("192.0.2.101")), Talk::kRefused);
  }
}

TEST_F(RulesetGatewayTest, RefusedSourceMeetsNoListenerOfTheGatewayNorTheProvider) {
  const EchoServer node4(bed_.node(), bed_.node_address(Family::kV4), kOutsidePort);
  const EchoServer node6(bed_.node(), bed_.node_address(Family::kV6), kOutsidePort);
  lead({});
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(from_outside(family, proto), Talk::kRefused);
  });
  EXPECT_EQ(node4.questions() + node6.questions() + v4_->questions() + v6_->questions(), 0U);
}

TEST_F(RulesetGatewayTest, SourceWithdrawnIsCut) {
  for_each_kind([this](Family family, Proto proto) {
    lead({"0.0.0.0/0", "::/0"});
    Conversation open(bed_.outside().netns, proto, bed_.node_address(family), kOutsidePort);
    ASSERT_EQ(open.ask(), Talk::kAnswered);
    lead({"203.0.113.0/24"});
    EXPECT_EQ(open.ask(), Talk::kRefused);
  });
}

TEST_F(RulesetGatewayTest, WhatLeadsNowhereAnyMoreIsCut) {
  for_each_kind([this](Family family, Proto proto) {
    lead({"0.0.0.0/0", "::/0"});
    Conversation open(bed_.outside().netns, proto, bed_.node_address(family), kOutsidePort);
    ASSERT_EQ(open.ask(), Talk::kAnswered);
    const auto asked = server(family).questions();
    lead_nowhere();
    EXPECT_EQ(open.ask(), Talk::kRefused);
    EXPECT_EQ(from_outside(family, proto), Talk::kRefused) << "nobody listens there";
    EXPECT_EQ(server(family).questions(), asked);
  });
}

TEST_F(RulesetGatewayTest, WhatLeadsElsewhereTakesNoOpenConnectionAlong) {
  constexpr std::uint16_t kOther = kNodePort + 1;
  const EchoServer other(*provider_, provider(Family::kV4), kOther);
  for (const Proto proto : kProtos) {
    lead({"0.0.0.0/0", "::/0"});
    Conversation open(bed_.outside().netns, proto, bed_.node_address(Family::kV4), kOutsidePort);
    ASSERT_EQ(open.ask(), Talk::kAnswered);
    const auto asked = v4_->questions();
    lead({"0.0.0.0/0", "::/0"}, kOther);
    [[maybe_unused]] const auto cut = open.ask();  // UDP begins anew, where it leads now
    EXPECT_EQ(from_outside(Family::kV4, proto), Talk::kAnswered);
    EXPECT_EQ(v4_->questions(), asked);
  }
  EXPECT_GE(other.questions(), 2U);
}

TEST_F(RulesetGatewayTest, CountsWhatComesIn) {
  lead({"192.0.2.100/32", "2001:db8::/64"});
  for (const Family family : kFamilies) {
    const auto set = family == Family::kV4 ? policy::SetId::kPubCount4 : policy::SetId::kPubCount6;
    const auto packets = [&] {
      return bed_.counted(set)[policy::publication_count(provider(family), Proto::kUdp, kNodePort)];
    };
    if (family == Family::kV4) {
      EXPECT_EQ(from_outside(family, Proto::kUdp, ip("192.0.2.101")), Talk::kRefused);
    }
    EXPECT_EQ(packets(), 0U);
    EXPECT_EQ(from_outside(family, Proto::kUdp, bed_.outside().at(family)), Talk::kAnswered);
    EXPECT_EQ(packets(), 2U) << "both ways";
  }
}

// Translations of others, to the same host, and what is only forwarded.
TEST_F(RulesetGatewayTest, WhatOthersForwardIsLeftAlone) {
  lead({});
  ASSERT_EQ(output_of(fmt::format(R"(nft -f - <<END
    table inet others {{
      chain pre {{ type nat hook prerouting priority -110;
        iifname "up0" ip daddr 192.0.2.1 tcp dport {0} dnat ip to 198.51.100.2:{0}; }}
      chain post {{ type nat hook postrouting priority 90; oifname "up1" masquerade; }}
    }}
END)",
                                  kForeignPort)),
            "");
  const EchoServer foreign(*provider_, provider(Family::kV4), kForeignPort);
  EXPECT_EQ(talk(bed_.outside().netns, Proto::kTcp, bed_.node_address(Family::kV4), kForeignPort),
            Talk::kAnswered);
  ASSERT_EQ(output_in(bed_.outside().netns, "ip route add 198.51.100.0/24 via 192.0.2.1"), "");
  EXPECT_EQ(talk(bed_.outside().netns, Proto::kTcp, provider(Family::kV4), kNodePort),
            Talk::kAnswered)
      << "not by an outside port: the provider's node judges it";
}

// Masqueraded, it would come to the provider's node as the gateway, whom that admits.
TEST_F(RulesetGatewayTest, EnginesContainersAreJudgedByTheirOwnAddress) {
  bed_.add({policy::ElementBuilder(policy::SetId::kEngine4).ifname("up0").build()});
  ASSERT_EQ(
      output_of("nft 'add table inet others; add chain inet others post { type nat hook "
                "postrouting priority 90; }; add rule inet others post oifname up1 masquerade'"),
      "");
  ASSERT_EQ(output_in(bed_.outside().netns, "ip route add 198.51.100.0/24 via 192.0.2.1"), "");
  const auto direct = [this](const char* source) {
    return talk(bed_.outside().netns, Proto::kTcp, provider(Family::kV4), kNodePort, ip(source));
  };
  lead({"192.0.2.100/32"});
  EXPECT_EQ(direct("192.0.2.100"), Talk::kAnswered);
  EXPECT_EQ(server(Family::kV4).last_peer(), gateway(Family::kV4));
  EXPECT_EQ(direct("192.0.2.101"), Talk::kRefused);
}

TEST_F(RulesetGatewayTest, ContainersDoNotGoRoundByIt) {
  lead({"0.0.0.0/0", "::/0"});
  bed_.add(MeshBed::egress_profile(bed_[0], 5));
  bed_.add(MeshBed::egress(5, prefix("0.0.0.0/0")));
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(talk(bed_[0].netns, proto, bed_.node_address(family), kOutsidePort), Talk::kRefused);
  });
  EXPECT_EQ(v4_->questions() + v6_->questions(), 0U);
}

TEST_F(RulesetGatewayTest, AContainerOfTheGatewayItselfIsReachedAsByItsNodePort) {
  const EchoServer own4(bed_[0].netns, bed_[0].v4, 5432), own6(bed_[0].netns, bed_[0].v6, 5432);
  auto& workload = world_.workloads["near"];
  workload.declaration.id = "near";
  auto& attachment = workload.attachment.emplace();
  attachment.v4 = bed_[0].v4;
  attachment.v6 = bed_[0].v6;
  policy::Touched touched;
  for (const Proto proto : kProtos) {
    world_.node_ports[{"near", proto, 5432}] = kNodePort;
    world_.outside[{proto, kOutsidePort}] = {"near",
                                             5432,
                                             bed_.node_address(Family::kV4),
                                             bed_.node_address(Family::kV6),
                                             kNodePort,
                                             {prefix("0.0.0.0/0")}};
    touched.outside.insert({proto, kOutsidePort});
    // Its profile is that of the publication, of which this test has no declaration.
    bed_.add(bed_.publish(proto, kNodePort, bed_[0], 5432, 7));
  }
  bring(touched);
  bed_.add(MeshBed::sources(7, prefix("192.0.2.100/32")));
  bed_.add(MeshBed::sources(7, prefix("2001:db8::/64")));
  for_each_kind([&](Family family, Proto proto) {
    EXPECT_EQ(from_outside(family, proto, bed_.outside().at(family)), Talk::kAnswered);
    EXPECT_EQ((family == Family::kV4 ? own4 : own6).last_peer(), bed_.outside().at(family));
  });
  EXPECT_EQ(from_outside(Family::kV4, Proto::kTcp, ip("192.0.2.101")), Talk::kRefused);
}

// A node that forwarded nothing before.
class RulesetGatewayOnlyTest : public RulesetGatewayTest {
 protected:
  RulesetGatewayOnlyTest()
      : RulesetGatewayTest({.forwarding4_was_off = true, .forwarding6_was_off = true}) {}
};

TEST_F(RulesetGatewayOnlyTest, ForwardsWhatIsAnOutsidePortsAndNothingElse) {
  lead({"192.0.2.100/32", "2001:db8::/64"});
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(from_outside(family, proto, bed_.outside().at(family)), Talk::kAnswered);
  });
  ASSERT_EQ(output_in(bed_.outside().netns, "ip route add 198.51.100.0/24 via 192.0.2.1"), "");
  EXPECT_EQ(talk(bed_.outside().netns, Proto::kTcp, provider(Family::kV4), kNodePort, std::nullopt,
                 kSilence),
            Talk::kSilent);
}

}  // namespace
}  // namespace meshd::test
