#include "meshd/traffic.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/policy_world.h"

namespace meshd {
namespace {

using namespace std::chrono_literals;
using policy::ElementBuilder;
using policy::SetId;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class TrafficTest : public testing::Test {
 protected:
  TrafficTest() {
    bed_.apply("{id: db, owner: ada, workflow: w, name: db, serves: [{port: 80}]}");
    bed_.apply("{id: worker, owner: ada, workflow: w, peers: [{name: db}]}");
    bed_.apply("{id: far, owner: ada, workflow: w, peers: [{name: db}]}");
    bed_.attach("db");
    bed_.attach("worker");
    far_ = IpAddress::parse("10.213.9.9").value();
    bed_.world.workloads.find("far")->second.remote =
        policy::Remote{"n2", far_, std::nullopt, false};
  }
  [[nodiscard]] const policy::Attachment& at(const std::string& id) const {
    return *bed_.world.workloads.find(id)->second.attachment;
  }
  static ElementCount count(const IpAddress& from, const IpAddress& to, std::uint16_t port,
                            std::uint64_t packets, std::uint64_t bytes) {
    const auto set = from.is_v4() ? SetId::kAllow4 : SetId::kAllow6;
    return {ElementBuilder(set).addr(from).addr(to).proto(Proto::kTcp).port(port).build(), packets,
            bytes};
  }
  [[nodiscard]] TrafficCounts counts(const std::vector<ElementCount>& elements) const {
    return traffic_counts(bed_.world, elements);
  }
  static std::vector<std::string> texts(const mesh::v1::Traffic& traffic) {
    std::vector<std::string> lines;
    for (const auto& flow : traffic.flows()) {
      lines.push_back(fmt::format("{} > {} {} {}/{}", flow.consumer(), flow.provider(),
                                  flow.port().port(), flow.packets(), flow.bytes()));
    }
    return lines;
  }

  policy::PolicyWorld bed_;
  IpAddress far_;
};

TEST_F(TrafficTest, SaysWhatHasPassedSinceTheLastTime) {
  const auto from = *at("worker").v4, to = *at("db").v4;
  const auto before = counts({count(from, to, 80, 3, 300)});
  const auto now = counts({count(from, to, 80, 5, 700)});
  const auto said = traffic_since(before, now, 2s);
  EXPECT_THAT(texts(said), ElementsAre("worker > db 80 2/400"));
  EXPECT_EQ(said.over_ms(), 2000);
  EXPECT_THAT(texts(traffic_since(now, now, 2s)), IsEmpty());
}

TEST_F(TrafficTest, BothFamiliesAreOneFlow) {
  const auto now = counts({count(*at("worker").v4, *at("db").v4, 80, 1, 10),
                           count(*at("worker").v6, *at("db").v6, 80, 2, 20)});
  EXPECT_THAT(texts(traffic_since({}, now, 2s)), ElementsAre("worker > db 80 3/30"));
}

TEST_F(TrafficTest, ACounterThatBeganAnewCountsFromThere) {
  const auto from = *at("worker").v4, to = *at("db").v4;
  const auto before = counts({count(from, to, 80, 90, 9000)});
  const auto now = counts({count(from, to, 80, 2, 200)});
  EXPECT_THAT(texts(traffic_since(before, now, 2s)), ElementsAre("worker > db 80 2/200"));
}

TEST_F(TrafficTest, OfAConsumerElsewhereItsOwnNodeSays) {
  EXPECT_THAT(counts({count(far_, *at("db").v4, 80, 5, 500)}), IsEmpty());
}

TEST_F(TrafficTest, OfAProviderElsewhereThisNodeSays) {
  const auto now = counts({count(*at("worker").v4, far_, 80, 5, 500)});
  EXPECT_THAT(texts(traffic_since({}, now, 2s)), ElementsAre("worker > far 80 5/500"));
}

TEST_F(TrafficTest, AddressesOfNobodyAreLeftOut) {
  const auto nobody = IpAddress::parse("10.213.9.10").value();
  EXPECT_THAT(counts({count(*at("worker").v4, nobody, 80, 5, 500)}), IsEmpty());
}

TEST_F(TrafficTest, OfManyThoseWithTheMostBytesAreSaid) {
  std::vector<ElementCount> elements;
  for (std::uint16_t port = 1; port <= kMaxTrafficFlows + 10; ++port) {
    elements.push_back(count(*at("worker").v4, *at("db").v4, port, 1, port));
  }
  const auto said = traffic_since({}, counts(elements), 2s);
  ASSERT_THAT(said.flows(), SizeIs(kMaxTrafficFlows));
  EXPECT_EQ(said.flows(0).bytes(), kMaxTrafficFlows + 10);
  EXPECT_EQ(said.flows(kMaxTrafficFlows - 1).bytes(), 11);
}

}  // namespace
}  // namespace meshd
