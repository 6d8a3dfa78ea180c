// What the node does by itself as time passes: addresses rest, holds begin again, names that
// nobody uses go, and the generations stay level meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "meshd/node.h"
#include "tests/support/node_fixture.h"

namespace meshd {
namespace {

using policy::SetId;
using std::chrono::days;
using std::chrono::hours;
using std::chrono::seconds;
using Event = mesh::v1::Event;

class NodeLifeTest : public NodeFixture {
 protected:
  void expect_level() const {
    const auto& generations = node_->generations();
    EXPECT_EQ(generations.planned, generations.stored);
    EXPECT_EQ(generations.installed, generations.stored);
    EXPECT_EQ(generations.named, generations.stored);
    EXPECT_EQ(store_->generation(), generations.stored);
  }
  // worker waits for db, of which db-1 is the first replica.
  void run_worker() {
    ASSERT_EQ(told(apply("workloads: [{id: worker, owner: ada, workflow: wf1, "
                         "peers: [{name: db}]}]")),
              "OK");
    ASSERT_EQ(told(apply(replica("db-1"))), "OK");
    ASSERT_EQ(told(attach("worker")), "OK");
  }
  static std::string replica(const std::string& id, const std::string& serves = "{port: 6379}",
                             const std::string& name = "db") {
    return "workloads: [{id: " + id + ", owner: ada, workflow: wf1, name: " + name + ", serves: [" +
           serves + "]}]";
  }
  // Readers of holds: by VIP and port, so one a port here.
  [[nodiscard]] std::size_t held() const { return kernel_.count(SetId::kHold4); }
  static constexpr seconds kHold{120};
};

// --- addresses that rest ---------------------------------------------------------------

TEST_F(NodeLifeTest, RestedAddressesAreForgottenAndNothingFallsBehind) {
  run_worker();
  ASSERT_EQ(told(attach("db-1")), "OK");
  pass(hours(1));
  ASSERT_EQ(told(detach("db-1")), "OK");
  EXPECT_EQ(node_->quarantine().size(), 2U);
  pass(seconds(130));
  EXPECT_TRUE(node_->quarantine().empty());
  EXPECT_TRUE(store_->load()->quarantine.empty());
  expect_level();
}

// No other timer is set then: it must be the resting addresses that ask for one.
TEST_F(NodeLifeTest, TimerIsAskedForTheEndOfARest) {
  ASSERT_EQ(told(apply(replica("db-1"))), "OK");
  ASSERT_EQ(told(attach("db-1")), "OK");
  EXPECT_EQ(node_->next_timer(), std::nullopt);
  ASSERT_EQ(told(detach("db-1")), "OK");
  ASSERT_TRUE(node_->next_timer());
  EXPECT_GT(*node_->next_timer(), now_ + kQuarantine);
  pass(seconds(130));
  EXPECT_EQ(node_->next_timer(), std::nullopt);
}

TEST_F(NodeLifeTest, GenerationsStayLevelOverAnyKindOfChange) {
  run_worker();
  expect_level();
  ASSERT_EQ(told(attach("db-1")), "OK");
  listens("db-1", 6379);
  expect_level();
  ASSERT_EQ(told(drain("db-1")), "OK");
  expect_level();
  ASSERT_EQ(told(detach("db-1")), "OK");
  expect_level();
  ASSERT_EQ(told(attach("db-1")), "OK");
  listens("db-1", 6379);
  const auto link = attachment("db-1").host_ifname;
  kernel_.lose_link(link);
  node_->on_link_gone(link, now_);
  expect_level();
  restart();
  expect_level();
  ASSERT_EQ(told(remove("worker", true)), "OK");
  expect_level();
  pass(hours(1));
  expect_level();
}

// --- holds -----------------------------------------------------------------------------

TEST_F(NodeLifeTest, ReplicaThatNeverWasReadyRestartsNoHold) {
  run_worker();
  ASSERT_EQ(told(attach("db-1")), "OK");
  pass(kHold + seconds(1));
  ASSERT_EQ(held(), 0U);
  ASSERT_EQ(told(detach("db-1")), "OK");
  EXPECT_EQ(held(), 0U);
}

TEST_F(NodeLifeTest, LossOfTheLastEndpointHoldsAgain) {
  run_worker();
  ASSERT_EQ(told(attach("db-1")), "OK");
  listens("db-1", 6379);
  pass(hours(1));
  ASSERT_EQ(told(drain("db-1")), "OK");
  EXPECT_EQ(held(), 1U);
  pass(kHold + seconds(1));
  EXPECT_EQ(held(), 0U);
  ASSERT_EQ(told(detach("db-1")), "OK") << "it was out of service already";
  EXPECT_EQ(held(), 0U);
}

TEST_F(NodeLifeTest, ReplicaThatServesUnderAnotherNameIsALossToo) {
  run_worker();
  ASSERT_EQ(told(apply(replica("db-2"))), "OK");
  ASSERT_EQ(told(attach("db-1")), "OK");
  listens("db-1", 6379);
  pass(hours(1));
  ASSERT_EQ(held(), 0U);
  ASSERT_EQ(told(apply(replica("db-1", "{port: 6379}", "cache"))), "OK");
  EXPECT_EQ(held(), 1U);
  expect_level();
  restart();
  EXPECT_EQ(held(), 1U) << "stored as well";
  pass(kHold + seconds(1));
  EXPECT_EQ(held(), 0U);
}

TEST_F(NodeLifeTest, PortThatNobodyServesAnyMoreIsALossToo) {
  run_worker();
  ASSERT_EQ(told(attach("db-1")), "OK");
  listens("db-1", 6379);
  pass(hours(1));
  ASSERT_EQ(told(apply(replica("db-1", "{port: 6380}"))), "OK");
  EXPECT_EQ(held(), 1U) << "for 6380, which is not listened on yet";
}

TEST_F(NodeLifeTest, OneOfTwoEndpointsIsNoLoss) {
  run_worker();
  ASSERT_EQ(told(apply(replica("db-2", "{port: 6379}, {port: 6380}"))), "OK");
  for (const auto* id : {"db-1", "db-2"}) {
    ASSERT_EQ(told(attach(id)), "OK");
    listens(id, 6379);
  }
  pass(hours(1));
  ASSERT_EQ(held(), 0U);
  ASSERT_EQ(told(detach("db-1")), "OK");
  EXPECT_EQ(held(), 0U) << "6380 never had an endpoint";
}

TEST_F(NodeLifeTest, RefusedApplyLeavesHoldsAsTheyWere) {
  run_worker();
  ASSERT_EQ(told(attach("db-1")), "OK");
  listens("db-1", 6379);
  pass(hours(1));
  const auto before = node_->world().services;
  const auto planned =
      node_->plan(policy::read_declarations("t", replica("db-1", "{port: 6380}")).value(), now_);
  ASSERT_TRUE(planned) << planned.error().what;
  EXPECT_EQ(node_->world().services, before);
  EXPECT_EQ(elements_planned(), elements_in_kernel());
}

// --- names that nobody declares ----------------------------------------------------------

class IdleNameTest : public NodeLifeTest {
 protected:
  static std::string cluster(const std::string& id, const std::string& name) {
    return "workloads: [{id: " + id + ", owner: ada, name: " + name +
           ", scope: CLUSTER, serves: [{port: 80}]}]";
  }
  void begin(days limit) {
    idle_release_ = limit;
    restart();
    ASSERT_EQ(told(apply(cluster("m", "ollama"))), "OK");
  }
  [[nodiscard]] bool there(const std::string& name = "ollama") const {
    return node_->world().services.contains({policy::Scope::kCluster, {}, name});
  }
};

TEST_F(IdleNameTest, GoesWhenNobodyHasDeclaredItForTheTime) {
  begin(days(3));
  pass(days(10));
  EXPECT_TRUE(there()) << "declared all the time";
  ASSERT_EQ(told(remove("m")), "OK");
  pass(days(3) - seconds(10));
  EXPECT_TRUE(there());
  pass(seconds(20));
  EXPECT_FALSE(there());
  ASSERT_EQ(events(Event::Kind::NAME_RELEASED), 1U);
  const auto& event = events_.back();
  EXPECT_EQ(event.id(), "ollama");
  EXPECT_EQ(event.detail(), "nobody has declared it for 3 days");
  EXPECT_FALSE(node_->quarantine().empty()) << "its addresses rest";
  expect_level();
  restart();
  EXPECT_FALSE(there());
  EXPECT_TRUE(store_->load()->idle_names.empty());
}

TEST_F(IdleNameTest, StaysForEverUnlessConfigured) {
  begin(days(0));
  ASSERT_EQ(told(remove("m")), "OK");
  pass(days(4000));
  EXPECT_TRUE(there());
}

TEST_F(IdleNameTest, IsCountedOverARestart) {
  begin(days(3));
  ASSERT_EQ(told(remove("m")), "OK");
  pass(days(2));
  restart();
  pass(days(1) + seconds(10));
  EXPECT_FALSE(there());
}

TEST_F(IdleNameTest, IsCountedOverAReboot) {
  begin(days(3));
  ASSERT_EQ(told(remove("m")), "OK");
  pass(days(2));
  // The clock since boot begins anew; that on the wall goes on.
  wall_start_ += std::chrono::duration_cast<seconds>(now_.time_since_epoch());
  now_ = TimePoint(seconds(5));
  restart();
  pass(days(1) - seconds(20));
  EXPECT_TRUE(there());
  pass(seconds(60));
  EXPECT_FALSE(there());
}

TEST_F(IdleNameTest, BeginsAnewWhenDeclaredMeanwhile) {
  begin(days(3));
  ASSERT_EQ(told(remove("m")), "OK");
  pass(days(2));
  ASSERT_EQ(told(apply(cluster("m2", "ollama"))), "OK");
  pass(days(30));
  EXPECT_TRUE(there());
  ASSERT_EQ(told(apply(cluster("m2", "whisper"))), "OK") << "renamed: the old name is idle";
  pass(days(2));
  EXPECT_TRUE(there());
  pass(days(1) + seconds(10));
  EXPECT_FALSE(there());
  EXPECT_TRUE(there("whisper"));
}

// A store of an older meshd did not count.
TEST_F(IdleNameTest, IsCountedFromTheStartThatFoundItIdle) {
  begin(days(3));
  ASSERT_EQ(told(remove("m")), "OK");
  const StoreChange older[] = {DropIdleName{"ollama"}};
  ASSERT_TRUE(store_->amend(older));
  pass(days(2));
  restart();
  pass(days(2));
  EXPECT_TRUE(there());
  pass(days(1) + seconds(10));
  EXPECT_FALSE(there());
}

TEST_F(IdleNameTest, OneOfTwoDeclarationsKeepsIt) {
  begin(days(3));
  ASSERT_EQ(told(apply(cluster("m2", "ollama"))), "OK");
  ASSERT_EQ(told(remove("m")), "OK");
  pass(days(30));
  EXPECT_TRUE(there());
}

TEST_F(IdleNameTest, ReleasedByCommandIsNotReleasedAgain) {
  begin(days(3));
  ASSERT_EQ(told(remove("m")), "OK");
  auto answer = std::make_shared<std::optional<Status>>();
  node_->release_name("ollama", now_, into<mesh::v1::Empty>(answer));
  ASSERT_EQ(told(answer), "OK");
  pass(days(30));
  EXPECT_EQ(events(Event::Kind::NAME_RELEASED), 1U);
  EXPECT_TRUE(store_->load()->idle_names.empty());
}

}  // namespace
}  // namespace meshd
