// Service addresses: translated, held, refused, as real packets see them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <thread>

#include "netlink/conntrack.h"
#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"

namespace meshd::test {
namespace {

class RulesetVipTest : public testing::Test {
 protected:
  void allow(const BedHost& from, const BedHost& to, std::uint16_t port = 5432) {
    for (const Proto proto : kProtos) bed_.add(MeshBed::allow(from, to, proto, port));
  }
  void fill(std::uint16_t port, const BedHost& to) {
    for (const Proto proto : kProtos) bed_.add(bed_.slots(proto, port, to));
  }
  // Of the first container, IPv6 and TCP only: ports 8000 to 8015.
  void hold_block_of_8000() {
    bed_.add({policy::ElementBuilder(policy::SetId::kHold6Block)
                  .addr(bed_[0].v6)
                  .addr(bed_.vip(Family::kV6))
                  .proto(Proto::kTcp)
                  .port(8000)
                  .build()});
  }
  [[nodiscard]] Talk ask(const BedHost& from, Family family, Proto proto, std::uint16_t port = 5432,
                         std::chrono::milliseconds limit = kPatience) const {
    return talk(from.netns, proto, bed_.vip(family), port, std::nullopt, limit);
  }
  [[nodiscard]] const EchoServer& server(Family family) const {
    return family == Family::kV4 ? v4_ : v6_;
  }

  MeshBed bed_{3};
  EchoServer v4_{bed_[1].netns, bed_[1].v4, 5432};
  EchoServer v6_{bed_[1].netns, bed_[1].v6, 5432};
};

TEST_F(RulesetVipTest, LeadsToTheEndpointWithTheConsumersAddress) {
  allow(bed_[0], bed_[1]);
  fill(5432, bed_[1]);
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(ask(bed_[0], family, proto), Talk::kAnswered);
    EXPECT_EQ(server(family).last_peer(), bed_[0].at(family));
    EXPECT_EQ(ask(bed_[2], family, proto), Talk::kRefused) << "it declared nothing";
    EXPECT_EQ(ask(bed_[0], family, proto, 5433), Talk::kRefused) << "no such port";
  });
}

TEST_F(RulesetVipTest, RevokingCutsFlowsThroughIt) {
  allow(bed_[0], bed_[1]);
  fill(5432, bed_[1]);
  for_each_kind([this](Family family, Proto proto) {
    Conversation open(bed_[0].netns, proto, bed_.vip(family), 5432);
    ASSERT_EQ(open.ask(), Talk::kAnswered);
    bed_.remove(MeshBed::allow(bed_[0], bed_[1], proto, 5432));
    EXPECT_EQ(open.ask(), Talk::kRefused);
    bed_.add(MeshBed::allow(bed_[0], bed_[1], proto, 5432));
  });
}

TEST_F(RulesetVipTest, SlotsOfSeveralEndpointsAreAllUsed) {
  allow(bed_[0], bed_[1]);
  allow(bed_[0], bed_[2]);
  const EchoServer other(bed_[2].netns, bed_[2].v4, 5432);
  auto elements = bed_.slots(Proto::kTcp, 5432, bed_[1]);
  const auto second = bed_.slots(Proto::kTcp, 5432, bed_[2]);
  for (std::size_t i = 0; i < elements.size(); i += 2) elements[i] = second[i];
  bed_.add(elements);
  // 40 tries that all go one way: one in 2^39.
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(ask(bed_[0], Family::kV4, Proto::kTcp), Talk::kAnswered);
  }
  EXPECT_GT(v4_.questions(), 0U);
  EXPECT_GT(other.questions(), 0U);
}

TEST_F(RulesetVipTest, BlockKeepsThePort) {
  const EchoServer inside(bed_[1].netns, bed_[1].v4, 8007);
  const EchoServer beyond(bed_[1].netns, bed_[1].v4, 8016);
  std::vector<policy::Element> elements;
  for (std::uint32_t slot = 0; slot < policy::kSlots; ++slot) {
    elements.push_back(policy::ElementBuilder(policy::SetId::kVip4Block)
                           .addr(bed_.vip(Family::kV4))
                           .proto(Proto::kTcp)
                           .port(8000)
                           .number(slot)
                           .data()
                           .addr(bed_[1].v4)
                           .build());
  }
  bed_.add(elements);
  for (const std::uint16_t port : {std::uint16_t{8007}, std::uint16_t{8016}}) {
    bed_.add(MeshBed::allow(bed_[0], bed_[1], Proto::kTcp, port));
  }
  EXPECT_EQ(ask(bed_[0], Family::kV4, Proto::kTcp, 8007), Talk::kAnswered);
  EXPECT_EQ(ask(bed_[0], Family::kV4, Proto::kTcp, 8016), Talk::kRefused);
}

TEST_F(RulesetVipTest, ReachesItself) {
  allow(bed_[1], bed_[1]);
  fill(5432, bed_[1]);
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(ask(bed_[1], family, proto), Talk::kAnswered);
    EXPECT_EQ(server(family).last_peer(),
              family == Family::kV4 ? bed_.settings().resolver4[0] : bed_.settings().resolver6[0]);
  });
}

TEST_F(RulesetVipTest, WithoutEndpointIsHeldForThePermittedAndRefusedToOthers) {
  for (const Proto proto : kProtos) bed_.add(bed_.hold(bed_[0], proto, 5432));
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(ask(bed_[0], family, proto, 5432, kSilence), Talk::kSilent);
    EXPECT_EQ(ask(bed_[0], family, proto, 5433), Talk::kRefused);
    EXPECT_EQ(ask(bed_[2], family, proto), Talk::kRefused);
    EXPECT_EQ(talk(bed_.outside().netns, proto, bed_.vip(family), 5432), Talk::kRefused);
  });
  EXPECT_GE(bed_.counter("c_held"), 4U);
}

TEST_F(RulesetVipTest, HoldOfABlockIsSilentToo) {
  hold_block_of_8000();
  EXPECT_EQ(ask(bed_[0], Family::kV6, Proto::kTcp, 8015, kSilence), Talk::kSilent);
  EXPECT_EQ(ask(bed_[0], Family::kV6, Proto::kTcp, 8016), Talk::kRefused);
}

// What a hold is for: the same connect succeeds when the endpoint comes.
TEST_F(RulesetVipTest, HeldConnectGoesOnWhenTheEndpointComes) {
  allow(bed_[0], bed_[1]);
  const auto hold = bed_.hold(bed_[0], Proto::kTcp, 5432);
  bed_.add(hold);
  for (const Family family : kFamilies) {
    const auto held = bed_.counter("c_held");
    auto answer = std::async(std::launch::async, [&] {
      return talk(bed_[0].netns, Proto::kTcp, bed_.vip(family), 5432, std::nullopt, kPatience);
    });
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    while (bed_.counter("c_held") == held && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    ASSERT_GT(bed_.counter("c_held"), held);
    const auto slots = bed_.slots(Proto::kTcp, 5432, bed_[1]);
    bed_.apply({hold, slots});
    EXPECT_EQ(answer.get(), Talk::kAnswered);
    bed_.apply({slots, hold});
  }
}

// Its first SYN went to a replica that did not answer, and the second comes after the replica's
// rules are gone and before connection tracking has heard of it: nobody is to be refused for that.
TEST_F(RulesetVipTest, AnUnansweredConnectIsNotRefusedWhenItsReplicaGoes) {
  for (const Family family : kFamilies) {
    allow(bed_[0], bed_[2]);
    const auto old_slots = bed_.slots(Proto::kTcp, 5432, bed_[2]);
    bed_.add(old_slots);
    const auto set_link = [&](const std::string& state) {
      ASSERT_TRUE(netlink::run_in_netns(
          bed_[2].netns.fd(), [&] { EXPECT_EQ(output_of("ip link set eth0 " + state), ""); }));
    };
    set_link("down");
    auto answer = std::async(std::launch::async, [&] {
      return talk(bed_[0].netns, Proto::kTcp, bed_.vip(family), 5432, std::nullopt, 4 * kPatience);
    });
    auto conntrack = netlink::Conntrack::open();
    ASSERT_TRUE(conntrack);
    const auto leads_there = [&](const netlink::ConntrackEntry& entry) {
      return entry.reply.source == bed_[2].at(family);
    };
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (conntrack->list(leads_there, 1)->empty() && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    ASSERT_FALSE(conntrack->list(leads_there, 1)->empty());
    const auto held = bed_.counter("c_held");
    const auto hold = bed_.hold(bed_[0], Proto::kTcp, 5432);
    auto gone = old_slots;
    for (const Proto proto : kProtos) {
      for (auto& element : MeshBed::allow(bed_[0], bed_[2], proto, 5432)) {
        gone.push_back(std::move(element));
      }
    }
    bed_.apply({gone, hold});
    while (bed_.counter("c_held") == held && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    EXPECT_GT(bed_.counter("c_held"), held) << "sent again";
    ASSERT_TRUE(conntrack->erase({.addresses = {bed_[2].at(family)}}));
    allow(bed_[0], bed_[1]);
    const auto slots = bed_.slots(Proto::kTcp, 5432, bed_[1]);
    bed_.apply({hold, slots});
    EXPECT_EQ(answer.get(), Talk::kAnswered);
    bed_.remove(slots);
    for (const Proto proto : kProtos) bed_.remove(MeshBed::allow(bed_[0], bed_[1], proto, 5432));
    set_link("up");
  }
}

// As a packet meets them that was on its way during the change: the slots of before, what is
// allowed and held of after.
TEST_F(RulesetVipTest, AConnectThatTheChangeOvertakesIsNotRefused) {
  fill(5432, bed_[1]);
  fill(8000, bed_[1]);
  for (const Proto proto : kProtos) bed_.add(bed_.hold(bed_[0], proto, 5432));
  hold_block_of_8000();
  for_each_kind([this](Family family, Proto proto) {
    const auto before = bed_.counter("c_held");
    EXPECT_EQ(ask(bed_[0], family, proto, 5432, kSilence), Talk::kSilent);
    EXPECT_GT(bed_.counter("c_held"), before);
    EXPECT_EQ(ask(bed_[2], family, proto), Talk::kRefused) << "it waits for nothing";
    EXPECT_EQ(talk(bed_[0].netns, proto, bed_[1].at(family), 5432), Talk::kRefused)
        << "not the service";
  });
  EXPECT_EQ(ask(bed_[0], Family::kV6, Proto::kTcp, 8000, kSilence), Talk::kSilent);
  EXPECT_EQ(ask(bed_[0], Family::kV4, Proto::kTcp, 8000), Talk::kRefused);
}

// Root on the node; IPv4 only, since an IPv6 route to lo refuses before any hook.
TEST_F(RulesetVipTest, NodeItselfUsesIt) {
  fill(5432, bed_[1]);
  for (const Proto proto : kProtos) {
    EXPECT_EQ(talk(bed_.node(), proto, bed_.vip(Family::kV4), 5432), Talk::kAnswered);
  }
}

}  // namespace
}  // namespace meshd::test
