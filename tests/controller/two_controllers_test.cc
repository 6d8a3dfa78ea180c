// Several controllers on one store: what each knows of the others' nodes.
#include <gmock/gmock.h>

#include "tests/controller/controller_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Two controllers, both alive, with a node each.
class TwoControllersTest : public ControllerTest {
 protected:
  void SetUp() override {
    memory_->shared = true;
    ControllerTest::SetUp();
    other_ = make("c2", other_store_);
    hello(*controller_, n1_);
    hello(*other_, n2_);
    exchange();
  }
  // Time for both; what they tell each other arrives, unless the store is away.
  void both(Duration time) {
    for (const auto end = now_.steady + time; now_.steady < end;) {
      now_.steady += 500ms;
      now_.wall_ms += 500;
      for (auto* controller : {controller_.get(), other_.get()}) {
        if (controller == nullptr) continue;
        controller->on_timer(now_);
        controller->on_store_notified(now_);
      }
    }
  }
  void exchange() { both(2s); }
  void settle() {
    for (int i = 0; i < 5; ++i) {
      answer(*controller_, n1_);
      answer(*other_, n2_);
      controller_->on_store_notified(now_);
      other_->on_store_notified(now_);
    }
  }
  void attach_both() {
    ASSERT_TRUE(apply(*controller_, kTwo));
    other_->on_store_notified(now_);
    report(*controller_, n1_, "db", n1_.welcome->block4().substr(0, 9) + "1");
    report(*other_, n2_, "worker", n2_.welcome->block4().substr(0, 9) + "1");
    settle();
  }

  MemoryStore* other_store_ = nullptr;
  std::unique_ptr<Controller> other_;
  FakeStream n1_{"n1"}, n2_{"n2"};
};

TEST_F(TwoControllersTest, NodeOfAnotherControllerIsNeitherMarkedNorGivenUp) {
  both(2h);
  EXPECT_EQ(controller_->cluster().nodes().size(), 2U);
  for (auto* controller : {controller_.get(), other_.get()}) {
    for (const auto& node : controller->node_status()) {
      EXPECT_TRUE(node.connected && !node.stale) << node.name;
    }
  }
}

TEST_F(TwoControllersTest, NodeThatIsDismissedElsewhereHearsOfIt) {
  ASSERT_TRUE(other_->dismiss("n1", now_));
  controller_->on_store_notified(now_);
  EXPECT_TRUE(n1_.closed);
  EXPECT_THAT(n1_.farewell, HasSubstr("dismissed"));
  EXPECT_EQ(controller_->cluster().nodes().size(), 1U);
}

TEST_F(TwoControllersTest, NodeOfNobodyIsMarkedByAllThenGivenUpOnce) {
  controller_->on_closed(n1_, now_);
  both(11s);
  for (auto* controller : {controller_.get(), other_.get()}) {
    EXPECT_TRUE(controller->node_status().front().stale) << controller->name();
    EXPECT_FALSE(controller->node_status().back().stale) << controller->name();
  }
  both(1h);
  EXPECT_EQ(other_->cluster().nodes().size(), 1U);
  EXPECT_EQ(controller_->cluster().nodes().size(), 1U);
}

TEST_F(TwoControllersTest, NodesOfAControllerThatDiedAreLost) {
  controller_.reset();
  both(8s);
  EXPECT_FALSE(other_->node_status().front().stale) << "it had been heard of until a moment ago";
  both(3s);
  EXPECT_TRUE(other_->node_status().front().stale);
}

TEST_F(TwoControllersTest, WhileTheStoreIsAwaySilenceSaysNothing) {
  store_->away = other_store_->away = true;
  both(2h);
  store_->away = other_store_->away = false;
  both(8s);
  for (auto* controller : {controller_.get(), other_.get()}) {
    for (const auto& node : controller->node_status()) EXPECT_FALSE(node.stale) << node.name;
  }
  EXPECT_EQ(controller_->cluster().nodes().size(), 2U);
}

TEST_F(TwoControllersTest, NobodysIsWhatTheStoreDoesNotHave) {
  ASSERT_TRUE(apply(*controller_, kTwo));
  other_store_->away = true;
  started(*other_, n2_, "db", 7);
  EXPECT_THAT(n2_.started, IsEmpty()) << "it may be declared";
  other_store_->away = false;
  other_->on_store_notified(now_);
  started(*other_, n2_, "nobody", 8);
  // Declared, and not heard of here.
  ASSERT_TRUE(apply(*controller_, "{id: late, owner: ada, workflow: r1}"));
  started(*other_, n2_, "late", 9);
  ASSERT_THAT(n2_.started, SizeIs(3));
  for (const auto& answer : n2_.started) {
    EXPECT_EQ(answer.unknown(), answer.call() == 8) << answer.call();
    EXPECT_EQ(answer.error(), "");
  }
}

TEST_F(TwoControllersTest, FlowBetweenTheirNodesIsConfirmed) {
  attach_both();
  EXPECT_EQ(n2_.confirmed, 1U);
  // And again, at once, for what is granted later.
  ASSERT_TRUE(apply(*other_,
                    "{id: db, owner: ada, workflow: r1, name: db,"
                    " serves: [{port: 1}, {port: 2}]}"));
  settle();
  EXPECT_EQ(n2_.confirmed, 2U);
}

TEST_F(TwoControllersTest, WordThatWasLostIsToldAgain) {
  ASSERT_TRUE(apply(*controller_, kTwo));
  other_->on_store_notified(now_);
  report(*other_, n2_, "worker", n2_.welcome->block4().substr(0, 9) + "1");
  report(*controller_, n1_, "db", n1_.welcome->block4().substr(0, 9) + "1");
  const auto told = memory_->news.size();
  answer(*controller_, n1_);
  ASSERT_GT(memory_->news.size(), told);
  for (auto i = told; i < memory_->news.size(); ++i) memory_->news[i] = "1 nobody";
  settle();
  exchange();
  settle();
  EXPECT_EQ(n2_.confirmed, 1U);
}

TEST_F(TwoControllersTest, NothingIsConfirmedOnTheWordOfAnotherSlice) {
  ASSERT_TRUE(apply(*controller_, kTwo));
  controller_->on_store_notified(now_);
  other_->on_store_notified(now_);
  report(*controller_, n1_, "db", n1_.welcome->block4().substr(0, 9) + "1");
  answer(*controller_, n1_);
  report(*other_, n2_, "worker", n2_.welcome->block4().substr(0, 9) + "1");
  // n1 has been sent the consumer, and has not answered yet.
  controller_->on_store_notified(now_);
  ASSERT_FALSE(n1_.unanswered.empty());
  both(3s);
  answer(*other_, n2_);
  EXPECT_EQ(n2_.confirmed, 0U);
  EXPECT_FALSE(other_->slices().is_confirmed("worker", "db"));
  settle();
  EXPECT_EQ(n2_.confirmed, 1U);
}

TEST_F(TwoControllersTest, NodeThatComesToAnotherControllerGoesOnThere) {
  attach_both();
  FakeStream again("n2");
  again.items = n2_.items;
  hello(*controller_, again, n2_.revision, n2_.hash());
  ASSERT_TRUE(again.in_sync) << "it has all of it";
  EXPECT_EQ(again.in_sync->slice_hash(), n2_.hash());
  EXPECT_LE(again.unanswered.size(), 1U) << "what is confirmed may be said again";
  EXPECT_EQ(again.items, n2_.items);
  other_->on_store_notified(now_);
  EXPECT_TRUE(n2_.closed) << n2_.farewell;
  exchange();
  controller_->on_store_notified(now_);
  EXPECT_FALSE(again.closed) << again.farewell;
  both(2h);
  EXPECT_EQ(other_->cluster().nodes().size(), 2U);
}

TEST_F(TwoControllersTest, AnotherMachineOfTheNameIsTurnedAwayHereToo) {
  FakeStream impostor("n2");
  mesh::v1::FromNode message;
  message.mutable_hello()->set_protocol(1);
  message.mutable_hello()->set_boot_id("another boot");
  say(*controller_, impostor, message);
  EXPECT_TRUE(impostor.closed);
  EXPECT_THAT(impostor.farewell, HasSubstr("connected to another controller"));
  other_->on_store_notified(now_);
  EXPECT_FALSE(n2_.closed);
}

}  // namespace
}  // namespace meshd::controller
