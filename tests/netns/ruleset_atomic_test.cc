// Nothing opens while the table changes, nor when somebody empties a part of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"

namespace meshd::test {
namespace {

class RulesetAtomicTest : public testing::Test {
 protected:
  MeshBed bed_{3};
};

TEST_F(RulesetAtomicTest, ReplacingAllRulesLeaksNothingAndLosesNothing) {
  const EchoServer shut(bed_[1].netns, bed_[1].v4, 6000);
  const EchoServer open(bed_[1].netns, bed_[1].v4, 5432);
  bed_.add(MeshBed::allow(bed_[2], bed_[1], Proto::kUdp, 5432));
  std::atomic<bool> stop = false;
  std::atomic<int> rounds = 0;
  std::thread hammer([&] {
    std::vector<RawDatagram> datagrams;
    for (std::uint16_t i = 0; i < 200; ++i) {
      datagrams.push_back(
          {bed_[0].mac, bed_[0].v4, bed_[1].v4, 6000, static_cast<std::uint16_t>(30'000 + i)});
    }
    for (; !stop; ++rounds) send_raw(bed_[0].netns, datagrams);
  });
  Conversation conversation(bed_[2].netns, Proto::kUdp, bed_[1].v4, 5432);
  int replaced = 0;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while ((replaced < 100 || rounds < 20) && std::chrono::steady_clock::now() < limit) {
    bed_.replace_rules(replaced % 2 == 0 ? 1500 : 2500);
    EXPECT_EQ(conversation.ask(), Talk::kAnswered);
    ++replaced;
  }
  stop = true;
  hammer.join();
  EXPECT_GE(replaced, 20);
  EXPECT_GE(rounds, 5) << "too little traffic to say anything";
  EXPECT_EQ(shut.questions(), 0U);
  // The control: the same datagrams do arrive where they may.
  bed_.add(MeshBed::allow(bed_[0], bed_[1], Proto::kUdp, 6000));
  EXPECT_EQ(talk(bed_[0].netns, Proto::kUdp, bed_[1].v4, 6000), Talk::kAnswered);
}

TEST_F(RulesetAtomicTest, ChainsThatAreEmptiedRefuse) {
  const EchoServer peer(bed_[1].netns, bed_[1].v4, 5432);
  const EchoServer node(bed_.node(), bed_.node_address(Family::kV4), 22);
  const EchoServer far(bed_.outside().netns, bed_.outside().v4, 443);
  bed_.add(bed_.publish(Proto::kTcp, 25432, bed_[1], 5432, 1));
  const auto control = MeshBed::allow(bed_[0], bed_[1], Proto::kTcp, 5432);
  bed_.add(control);
  ASSERT_EQ(talk(bed_[0].netns, Proto::kTcp, bed_[1].v4, 5432), Talk::kAnswered);
  bed_.remove(control);
  const std::set<std::string> base = {"guard",     "raw_pre",  "raw_out", "dnat_pre", "dnat_out",
                                      "snat_post", "pre_late", "forw",    "inp",      "outp"};
  for (const auto& chain : policy::base_table(bed_.settings(), {}).chains) {
    if (base.contains(chain.name)) continue;
    SCOPED_TRACE("emptied up to " + chain.name);
    ASSERT_EQ(output_of("nft flush chain inet meshd " + chain.name), "");
    const std::chrono::milliseconds limit(20);
    const auto ask = [&](const BedHost& from, const IpAddress& to, std::uint16_t port) {
      return talk(from.netns, Proto::kTcp, to, port, std::nullopt, limit);
    };
    EXPECT_NE(ask(bed_[0], bed_[1].v4, 5432), Talk::kAnswered);
    EXPECT_NE(ask(bed_[0], bed_.node_address(Family::kV4), 22), Talk::kAnswered);
    EXPECT_NE(ask(bed_[0], bed_.outside().v4, 443), Talk::kAnswered);
    EXPECT_NE(ask(bed_.outside(), bed_[1].v4, 5432), Talk::kAnswered);
    EXPECT_NE(ask(bed_.outside(), bed_.node_address(Family::kV4), 25432), Talk::kAnswered);
  }
  EXPECT_EQ(peer.questions() + node.questions() + far.questions(), 1U) << "the control's one";
}

}  // namespace
}  // namespace meshd::test
