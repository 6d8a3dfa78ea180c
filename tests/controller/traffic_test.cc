#include "controller/traffic.h"

#include <gmock/gmock.h>

#include "tests/controller/cluster_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::IsEmpty;
using testing::SizeIs;

class TrafficTableTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(bed_.join("n1"));
    ASSERT_TRUE(bed_.join("n2"));
    ASSERT_TRUE(
        bed_.apply("{id: worker, owner: ada, peers: [{name: db}]},"
                   "{id: db, owner: ada, name: db, scope: CLUSTER, serves: [{port: 80}]}"));
    bed_.attach("n1", "worker");
    bed_.attach("n2", "db");
  }
  static void add(mesh::v1::Traffic& traffic, const std::string& consumer,
                  const std::string& provider, std::uint64_t bytes, std::uint32_t port = 80) {
    auto& flow = *traffic.add_flows();
    flow.set_consumer(consumer);
    flow.set_provider(provider);
    flow.mutable_port()->set_port(port);
    flow.set_bytes(bytes);
    flow.set_packets(4);
  }
  static mesh::v1::Traffic traffic(std::uint64_t bytes = 4000, std::uint32_t port = 80) {
    mesh::v1::Traffic result;
    result.set_over_ms(2000);
    add(result, "worker", "db", bytes, port);
    return result;
  }
  std::optional<std::string> say(const std::string& node, const mesh::v1::Traffic& said) {
    return table_.take(bed_.cluster, node, said, bed_.now.steady);
  }
  std::vector<proxy::FlowRate> rates() { return table_.rates(bed_.now.steady); }

  ClusterBed bed_;
  TrafficTable table_;
};

TEST_F(TrafficTableTest, KeepsRatesASecond) {
  EXPECT_FALSE(say("n1", traffic()));
  ASSERT_THAT(rates(), SizeIs(1));
  EXPECT_EQ(rates()[0], (proxy::FlowRate{"worker", "db", Proto::kTcp, 80, 2000, 2}));
}

TEST_F(TrafficTableTest, ALittleIsNotNothing) {
  EXPECT_FALSE(say("n1", traffic(1)));
  EXPECT_EQ(rates().at(0).bytes, 1);
}

TEST_F(TrafficTableTest, ANodeIsBelievedAboutItsOwnConsumersAlone) {
  EXPECT_EQ(say("n2", traffic()), "worker is not on it");
  EXPECT_THAT(rates(), IsEmpty());
}

TEST_F(TrafficTableTest, WhatIsSaidReplacesWhatWasSaidBefore) {
  EXPECT_FALSE(say("n1", traffic()));
  bed_.pass(2s);
  mesh::v1::Traffic nothing;
  nothing.set_over_ms(2000);
  EXPECT_FALSE(say("n1", nothing));
  EXPECT_THAT(rates(), IsEmpty());
}

TEST_F(TrafficTableTest, WhatIsNotRenewedLapses) {
  EXPECT_FALSE(say("n1", traffic()));
  bed_.pass(kTrafficLapses + 1s);
  EXPECT_THAT(rates(), IsEmpty());
}

TEST_F(TrafficTableTest, OfANodeThatIsLostNothingStays) {
  EXPECT_FALSE(say("n1", traffic()));
  table_.forget("n1");
  EXPECT_THAT(rates(), IsEmpty());
}

TEST_F(TrafficTableTest, WhatComesTooOftenIsLeftOut) {
  EXPECT_FALSE(say("n1", traffic()));
  EXPECT_EQ(say("n1", traffic(8000)), "too often");
  EXPECT_EQ(rates().at(0).bytes, 2000);
}

TEST_F(TrafficTableTest, WhatCannotBeIsNotBelieved) {
  EXPECT_TRUE(say("n1", traffic(1ULL << 51U)));
  bed_.pass(2s);
  EXPECT_TRUE(say("n1", traffic(1, 0)));
  bed_.pass(2s);
  EXPECT_TRUE(say("n1", traffic(1, 65536)));
  bed_.pass(2s);
  auto never = traffic();
  never.set_over_ms(0);
  EXPECT_TRUE(say("n1", never));
  auto named = traffic();
  named.mutable_flows(0)->set_provider(std::string(64, 'x'));
  EXPECT_TRUE(say("n1", named));
  EXPECT_THAT(rates(), IsEmpty());
}

TEST_F(TrafficTableTest, MoreThanAMessageHoldsIsRefusedWhole) {
  auto much = traffic();
  for (int i = 0; i < kMaxTrafficFlows; ++i) add(much, "worker", "db", 1);
  EXPECT_TRUE(say("n1", much));
  EXPECT_THAT(rates(), IsEmpty());
}

}  // namespace
}  // namespace meshd::controller
