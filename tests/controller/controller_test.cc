// Sessions and commands, one controller and several on one store.
#include "controller/controller.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/controller/controller_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST_F(ControllerTest, ANodeIsWelcomedWithItsBlock) {
  FakeStream n1("n1"), n2("n2");
  hello(*controller_, n1);
  hello(*controller_, n2);
  ASSERT_TRUE(n1.welcome);
  EXPECT_EQ(n1.welcome->block4(), "10.213.0.0/24");
  EXPECT_EQ(n2.welcome->block4(), "10.213.1.0/24");
  EXPECT_EQ(n1.welcome->controller(), "c1");
  ASSERT_TRUE(n1.in_sync) << "an empty slice is a slice";
}

TEST_F(ControllerTest, FromDeclarationToConfirmation) {
  FakeStream n1("n1"), n2("n2");
  hello(*controller_, n1);
  hello(*controller_, n2);
  ASSERT_TRUE(apply(*controller_, kTwo));
  report(*controller_, n1, "db", "10.213.0.1");
  report(*controller_, n2, "worker", "10.213.1.1");
  for (int i = 0; i < 5; ++i) {
    answer(*controller_, n1);
    answer(*controller_, n2);
  }
  EXPECT_TRUE(controller_->slices().is_confirmed("worker", "db"));
  EXPECT_EQ(n2.confirmed, 1U);
  ASSERT_THAT(n1.taken, SizeIs(1));
  EXPECT_THAT(n1.taken[0].refused(), IsEmpty());
}

TEST_F(ControllerTest, AStartedContainerWaitsForItsDeclaration) {
  FakeStream n1("n1");
  hello(*controller_, n1);
  started(n1, "worker", 7);
  ASSERT_THAT(n1.started, SizeIs(1));
  EXPECT_TRUE(n1.started[0].unknown()) << "nobody else is asked";
  ASSERT_TRUE(apply(*controller_, kTwo));
  ASSERT_THAT(n1.started, SizeIs(2));
  EXPECT_EQ(n1.started[1].call(), 7U);
  EXPECT_EQ(n1.started[1].error(), "");
  EXPECT_FALSE(n1.started[1].unknown());
  answer(*controller_, n1);
  answer(*controller_, n1);
  EXPECT_TRUE(n1.items.contains({mesh::v1::SliceKey::Kind::WORKLOAD, "worker"}));
  EXPECT_TRUE(n1.items.contains({mesh::v1::SliceKey::Kind::WORKLOAD, "db"})) << "its provider";
}

TEST_F(ControllerTest, AStartOfWhatIsElsewhereIsRefusedAfterAWhile) {
  FakeStream n1("n1"), n2("n2");
  hello(*controller_, n1);
  hello(*controller_, n2);
  ASSERT_TRUE(apply(*controller_, kTwo));
  report(*controller_, n1, "db", "10.213.0.1");
  started(n2, "db", 7);
  pass(kMoveLimit - 10ms);
  EXPECT_THAT(n2.started, IsEmpty());
  pass(10ms);
  ASSERT_THAT(n2.started, SizeIs(1));
  EXPECT_EQ(n2.started[0].call(), 7U);
  EXPECT_THAT(n2.started[0].error(), HasSubstr("is attached to node n1"));
  pass(kAwaitLimit);
  EXPECT_THAT(n2.started, SizeIs(1)) << "one answer";
}

TEST_F(ControllerTest, AStartWaitsForTheNodeThatTheContainerHasLeft) {
  FakeStream n1("n1"), n2("n2");
  hello(*controller_, n1);
  hello(*controller_, n2);
  ASSERT_TRUE(apply(*controller_, kTwo));
  report(*controller_, n1, "db", "10.213.0.1");
  started(n2, "db", 7);
  pass(2s);
  report_gone(n1, "db");
  ASSERT_THAT(n2.started, SizeIs(1));
  EXPECT_EQ(n2.started[0].error(), "");
  EXPECT_EQ(controller_->cluster().placement("db")->node, "n2");
}

TEST_F(ControllerTest, AStartWaitsForAStoreThatIsAway) {
  FakeStream n1("n1");
  hello(*controller_, n1);
  ASSERT_TRUE(apply(*controller_, kTwo));
  store_->away = true;
  started(n1, "db", 7);
  pass(2s);
  EXPECT_THAT(n1.started, IsEmpty());
  store_->away = false;
  pass(kRetryAfter);
  ASSERT_THAT(n1.started, SizeIs(1));
  EXPECT_EQ(n1.started[0].error(), "");
}

TEST_F(ControllerTest, ANodeDeclaresAndIsToldWhyNot) {
  FakeStream n1("n1"), n2("n2");
  hello(*controller_, n1);
  hello(*controller_, n2);
  answer(*controller_, n1);
  mesh::v1::FromNode message;
  auto& workload = *message.mutable_declare()->add_workloads();
  workload.set_id("a");
  workload.set_owner("ada");
  say(*controller_, n1, message);
  ASSERT_THAT(n1.declared, SizeIs(1));
  EXPECT_EQ(n1.declared[0].error(), "");
  EXPECT_EQ(n1.declared[0].revision(), n1.revision);
  say(*controller_, n2, message);
  ASSERT_THAT(n2.declared, SizeIs(1));
  EXPECT_THAT(n2.declared[0].error(), HasSubstr("declared by node/n1"));
  EXPECT_EQ(n2.declared[0].code(), 9U);
  message.mutable_declare()->mutable_workloads(0)->set_id("BAD ID");
  say(*controller_, n1, message);
  EXPECT_THAT(n1.declared[1].error(), HasSubstr("id"));
  EXPECT_EQ(n1.declared[1].code(), 3U);
}

// --- nonsense ------------------------------------------------------------------------

TEST_F(ControllerTest, ASecondNodeOfTheNameIsTurnedAwayAndTheFirstUntouched) {
  FakeStream n1("n1"), other("n1");
  hello(*controller_, n1);
  hello(*controller_, other);
  EXPECT_THAT(other.farewell, HasSubstr("connected already"));
  EXPECT_TRUE(other.closed);
  controller_->on_closed(other, now_);
  EXPECT_FALSE(n1.closed);
  ASSERT_TRUE(apply(*controller_, kTwo));
  report(*controller_, n1, "db", "10.213.0.1");
  EXPECT_THAT(n1.taken, SizeIs(1));
}

TEST_F(ControllerTest, WhoSpeaksBeforeHelloIsCutOff) {
  FakeStream n1("n1");
  report(*controller_, n1, "db", "10.213.0.1");
  EXPECT_TRUE(n1.closed);
  EXPECT_THAT(n1.taken, IsEmpty());
}

TEST_F(ControllerTest, AReplayedReportEndsTheSession) {
  FakeStream n1("n1");
  hello(*controller_, n1);
  ASSERT_TRUE(apply(*controller_, kTwo));
  report(*controller_, n1, "db", "10.213.0.1");
  n1.reports = 0;
  report(*controller_, n1, "db", "10.213.0.2");
  EXPECT_TRUE(n1.closed);
  EXPECT_EQ(controller_->cluster().placement("db")->reported.addresses(0), "10.213.0.1");
}

TEST_F(ControllerTest, AnAnswerToNothingEndsTheSession) {
  FakeStream n1("n1");
  hello(*controller_, n1);
  answer(*controller_, n1);
  n1.unanswered = {99};
  answer(*controller_, n1);
  EXPECT_TRUE(n1.closed);
  EXPECT_THAT(n1.farewell, HasSubstr("not on its way"));
}

TEST_F(ControllerTest, HelloIsChecked) {
  FakeStream n1("n1");
  mesh::v1::FromNode message;
  message.mutable_hello()->set_protocol(2);
  say(*controller_, n1, message);
  EXPECT_THAT(n1.farewell, HasSubstr("protocol 2"));
  FakeStream again("n1");
  message.mutable_hello()->set_protocol(1);
  message.mutable_hello()->set_boot_id("b");
  message.mutable_hello()->add_underlay("nonsense");
  say(*controller_, again, message);
  EXPECT_TRUE(again.closed);
  EXPECT_THAT(controller_->cluster().nodes(), IsEmpty());
}

// --- faults --------------------------------------------------------------------------

TEST_F(ControllerTest, WhileTheStoreIsAwayReportsAreKeptAndCommandsSayWhy) {
  FakeStream n1("n1");
  hello(*controller_, n1);
  ASSERT_TRUE(apply(*controller_, kTwo));
  store_->away = true;
  const auto status = apply(*controller_, "{id: x, owner: ada}");
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().what, HasSubstr("away"));
  EXPECT_EQ(controller_->cluster().declaration("x"), nullptr);
  report(*controller_, n1, "db", "10.213.0.1");
  EXPECT_THAT(n1.taken, IsEmpty()) << "not stored, not taken";
  EXPECT_EQ(controller_->cluster().placement("db"), nullptr);
  store_->away = false;
  pass(6s);
  ASSERT_THAT(n1.taken, SizeIs(1));
  ASSERT_NE(controller_->cluster().placement("db"), nullptr);
}

TEST_F(ControllerTest, ANodeThatIsGoneIsMarkedThenGivenUp) {
  FakeStream n1("n1"), n2("n2");
  hello(*controller_, n1);
  hello(*controller_, n2);
  ASSERT_TRUE(apply(*controller_, kTwo));
  report(*controller_, n1, "db", "10.213.0.1");
  report(*controller_, n2, "worker", "10.213.1.1");
  const auto stale_there = [&] {
    answer(*controller_, n2);
    mesh::v1::SliceWorkload db;
    EXPECT_TRUE(db.ParseFromString(n2.items.at({mesh::v1::SliceKey::Kind::WORKLOAD, "db"})));
    return db.stale();
  };
  controller_->on_closed(n1, now_);
  pass(9s);
  EXPECT_FALSE(stale_there());
  pass(2s);
  EXPECT_TRUE(stale_there());
  pass(50min);
  EXPECT_TRUE(controller_->cluster().nodes().contains("n1")) << "its block is not given away";
  ASSERT_NE(controller_->cluster().placement("db"), nullptr) << "its names stay";
  pass(10min);
  EXPECT_FALSE(controller_->cluster().nodes().contains("n1"));
  EXPECT_EQ(controller_->cluster().placement("db"), nullptr);
}

TEST_F(ControllerTest, AfterAStartNodesHaveTheLongerToComeTheMoreTheyAre) {
  Writes nodes;
  for (int i = 0; i < 200; ++i) {
    mesh::v1::StoredNode node;
    node.add_blocks(fmt::format("10.213.{}.0/24", i));
    nodes.push_back(put(kind::ObjectKind::NODE, fmt::format("n{}", i), node));
  }
  ASSERT_TRUE(store_->commit(memory_->log.size(), nodes));
  controller_ = make("c2", store_);
  const auto stale = [&] {
    return std::ranges::count_if(controller_->node_status(), &NodeStatus::stale);
  };
  pass(13900ms);  // 10 s, and 20 ms for each
  EXPECT_EQ(stale(), 0);
  pass(200ms);
  EXPECT_EQ(stale(), 200);
}

TEST_F(ControllerTest, ClockStepsGiveNothingUp) {
  FakeStream n1("n1");
  hello(*controller_, n1);
  controller_->on_closed(n1, now_);
  now_.wall_ms += 1000LL * 3600 * 24 * 3650;
  pass(1min);
  now_.wall_ms -= 1000LL * 3600 * 24 * 7300;
  pass(1min);
  EXPECT_TRUE(controller_->cluster().nodes().contains("n1"));
}

TEST_F(ControllerTest, AControllerThatComesBackSendsNothingToWhoHasAll) {
  FakeStream n1("n1"), n2("n2");
  hello(*controller_, n1);
  hello(*controller_, n2);
  ASSERT_TRUE(apply(*controller_, kTwo));
  report(*controller_, n1, "db", "10.213.0.1");
  report(*controller_, n2, "worker", "10.213.1.1");
  for (int i = 0; i < 5; ++i) {
    answer(*controller_, n1);
    answer(*controller_, n2);
  }
  controller_ = make("c2", store_);
  FakeStream again("n2");
  again.items = n2.items;
  hello(*controller_, again, n2.revision, n2.hash());
  EXPECT_THAT(again.unanswered, IsEmpty());
  ASSERT_TRUE(again.in_sync);
  EXPECT_EQ(again.in_sync->slice_hash(), n2.hash());
}

TEST_F(ControllerTest, TwoControllersDecideOnOneState) {
  MemoryStore* other_store = nullptr;
  const auto other = make("c2", other_store);
  FakeStream n1("n1"), n2("n2");
  hello(*controller_, n1);
  hello(*other, n2);
  EXPECT_NE(n1.welcome->block4(), n2.welcome->block4()) << "neither gives the other's block";
  ASSERT_TRUE(apply(*controller_, kTwo));
  ASSERT_TRUE(apply(*other, "{id: x, owner: eve, workflow: r2, name: db, serves: [{port: 1}]}"));
  controller_->on_store_notified(now_);
  const auto& services = controller_->cluster().world().services;
  std::set<std::string> vips;
  for (const auto& [key, service] : services) vips.insert(service.vip4->to_string());
  EXPECT_THAT(vips, SizeIs(2)) << "nor its VIP";
  EXPECT_EQ(controller_->revision(), other->revision());

  report(*controller_, n1, "db", n1.welcome->block4().substr(0, 9) + "1");
  report(*other, n2, "worker", n2.welcome->block4().substr(0, 9) + "1");
  controller_->on_store_notified(now_);
  other->on_store_notified(now_);
  EXPECT_EQ(other->cluster().world().workloads.at("db").remote->node, "n1");
  EXPECT_EQ(controller_->cluster().world().workloads.at("worker").remote->node, "n2");
}

TEST_F(ControllerTest, WhoFellFarBehindReadsAllOfIt) {
  MemoryStore* other_store = nullptr;
  const auto other = make("c2", other_store);
  ASSERT_TRUE(apply(*other, "{id: gone, owner: ada}"));
  other->on_store_notified(now_);
  controller_->on_store_notified(now_);
  ASSERT_NE(controller_->cluster().declaration("gone"), nullptr);
  ASSERT_TRUE(other->forget({Author::Role::kAdmin, "a"}, "gone", false, now_));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(apply(*other, fmt::format("{{id: n{}, owner: ada}}", i)));
  memory_->kept = 1;
  controller_->on_store_notified(now_);
  EXPECT_EQ(controller_->cluster().declaration("gone"), nullptr);
  EXPECT_NE(controller_->cluster().declaration("n4"), nullptr);
  EXPECT_EQ(controller_->revision(), other->revision());
}

// A name that went and came again meanwhile, with another VIP; its former one is another's.
TEST_F(ControllerTest, WhoFellFarBehindGivesNoVipTwice) {
  const Author admin{Author::Role::kAdmin, "a"};
  const auto service = [](const std::string& id, const std::string& name) {
    return fmt::format("{{id: {}, owner: ada, workflow: r1, name: {}, serves: [{{port: 1}}]}}", id,
                       name);
  };
  ASSERT_TRUE(apply(*controller_, service("w1", "z")));
  MemoryStore* other_store = nullptr;
  const auto other = make("c2", other_store);
  ASSERT_TRUE(other->forget(admin, "w1", false, now_));
  now_.steady += kAddressRest + 1s;
  now_.wall_ms += 61'000;
  other->on_timer(now_);
  ASSERT_TRUE(apply(*other, service("w2", "a")));
  ASSERT_TRUE(apply(*other, service("w1", "z")));
  memory_->kept = 1;
  controller_->on_store_notified(now_);
  ASSERT_TRUE(apply(*controller_, service("w3", "c")));
  std::set<IpAddress> vips;
  for (const auto& [key, known] : controller_->cluster().world().services) {
    EXPECT_TRUE(vips.insert(known.vip4.value()).second) << key.name << " has another's VIP";
  }
  EXPECT_THAT(vips, SizeIs(3));
}

}  // namespace
}  // namespace meshd::controller
