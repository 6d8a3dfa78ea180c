// Who is sent what, and when a flow between two nodes is confirmed.
#include "controller/slices.h"

#include <gmock/gmock.h>

#include "tests/controller/cluster_bed.h"

namespace meshd::controller {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using namespace std::chrono_literals;
using KeyKind = mesh::v1::SliceKey::Kind;

constexpr const char* kDb =
    "{id: db-1, owner: ada, workflow: r1, name: db, serves: [{port: 5432}]}";
constexpr const char* kWorker = "{id: worker, owner: ada, workflow: r1, peers: [{name: db}]}";
constexpr const char* kStranger = "{id: stranger, owner: bob, workflow: r2}";

std::vector<std::string> names(const Slices& slices, const std::string& node, KeyKind::Value kind) {
  std::vector<std::string> result;
  for (const auto& key : slices.keys(node)) {
    if (key.kind == kind) result.push_back(key.key);
  }
  return result;
}

class SlicesTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const auto* node : {"n1", "n2", "n3"}) ASSERT_TRUE(bed_.join(node));
  }
  void ok(const Status& status) { ASSERT_TRUE(status) << status.error().what; }
  // db on n1, the worker on n2, the stranger on n3, and all said.
  void three() {
    ok(bed_.apply(fmt::format("{}, {}, {}", kDb, kWorker, kStranger)));
    bed_.attach("n1", "db-1");
    bed_.attach("n2", "worker");
    bed_.attach("n3", "stranger");
    bed_.settle();
  }
  mesh::v1::SliceWorkload workload(const std::string& node, const std::string& id) {
    mesh::v1::SliceWorkload message;
    EXPECT_TRUE(message.ParseFromString(bed_.nodes.at(node).items.at({KeyKind::WORKLOAD, id})));
    return message;
  }
  ClusterBed bed_;
};

TEST_F(SlicesTest, ANodeNeedsItsOwnAndWhomTheyHaveToDoWith) {
  three();
  EXPECT_THAT(names(bed_.slices, "n1", KeyKind::WORKLOAD), ElementsAre("db-1", "worker"));
  EXPECT_THAT(names(bed_.slices, "n2", KeyKind::WORKLOAD), ElementsAre("db-1", "worker"));
  EXPECT_THAT(names(bed_.slices, "n3", KeyKind::WORKLOAD), ElementsAre("stranger"));
  EXPECT_THAT(names(bed_.slices, "n1", KeyKind::SERVICE), ElementsAre("r1/db"));
  EXPECT_THAT(names(bed_.slices, "n3", KeyKind::SERVICE), IsEmpty());
  EXPECT_THAT(names(bed_.slices, "n3", KeyKind::NODE), ElementsAre("n1", "n2"));
}

TEST_F(SlicesTest, OfOthersItGetsNoEgressAndNoPublications) {
  ok(
      bed_.apply("{id: db-1, owner: ada, workflow: r1, name: db, serves: [{port: 1}],"
                 " publish: [{port: 1}], egress: [{cidr: 0.0.0.0/0}]}"));
  ok(bed_.apply(kWorker));
  bed_.attach("n1", "db-1");
  bed_.attach("n2", "worker");
  bed_.settle();
  EXPECT_EQ(workload("n1", "db-1").declaration().egress_size(), 1);
  EXPECT_TRUE(workload("n1", "db-1").own());
  EXPECT_EQ(workload("n2", "db-1").declaration().egress_size(), 0);
  EXPECT_EQ(workload("n2", "db-1").declaration().publish_size(), 0);
  EXPECT_FALSE(workload("n2", "db-1").own());
  EXPECT_EQ(workload("n2", "db-1").node(), "n1");
  EXPECT_EQ(workload("n2", "db-1").addresses_size(), 2);
}

TEST_F(SlicesTest, AFlowIsConfirmedWhenItsProvidersNodeHasTheConsumerInForce) {
  ok(bed_.apply(fmt::format("{}, {}", kDb, kWorker)));
  bed_.attach("n1", "db-1");
  bed_.settle();
  bed_.attach("n2", "worker");
  ASSERT_TRUE(bed_.send("n2"));
  bed_.answer("n2");
  EXPECT_FALSE(bed_.slices.is_confirmed("worker", "db-1")) << "n1 has not heard of it";
  ASSERT_TRUE(bed_.send("n1"));
  EXPECT_FALSE(bed_.slices.is_confirmed("worker", "db-1")) << "n1 has not answered";
  bed_.answer("n1");
  EXPECT_TRUE(bed_.slices.is_confirmed("worker", "db-1"));
  EXPECT_THAT(bed_.nodes["n2"].confirmed, IsEmpty());
  ASSERT_TRUE(bed_.send("n2"));
  const auto& said = bed_.nodes["n2"].confirmed;
  ASSERT_EQ(said.count({"worker", "db-1"}), 1U);
  const auto& confirmation = said.begin()->second;
  EXPECT_EQ(confirmation.from_size(), 2);
  EXPECT_EQ(confirmation.to_size(), 2);
  ASSERT_EQ(confirmation.ports_size(), 1);
  EXPECT_EQ(confirmation.ports(0).port(), 5432U);
}

TEST_F(SlicesTest, WhatIsGrantedMoreWaitsAndWhatWasConfirmedGoesOn) {
  three();
  ok(
      bed_.apply("{id: db-1, owner: ada, workflow: r1, name: db,"
                 " serves: [{port: 5432}, {port: 9000}]}"));
  EXPECT_FALSE(bed_.slices.is_confirmed("worker", "db-1"));
  // The consumer's node begins anew: it is told of what is still confirmed.
  bed_.nodes["n2"].confirmed.clear();
  bed_.begin("n2");
  while (bed_.send("n2")) bed_.answer("n2");
  const auto& said = bed_.nodes["n2"].confirmed;
  ASSERT_EQ(said.size(), 1U);
  EXPECT_EQ(said.begin()->second.ports_size(), 1);
  bed_.settle();
  EXPECT_TRUE(bed_.slices.is_confirmed("worker", "db-1"));
  EXPECT_EQ(said.begin()->second.ports_size(), 2);
}

TEST_F(SlicesTest, ARangeThatIsTakenBackAndGrantedAgainWaitsAgain) {
  three();
  ok(bed_.apply("{id: db-1, owner: ada, workflow: r1, name: db, serves: [{port: 1}]}"));
  ok(bed_.apply(kDb));
  EXPECT_FALSE(bed_.slices.is_confirmed("worker", "db-1"));
  bed_.settle();
  EXPECT_TRUE(bed_.slices.is_confirmed("worker", "db-1"));
}

TEST_F(SlicesTest, AChangeOnItsWayConfirmsNothingThatCameAfterIt) {
  three();
  ok(
      bed_.apply("{id: db-1, owner: ada, workflow: r1, name: db,"
                 " serves: [{port: 5432}, {port: 9000}]}"));
  ASSERT_TRUE(bed_.send("n1"));
  ok(
      bed_.apply("{id: db-1, owner: ada, workflow: r1, name: db,"
                 " serves: [{port: 5432}, {port: 9000}, {port: 9001}]}"));
  bed_.answer("n1");
  EXPECT_FALSE(bed_.slices.is_confirmed("worker", "db-1")) << "9001 was not in it";
  bed_.settle();
  EXPECT_TRUE(bed_.slices.is_confirmed("worker", "db-1"));
}

TEST_F(SlicesTest, AnotherAddressOfEitherEndWaitsAgain) {
  three();
  bed_.report("n2", {}, {"worker"});
  bed_.settle();
  EXPECT_FALSE(bed_.slices.is_confirmed("worker", "db-1"));
  bed_.attach("n2", "worker");
  EXPECT_FALSE(bed_.slices.is_confirmed("worker", "db-1"));
  bed_.settle();
  EXPECT_TRUE(bed_.slices.is_confirmed("worker", "db-1"));
}

TEST_F(SlicesTest, ChangesBetweenTwoMessagesBecomeOne) {
  three();
  const auto before = bed_.nodes["n1"].changes;
  for (int i = 0; i < 50; ++i) {
    auto endpoint = bed_.endpoint("n2", "worker");
    ASSERT_THAT(bed_.report("n2", {endpoint}).refused, IsEmpty());
  }
  bed_.settle();
  EXPECT_LE(bed_.nodes["n1"].changes - before, 2U);
}

TEST_F(SlicesTest, WhomAChangeDoesNotConcernHearsNothing) {
  three();
  const auto before = bed_.nodes["n3"].changes;
  bed_.report("n2", {bed_.endpoint("n2", "worker")});
  bed_.settle();
  EXPECT_EQ(bed_.nodes["n3"].changes, before);
}

TEST_F(SlicesTest, ANodeThatHasItsSliceIsSentNothing) {
  three();
  const auto before = bed_.nodes["n1"].changes;
  bed_.begin("n1");
  EXPECT_FALSE(bed_.send("n1"));
  EXPECT_EQ(bed_.nodes["n1"].changes, before);
  EXPECT_TRUE(bed_.slices.is_confirmed("worker", "db-1"));
}

// Another controller, or this one after its own death: it has heard from nobody.
TEST_F(SlicesTest, AnotherControllerTakesNoConfirmationBackAndLearnsThemAnew) {
  three();
  ClusterBed other;
  other.fold(bed_.written);
  other.nodes = bed_.nodes;
  other.begin("n2");
  EXPECT_FALSE(other.send("n2")) << "n2 has its slice, and keeps its confirmations";
  EXPECT_FALSE(other.slices.is_confirmed("worker", "db-1"));
  other.begin("n1");
  EXPECT_TRUE(other.slices.is_confirmed("worker", "db-1")) << "n1 has all in force";
  ASSERT_TRUE(other.send("n2"));
  EXPECT_EQ(other.nodes["n2"].confirmed.size(), 1U);
}

TEST_F(SlicesTest, ARefusedChangeIsFollowedByTheWholeSlice) {
  ok(bed_.apply(fmt::format("{}, {}", kDb, kWorker)));
  bed_.attach("n1", "db-1");
  bed_.attach("n2", "worker");
  bed_.settle();
  ok(bed_.apply("{id: db-1, owner: ada, workflow: r1, name: db, serves: [{port: 9}]}"));
  ASSERT_TRUE(bed_.send("n1"));
  auto& n1 = bed_.nodes["n1"];
  EXPECT_TRUE(bed_.slices.refused(bed_.cluster, "n1", *std::exchange(n1.unanswered, {})));
  EXPECT_FALSE(bed_.slices.is_confirmed("worker", "db-1"));
  const auto in_sync = n1.in_sync;
  n1.named.clear();
  bed_.settle();
  EXPECT_EQ(n1.in_sync, in_sync + 1);
  EXPECT_TRUE(bed_.slices.is_confirmed("worker", "db-1"));
}

TEST_F(SlicesTest, AnAnswerToSomethingElseIsNone) {
  three();
  EXPECT_FALSE(bed_.slices.applied("n1", bed_.nodes["n1"].revision)) << "nothing is on its way";
  ok(bed_.apply("{id: db-1, owner: ada, workflow: r1, name: db, serves: [{port: 9}]}"));
  ASSERT_TRUE(bed_.send("n1"));
  EXPECT_FALSE(bed_.slices.applied("n1", 1)) << "replayed";
  EXPECT_FALSE(bed_.slices.applied("n1", bed_.nodes["n1"].revision + 1)) << "of the future";
  EXPECT_FALSE(bed_.slices.applied("nobody", 1));
  bed_.answer("n1");
}

TEST_F(SlicesTest, ANodeThatGoesIsTakenFromAll) {
  three();
  bed_.fold(dismiss(bed_.cluster, "n1", bed_.now));
  bed_.nodes.erase("n1");
  bed_.slices.end("n1");
  bed_.settle();
  EXPECT_THAT(names(bed_.slices, "n3", KeyKind::NODE), ElementsAre("n2"));
  EXPECT_TRUE(workload("n2", "db-1").addresses().empty());
  EXPECT_THAT(names(bed_.slices, "n1", KeyKind::WORKLOAD), IsEmpty());
  EXPECT_THAT(names(bed_.slices, "n1", KeyKind::SERVICE), IsEmpty());
}

// With many nodes, so that a message to all of them has news of several.
TEST_F(SlicesTest, NewsOfNodesIsToldToSomeAfterTheOthers) {
  constexpr int kMany = 197;
  for (int i = 0; i < kMany; ++i) {
    mesh::v1::StoredNode node;
    node.add_blocks(fmt::format("10.213.{}.{}/28", 100 + i / 16, i % 16 * 16));
    bed_.fold({put(kind::ObjectKind::NODE, fmt::format("m{}", i), node)});
    bed_.begin(fmt::format("m{}", i));
  }
  const auto ready = [&] { return bed_.slices.take_ready(bed_.now.steady); };
  const auto knows = [&](const std::string& name) {
    return std::ranges::count_if(bed_.nodes, [&](const auto& node) {
      return node.second.items.contains({KeyKind::NODE, name});
    });
  };
  bed_.settle();
  bed_.pass(1s);
  while (bed_.slices.next_news()) {
    (void)ready();
    bed_.pass(1s);
  }
  const auto begun = bed_.now.steady;
  ok(bed_.join("new"));
  std::size_t most = 0;
  while (const auto when = bed_.slices.next_news()) {
    if (*when > bed_.now.steady) bed_.pass(*when - bed_.now.steady);
    const auto told = ready();
    if (bed_.now.steady > begun) most = std::max(most, told.size());
    for (const auto& node : told) {
      while (bed_.send(node)) bed_.answer(node);
    }
  }
  EXPECT_EQ(knows("new"), kMany + 3) << "all but itself";
  EXPECT_LE(most, 8U);
  EXPECT_GE(bed_.now.steady - begun, 1ms * (kMany - 64)) << "one in a millisecond, after the first";
  EXPECT_LE(bed_.now.steady - begun, 1ms * kMany);
}

TEST_F(SlicesTest, AStaleNodesWorkloadsAreMarked) {
  three();
  bed_.stale.insert("n1");
  Touched touched;
  touched.workloads = bed_.cluster.placed_on("n1");
  bed_.slices.update(bed_.cluster, touched, bed_.stale);
  bed_.settle();
  EXPECT_TRUE(workload("n2", "db-1").stale());
  EXPECT_TRUE(bed_.slices.is_confirmed("worker", "db-1")) << "its flows go on";
}

}  // namespace
}  // namespace meshd::controller
