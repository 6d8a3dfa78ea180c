// Containers and the outside: declared egress, what is never reached, port 53.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/profile.h"
#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"

namespace meshd::test {
namespace {

constexpr std::uint32_t kProfile = 0xfedcba98;

class RulesetEgressTest : public testing::Test {
 protected:
  void open(const char* to) { bed_.add(MeshBed::egress(kProfile, prefix(to))); }
  void open_all() {
    bed_.add(MeshBed::egress_profile(bed_[0], kProfile));
    open("0.0.0.0/0");
    open("::/0");
  }
  [[nodiscard]] Talk ask(int from, const IpAddress& to, Proto proto,
                         std::uint16_t port = 443) const {
    return talk(bed_[static_cast<std::size_t>(from)].netns, proto, to, port);
  }
  [[nodiscard]] IpAddress outside(Family family) const { return bed_.outside().at(family); }

  MeshBed bed_{2};
  EchoServer v4_{bed_.outside().netns, bed_.outside().v4, 443};
  EchoServer v6_{bed_.outside().netns, bed_.outside().v6, 443};
};

TEST_F(RulesetEgressTest, IsRefusedUnlessDeclared) {
  open_all();
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(ask(1, outside(family), proto), Talk::kRefused);
  });
  EXPECT_EQ(v4_.questions() + v6_.questions(), 0U);
}

TEST_F(RulesetEgressTest, GoesOutWithTheNodesAddress) {
  open_all();
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(ask(0, outside(family), proto), Talk::kAnswered);
    EXPECT_EQ((family == Family::kV4 ? v4_ : v6_).last_peer(), bed_.node_address(family));
  });
  for (const Family family : kFamilies) {
    EXPECT_EQ(ping(bed_[0].netns, outside(family)), Talk::kAnswered);
    EXPECT_NE(ping(bed_[1].netns, outside(family)), Talk::kAnswered);
  }
}

TEST_F(RulesetEgressTest, IsLimitedToItsPrefixes) {
  bed_.add(MeshBed::egress_profile(bed_[0], kProfile));
  open("192.0.2.101/32");
  EXPECT_EQ(ask(0, outside(Family::kV4), Proto::kTcp), Talk::kRefused);
  EXPECT_EQ(ask(0, outside(Family::kV6), Proto::kTcp), Talk::kRefused);
}

// Two containers share a profile of two rows: each pair counts for itself.
TEST_F(RulesetEgressTest, CountsByContainerAndRow) {
  constexpr std::uint32_t kTen = 0x0a0b0c0d, kDocumentation = 0xf0e0d0c0;
  for (const int container : {0, 1}) {
    const auto& host = bed_[static_cast<std::size_t>(container)];
    bed_.add(MeshBed::egress_profile(host, kProfile, kDocumentation));
    bed_.add({policy::egress_count(host.v4, kTen)});
  }
  bed_.add(MeshBed::egress(kProfile, prefix("10.0.0.0/8"), kTen));
  for (const auto* to : {"192.0.2.0/24", "2001:db8::/32"}) {
    bed_.add(MeshBed::egress(kProfile, prefix(to), kDocumentation));
  }
  EXPECT_EQ(ask(0, outside(Family::kV4), Proto::kUdp), Talk::kAnswered);
  for (const int asked : {0, 1}) {
    EXPECT_EQ(ask(asked, outside(Family::kV6), Proto::kUdp), Talk::kAnswered);
  }
  const auto v4 = bed_.counted(policy::SetId::kEgressCount4);
  EXPECT_EQ(v4.at(policy::egress_count(bed_[0].v4, kDocumentation)), 2U);
  EXPECT_EQ(v4.at(policy::egress_count(bed_[0].v4, kTen)), 0U);
  EXPECT_EQ(v4.at(policy::egress_count(bed_[1].v4, kDocumentation)), 0U);
  const auto v6 = bed_.counted(policy::SetId::kEgressCount6);
  EXPECT_EQ(v6.at(policy::egress_count(bed_[0].v6, kDocumentation)), 2U);
  EXPECT_EQ(v6.at(policy::egress_count(bed_[1].v6, kDocumentation)), 2U);
}

// A row of nobody's: the profile alone lets nothing pass.
TEST_F(RulesetEgressTest, IsRefusedWithoutTheElementThatCounts) {
  open_all();
  bed_.remove({policy::egress_count(bed_[0].v4, MeshBed::kRow)});
  EXPECT_EQ(ask(0, outside(Family::kV4), Proto::kTcp), Talk::kRefused);
  EXPECT_EQ(ask(0, outside(Family::kV6), Proto::kTcp), Talk::kAnswered);
}

TEST_F(RulesetEgressTest, WithdrawnIsCut) {
  open_all();
  for_each_kind([this](Family family, Proto proto) {
    Conversation open(bed_[0].netns, proto, outside(family), 443);
    ASSERT_EQ(open.ask(), Talk::kAnswered);
    bed_.remove(MeshBed::egress_profile(bed_[0], kProfile));
    EXPECT_EQ(open.ask(), Talk::kRefused);
    bed_.add(MeshBed::egress_profile(bed_[0], kProfile));
  });
}

TEST_F(RulesetEgressTest, NeverReachesMetadataNodeOrMesh) {
  open_all();
  const EchoServer metadata(bed_.outside().netns, ip("169.254.169.254"), 80);
  const EchoServer node4(bed_.node(), bed_.node_address(Family::kV4), 22);
  const EchoServer node6(bed_.node(), bed_.node_address(Family::kV6), 22);
  const EchoServer peer4(bed_[1].netns, bed_[1].v4, 80);
  const EchoServer peer6(bed_[1].netns, bed_[1].v6, 80);
  for (const Proto proto : kProtos) {
    EXPECT_EQ(ask(0, ip("169.254.169.254"), proto, 80), Talk::kRefused);
  }
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(ask(0, bed_.node_address(family), proto, 22), Talk::kRefused);
    EXPECT_EQ(ask(0, bed_[1].at(family), proto, 80), Talk::kRefused);
  });
  EXPECT_EQ(metadata.questions() + node4.questions() + node6.questions() + peer4.questions() +
                peer6.questions(),
            0U);
}

TEST_F(RulesetEgressTest, SpeaksNoTunnel) {
  open_all();
  for (const std::uint16_t port : {std::uint16_t{4789}, std::uint16_t{8472}, std::uint16_t{6081}}) {
    const EchoServer tunnel(bed_.outside().netns, outside(Family::kV4), port);
    EXPECT_EQ(ask(0, outside(Family::kV4), Proto::kUdp, port), Talk::kRefused);
    EXPECT_EQ(ask(0, outside(Family::kV4), Proto::kTcp, port), Talk::kAnswered);
    EXPECT_EQ(tunnel.questions(), 1U);
  }
}

// With egress or without, port 53 of whatever address is the resolver's second address.
TEST_F(RulesetEgressTest, Port53OfAnybodyIsTheResolver) {
  open_all();
  const EchoServer foreign(bed_.outside().netns, outside(Family::kV4), 53);
  const EchoServer resolver4(bed_.node(), bed_.settings().resolver4[1], 53);
  const EchoServer resolver6(bed_.node(), bed_.settings().resolver6[1], 53);
  for (const int container : {0, 1}) {
    for_each_kind([&](Family family, Proto proto) {
      EXPECT_EQ(ask(container, outside(family), proto, 53), Talk::kAnswered);
      EXPECT_EQ(ask(container, bed_.node_address(family), proto, 53), Talk::kAnswered);
    });
    EXPECT_EQ(ask(container, ip("8.8.8.8"), Proto::kUdp, 53), Talk::kAnswered);
    EXPECT_EQ(ask(container, ip("169.254.169.254"), Proto::kUdp, 53), Talk::kAnswered);
  }
  EXPECT_EQ(foreign.questions(), 0U);
  EXPECT_EQ(resolver4.last_peer(), bed_[1].v4) << "the view goes by the source";
  EXPECT_EQ(resolver6.last_peer(), bed_[1].v6);
}

}  // namespace
}  // namespace meshd::test
