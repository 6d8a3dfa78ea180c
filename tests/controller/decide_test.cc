// What the controller refuses, and what its yes comes to.
#include "controller/decide.h"

#include <gmock/gmock.h>

#include "tests/controller/cluster_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class DecideTest : public testing::Test {
 protected:
  void SetUp() override {
    ok(bed_.join("n1"));
    ok(bed_.join("n2"));
  }
  static void ok(const Status& status) { ASSERT_TRUE(status) << status.error().what; }
  void refused(const Status& status, std::string_view why) {
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().what, HasSubstr(why));
  }
  const NodeState& node(const std::string& name) { return bed_.cluster.nodes().at(name); }

  ClusterBed bed_;
  const Author n1_{Author::Role::kNode, "n1"}, n2_{Author::Role::kNode, "n2"};
  const Author admin_{Author::Role::kAdmin, "root"};
};

// --- nodes ---------------------------------------------------------------------------

TEST_F(DecideTest, NodesGetBlocksOfTheirOwn) {
  ASSERT_THAT(node("n1").blocks, SizeIs(2));
  EXPECT_EQ(node("n1").blocks[0].to_string(), "10.213.0.0/24");
  EXPECT_EQ(node("n2").blocks[0].to_string(), "10.213.1.0/24");
  EXPECT_EQ(node("n1").blocks[1].to_string(), "fd00:1::/112");
  EXPECT_EQ(node("n2").blocks[1].to_string(), "fd00:1::1:0/112");
}

TEST_F(DecideTest, ANodeKeepsItsBlocksOverBoots) {
  const auto before = node("n1").blocks;
  ok(bed_.join("n1", "boot-2"));
  EXPECT_EQ(node("n1").blocks, before);
}

TEST_F(DecideTest, ABlockRestsBeforeItIsGivenAgain) {
  const auto block = node("n1").blocks[0];
  bed_.fold(dismiss(bed_.cluster, "n1", bed_.now));
  ok(bed_.join("n3"));
  EXPECT_NE(node("n3").blocks[0], block);
  bed_.pass(kBlockRest - 1s);
  EXPECT_THAT(sweep(bed_.cluster, bed_.now), IsEmpty());
  bed_.pass(1s);
  bed_.fold(sweep(bed_.cluster, bed_.now));
  ok(bed_.join("n4"));
  EXPECT_EQ(node("n4").blocks[0], block);
}

TEST_F(DecideTest, ARestGoesOnWhenTheClockIsSetBack) {
  const auto block = node("n1").blocks[0];
  bed_.fold(dismiss(bed_.cluster, "n1", bed_.now));
  bed_.now.wall_ms -= 1000LL * 3600 * 24 * 365;
  bed_.pass(kBlockRest);
  bed_.fold(sweep(bed_.cluster, bed_.now));
  ok(bed_.join("n3"));
  EXPECT_EQ(node("n3").blocks[0], block);
}

TEST_F(DecideTest, AFullPoolIsARefusalThatSaysSo) {
  mesh::v1::StoredSettings settings = bed_.cluster.settings();
  settings.set_pool4("10.213.0.0/23");
  bed_.fold({put(kind::ObjectKind::SETTINGS, "", settings)});
  refused(bed_.join("n3"), "no block of /24 is free in 10.213.0.0/23");
  EXPECT_FALSE(bed_.cluster.nodes().contains("n3"));
}

TEST_F(DecideTest, AnotherNodesAddressIsRefused) {
  const auto taken = node("n1").underlay;
  refused(bed_.fold(admit(bed_.cluster, "n3", "b", taken, bed_.now)), "is node n1's address");
}

TEST_F(DecideTest, ABootDetachesAllAndLosesNoAssignment) {
  ok(bed_.apply("{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 1}]}"));
  bed_.attach("n1", "db");
  ok(bed_.join("n1", "boot-2"));
  ASSERT_NE(bed_.cluster.placement("db"), nullptr);
  EXPECT_EQ(bed_.cluster.placement("db")->node, "n1");
  EXPECT_TRUE(bed_.cluster.placement("db")->reported.addresses().empty());
}

// --- declarations --------------------------------------------------------------------

TEST_F(DecideTest, ANodeDeclaresOnlyWhereItMay) {
  auto read = policy::read_declarations("f", "workloads: [{id: a, owner: ada}]");
  const auto writes = declare(bed_.cluster, n1_, *read, "", {false}, bed_.now);
  ASSERT_FALSE(writes);
  EXPECT_THAT(writes.error().what, HasSubstr("allow_node_declarations"));
}

TEST_F(DecideTest, WhatANodeDeclaresIsItsOwnAndRunsThere) {
  ok(bed_.apply("{id: a, owner: ada}", n1_));
  EXPECT_EQ(bed_.cluster.author("a"), "node/n1");
  EXPECT_EQ(bed_.cluster.pinned("a"), "n1");
  refused(bed_.apply("{id: a, owner: ada}", n2_), "declared by node/n1, not node/n2's to say");
  refused(bed_.fold(start(bed_.cluster, "n2", "a")), "");
  ok(bed_.apply("{id: a, owner: eve}", admin_));
}

TEST_F(DecideTest, ANodeTakesNoDispatchersId) {
  ok(bed_.apply("{id: a, owner: ada}"));
  refused(bed_.apply("{id: a, owner: eve}", n1_), "declared by dispatcher/d");
  refused(bed_.fold(forget(bed_.cluster, n1_, "a", true, bed_.now)), "declared by dispatcher/d");
}

TEST_F(DecideTest, AClusterNameBelongsToItsFirstOwner) {
  ok(bed_.apply("{id: a, owner: ada, name: db, scope: CLUSTER}", n1_));
  refused(bed_.apply("{id: b, owner: eve, name: db, scope: CLUSTER}", n2_), "owner");
  ok(bed_.fold(forget(bed_.cluster, n1_, "a", false, bed_.now)));
  refused(bed_.apply("{id: b, owner: eve, name: db, scope: CLUSTER}", n2_),
          "belongs to another owner");
  refused(bed_.fold(release(bed_.cluster, n2_, "db", bed_.now)), "not a node's to say");
  ok(bed_.fold(release(bed_.cluster, admin_, "db", bed_.now)));
  ok(bed_.apply("{id: b, owner: eve, name: db, scope: CLUSTER}", n2_));
}

TEST_F(DecideTest, AVipIsTheSameOverMovesAndRestsAfterItsName) {
  ok(bed_.apply("{id: a, owner: ada, workflow: r1, name: db, serves: [{port: 1}]}"));
  const policy::ServiceKey key{policy::Scope::kWorkflow, "r1", "db"};
  const auto vip = *bed_.cluster.world().services.at(key).vip4;
  bed_.attach("n1", "a");
  bed_.report("n1", {}, {"a"});
  bed_.attach("n2", "a");
  EXPECT_EQ(bed_.cluster.world().services.at(key).vip4, vip);
  ok(bed_.fold(forget(bed_.cluster, admin_, "a", true, bed_.now)));
  EXPECT_FALSE(bed_.cluster.world().services.contains(key));
  EXPECT_TRUE(bed_.cluster.resting().contains(vip));
  ok(bed_.apply("{id: a, owner: ada, workflow: r1, name: db, serves: [{port: 1}]}"));
  EXPECT_NE(*bed_.cluster.world().services.at(key).vip4, vip);
}

TEST_F(DecideTest, TwoNodePortsOfTheSameNumberMayStandOnTwoNodes) {
  ok(
      bed_.apply("{id: a, owner: ada, publish: [{port: 1, node_port: 20001}]},"
                 "{id: b, owner: ada, publish: [{port: 1, node_port: 20001}]}"));
}

TEST_F(DecideTest, AnAttachedWorkloadIsNotForgottenUnlessForced) {
  ok(bed_.apply("{id: a, owner: ada}"));
  bed_.attach("n1", "a");
  refused(bed_.fold(forget(bed_.cluster, admin_, "a", false, bed_.now)),
          "delete: a is attached to node n1");
  refused(bed_.fold(forget(bed_.cluster, admin_, "b", false, bed_.now)), "delete: no workload b");
  ok(bed_.fold(forget(bed_.cluster, admin_, "a", true, bed_.now)));
  EXPECT_EQ(bed_.cluster.placement("a"), nullptr);
}

// --- reports -------------------------------------------------------------------------

class ReportTest : public DecideTest {
 protected:
  void SetUp() override {
    DecideTest::SetUp();
    ok(
        bed_.apply("{id: a, owner: ada, workflow: r1, name: db, serves: [{port: 1}]},"
                   "{id: b, owner: ada, workflow: r1, name: db, serves: [{port: 1}]}"));
  }
  std::string why(const std::string& node, const mesh::v1::NodeEndpoint& endpoint) {
    const auto before = bed_.written.size();
    const auto judged = bed_.report(node, {endpoint});
    if (judged.refused.empty()) return "";
    EXPECT_EQ(bed_.written.size(), before) << "a refused endpoint changes nothing";
    return judged.refused.front().second;
  }
};

TEST_F(ReportTest, OfAnotherNodesBlockIsRefused) {
  auto endpoint = bed_.endpoint("n2", "a");
  EXPECT_THAT(why("n1", endpoint), HasSubstr("is not of node n1's block"));
  endpoint.clear_addresses();
  endpoint.add_addresses("10.214.0.1");  // a VIP
  EXPECT_THAT(why("n1", endpoint), HasSubstr("is not of node n1's block"));
}

TEST_F(ReportTest, NonsenseIsRefused) {
  auto endpoint = bed_.endpoint("n1", "a");
  endpoint.add_addresses(endpoint.addresses(0));
  EXPECT_THAT(why("n1", endpoint), HasSubstr("two of one family"));
  endpoint = bed_.endpoint("n1", "a");
  endpoint.set_addresses(0, "10.213.0.5/24");
  EXPECT_NE(why("n1", endpoint), "");
  endpoint = bed_.endpoint("n1", "a");
  endpoint.add_ready_ports()->set_port(65536);
  EXPECT_THAT(why("n1", endpoint), HasSubstr("1 to 65535"));
  EXPECT_THAT(why("n1", bed_.endpoint("n1", "nobody")), HasSubstr("is not declared"));
}

TEST_F(ReportTest, OfWhatIsElsewhereIsRefused) {
  bed_.attach("n1", "a");
  EXPECT_THAT(why("n2", bed_.endpoint("n2", "a")), HasSubstr("is attached to node n1"));
  bed_.report("n2", {}, {"a"});
  EXPECT_FALSE(bed_.cluster.placement("a")->reported.addresses().empty())
      << "nor does it take another node's away";
}

TEST_F(ReportTest, TheGoodAmongTheBadIsTaken) {
  const auto judged = bed_.report("n1", {bed_.endpoint("n1", "nobody"), bed_.endpoint("n1", "a")});
  EXPECT_THAT(judged.refused, SizeIs(1));
  ASSERT_NE(bed_.cluster.placement("a"), nullptr);
}

TEST_F(ReportTest, OfAllDetachesWhatItDoesNotName) {
  bed_.attach("n1", "a");
  bed_.attach("n1", "b");
  bed_.report("n1", {bed_.endpoint("n1", "a")}, {}, true);
  EXPECT_TRUE(bed_.cluster.placement("b")->reported.addresses().empty());
  EXPECT_FALSE(bed_.cluster.placement("a")->reported.addresses().empty());
}

TEST_F(ReportTest, TheSameAgainWritesNothing) {
  const auto endpoint = bed_.endpoint("n1", "a");
  bed_.report("n1", {endpoint});
  EXPECT_THAT(bed_.report("n1", {endpoint}, {}, true).writes, IsEmpty());
}

TEST_F(ReportTest, TheLastEndpointThatGoesBeginsAHold) {
  const policy::ServiceKey key{policy::Scope::kWorkflow, "r1", "db"};
  bed_.attach("n1", "a");
  bed_.attach("n2", "b");
  bed_.pass(10s);
  bed_.report("n1", {}, {"a"});
  EXPECT_EQ(bed_.cluster.world().services.at(key).endpoint_lost_at, TimePoint()) << "b is there";
  bed_.pass(10s);
  bed_.report("n2", {}, {"b"});
  EXPECT_EQ(bed_.cluster.world().services.at(key).endpoint_lost_at, bed_.now.steady);
}

TEST_F(ReportTest, TooManyAreRefusedWhole) {
  std::vector<mesh::v1::NodeEndpoint> many(kMaxEndpoints + 1);
  EXPECT_THAT(bed_.report("n1", many).writes, IsEmpty());
}

TEST_F(ReportTest, AStartIsForOneNode) {
  ok(bed_.fold(start(bed_.cluster, "n1", "a")));
  ok(bed_.fold(start(bed_.cluster, "n2", "a")));  // nothing is attached yet
  bed_.report("n2", {bed_.endpoint("n2", "a")});
  refused(bed_.fold(start(bed_.cluster, "n1", "a")), "is attached to node n2");
  refused(bed_.fold(start(bed_.cluster, "n1", "nobody")), "is not declared");
}

// --- damage --------------------------------------------------------------------------

TEST_F(DecideTest, AnObjectThatCannotBeReadIsSaid) {
  const std::pair<Write, const char*> damaged[] = {
      {{kind::ObjectKind::DECLARATION, "a", "\xff\xff"}, "is damaged"},
      {{kind::ObjectKind::DECLARATION, "a", ""}, "id"},
      {{kind::ObjectKind::NODE, "n", "\x0a\x03zzz"}, "NODE/n"},
      {{kind::ObjectKind::RESTING, "nowhere", ""}, "RESTING/nowhere"},
      {{static_cast<Kind>(99), "x", ""}, "does not know"},
  };
  for (const auto& [write, why] : damaged) {
    Touched touched;
    refused(bed_.cluster.fold(write, bed_.now, touched), why);
  }
}

}  // namespace
}  // namespace meshd::controller
