// Published ports: who comes in, and that nobody falls through to the node.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/profile.h"
#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"

namespace meshd::test {
namespace {

constexpr std::uint16_t kNodePort = 25432;
constexpr std::uint32_t kProfile = 0x80000001;

class RulesetPublishTest : public testing::Test {
 protected:
  RulesetPublishTest() {
    for (const Proto proto : kProtos) {
      bed_.add(bed_.publish(proto, kNodePort, bed_[1], 5432, kProfile));
    }
  }
  void open_to(const char* v4, const char* v6) {
    bed_.add(MeshBed::sources(kProfile, prefix(v4)));
    bed_.add(MeshBed::sources(kProfile, prefix(v6)));
  }
  [[nodiscard]] Talk from_outside(Family family, Proto proto,
                                  std::optional<IpAddress> source = std::nullopt) const {
    return talk(bed_.outside().netns, proto, bed_.node_address(family), kNodePort, source);
  }

  MeshBed bed_{2};
  EchoServer v4_{bed_[1].netns, bed_[1].v4, 5432};
  EchoServer v6_{bed_[1].netns, bed_[1].v6, 5432};
};

TEST_F(RulesetPublishTest, PermittedSourceComesInWithItsAddress) {
  open_to("192.0.2.100/32", "2001:db8::/64");
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(from_outside(family, proto, bed_.outside().at(family)), Talk::kAnswered);
    EXPECT_EQ((family == Family::kV4 ? v4_ : v6_).last_peer(), bed_.outside().at(family));
  });
  for (const Proto proto : kProtos) {
    EXPECT_EQ(from_outside(Family::kV4, proto, ip("192.0.2.101")), Talk::kRefused);
  }
}

TEST_F(RulesetPublishTest, RefusedSourceMeetsNoListenerOfTheNode) {
  const EchoServer node4(bed_.node(), bed_.node_address(Family::kV4), kNodePort);
  const EchoServer node6(bed_.node(), bed_.node_address(Family::kV6), kNodePort);
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(from_outside(family, proto), Talk::kRefused);
  });
  EXPECT_EQ(node4.questions() + node6.questions(), 0U);
}

TEST_F(RulesetPublishTest, SourceWithdrawnIsCut) {
  open_to("192.0.2.0/24", "2001:db8::/64");
  for_each_kind([this](Family family, Proto proto) {
    Conversation open(bed_.outside().netns, proto, bed_.node_address(family), kNodePort);
    ASSERT_EQ(open.ask(), Talk::kAnswered);
    const auto sources = MeshBed::sources(
        kProfile, prefix(family == Family::kV4 ? "192.0.2.0/24" : "2001:db8::/64"));
    bed_.remove(sources);
    EXPECT_EQ(open.ask(), Talk::kRefused);
    bed_.add(sources);
  });
}

// What is let in counts, in both directions, and what is refused does not.
TEST_F(RulesetPublishTest, CountsWhatComesIn) {
  open_to("192.0.2.100/32", "2001:db8::/64");
  const auto packets = [this](Family family, Proto proto) {
    const auto set = family == Family::kV4 ? policy::SetId::kPubCount4 : policy::SetId::kPubCount6;
    return bed_.counted(set)[policy::publication_count(bed_[1].at(family), proto, 5432)];
  };
  EXPECT_EQ(from_outside(Family::kV4, Proto::kUdp, ip("192.0.2.101")), Talk::kRefused);
  EXPECT_EQ(packets(Family::kV4, Proto::kUdp), 0U);
  for (const Family family : kFamilies) {
    EXPECT_EQ(from_outside(family, Proto::kUdp, bed_.outside().at(family)), Talk::kAnswered);
    EXPECT_EQ(packets(family, Proto::kUdp), 2U);
    EXPECT_EQ(packets(family, Proto::kTcp), 0U);
  }
}

TEST_F(RulesetPublishTest, DrainingRefusesWhatIsNewUncountedAndKeepsOpenOnes) {
  open_to("0.0.0.0/0", "::/0");
  for_each_kind([this](Family family, Proto proto) {
    const bool v4 = family == Family::kV4;
    const auto drain = MeshBed::draining(bed_[1].at(family));
    // Of this protocol: what was open over the other one may just be ending.
    const auto counted = [&] {
      auto all = bed_.counted(v4 ? policy::SetId::kPubCount4 : policy::SetId::kPubCount6);
      std::erase_if(all, [&](const auto& entry) {
        return entry.first.key()[v4 ? 4 : 16] != static_cast<std::uint8_t>(proto);
      });
      return all;
    };
    const auto before = counted();
    bed_.add({drain});
    EXPECT_EQ(from_outside(family, proto), Talk::kRefused);
    EXPECT_EQ(counted(), before);
    bed_.remove({drain});
    Conversation open(bed_.outside().netns, proto, bed_.node_address(family), kNodePort);
    ASSERT_EQ(open.ask(), Talk::kAnswered);
    bed_.add({drain});
    EXPECT_EQ(open.ask(), Talk::kAnswered);
    EXPECT_EQ(from_outside(family, proto), Talk::kRefused);
    bed_.remove({drain});
  });
}

TEST_F(RulesetPublishTest, ProfileOfAnotherPublicationOpensNothing) {
  bed_.add(MeshBed::sources(kProfile + 1, prefix("0.0.0.0/0")));
  EXPECT_EQ(from_outside(Family::kV4, Proto::kTcp), Talk::kRefused);
}

// Neither a mark on the packet nor the open list of sources lets a container in.
TEST_F(RulesetPublishTest, ContainersComeInOnlyAsDeclared) {
  open_to("0.0.0.0/0", "::/0");
  for_each_kind([this](Family family, Proto proto) {
    const auto ask = [&] {
      return talk(bed_[0].netns, proto, bed_.node_address(family), kNodePort);
    };
    EXPECT_EQ(ask(), Talk::kRefused);
    const auto allowed = MeshBed::allow(bed_[0], bed_[1], proto, 5432);
    bed_.add(allowed);
    EXPECT_EQ(ask(), Talk::kAnswered);
    bed_.remove(allowed);
  });
}

// Profiles go through a register that nft shows as the packet's mark: a mark is not one.
TEST_F(RulesetPublishTest, MarkOfAPacketIsNoProfile) {
  bed_.add(MeshBed::sources(7, prefix("0.0.0.0/0")));
  ASSERT_EQ(output_of("nft 'add table ip foreign; add chain ip foreign pre "
                      "{ type filter hook prerouting priority -250; }; "
                      "add rule ip foreign pre meta mark set 7'"),
            "");
  EXPECT_EQ(from_outside(Family::kV4, Proto::kTcp), Talk::kRefused);
  open_to("192.0.2.0/24", "2001:db8::/64");
  EXPECT_EQ(from_outside(Family::kV4, Proto::kTcp), Talk::kAnswered);
}

TEST_F(RulesetPublishTest, NodesRootUsesItsOwnPort) {
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(talk(bed_.node(), proto, bed_.node_address(family), kNodePort), Talk::kAnswered);
  });
}

}  // namespace
}  // namespace meshd::test
