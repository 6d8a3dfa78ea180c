// Several controllers on one store: what each knows of the others' nodes.
#include <gmock/gmock.h>

#include "tests/controller/controller_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

// Two controllers, each with a node, on one store.
class TwoControllersTest : public ControllerTest {
 protected:
  void SetUp() override {
    ControllerTest::SetUp();
    other_ = make("c2", other_store_);
    store_->shared = other_store_->shared = true;
    hello(*controller_, n1_);
    hello(*other_, n2_);
    ASSERT_TRUE(apply(*controller_, kTwo));
    report(*controller_, n1_, "db", "10.213.0.1");
    other_->on_store_notified(now_);
    report(*other_, n2_, "worker", "10.213.1.1");
  }
  // A little at a time; what one stores the other reads.
  void pass_together(Duration time) {
    for (const auto end = now_.steady + time; now_.steady < end;) {
      now_.steady += 100ms;
      now_.wall_ms += 100;
      for (auto* const one : {controller_.get(), other_.get()}) {
        if (one == nullptr) continue;
        one->on_store_notified(now_);
        if (one->next_timer() && *one->next_timer() <= now_.steady) one->on_timer(now_);
        answer(*one, one == other_.get() ? n2_ : n1_);
      }
    }
  }
  [[nodiscard]] NodeStatus status(const std::string& node) const {
    for (const auto& one : other_->node_status()) {
      if (one.name == node) return one;
    }
    return {};
  }

  MemoryStore* other_store_ = nullptr;
  std::unique_ptr<Controller> other_;
  FakeStream n1_{"n1"}, n2_{"n2"};
};

TEST_F(TwoControllersTest, AFlowBetweenTheirNodesIsConfirmed) {
  EXPECT_EQ(n2_.confirmed, 0U);
  pass_together(500ms);
  EXPECT_EQ(n2_.confirmed, 1U);
  EXPECT_TRUE(other_->slices().is_confirmed("worker", "db"));
  pass_together(1min);
  EXPECT_EQ(n2_.confirmed, 1U) << "said once";
}

TEST_F(TwoControllersTest, AFlowWhoseProviderHasNotAnsweredIsNotConfirmed) {
  n1_.unanswered.clear();  // never answered
  for (int i = 0; i < 100; ++i) {
    now_.steady += 100ms;
    for (auto* const one : {controller_.get(), other_.get()}) {
      one->on_store_notified(now_);
      if (one->next_timer() && *one->next_timer() <= now_.steady) one->on_timer(now_);
    }
    answer(*other_, n2_);
  }
  EXPECT_EQ(n2_.confirmed, 0U);
}

TEST_F(TwoControllersTest, ANodeThatIsWithTheOtherIsNotMissed) {
  pass_together(65min);
  EXPECT_TRUE(status("n1").connected);
  EXPECT_FALSE(status("n1").stale);
  EXPECT_EQ(other_->cluster().placement("db")->node, "n1");
  EXPECT_THAT(other_->dismiss("n1", now_).error().what, HasSubstr("is connected"));
}

TEST_F(TwoControllersTest, WithItsControllerTheNodeIsMissed) {
  pass_together(10s);
  controller_.reset();
  pass_together(6s);
  EXPECT_FALSE(status("n1").stale);
  pass_together(5s);
  EXPECT_TRUE(status("n1").stale);
  EXPECT_FALSE(status("n1").connected);
  pass_together(61min);
  EXPECT_FALSE(other_->cluster().nodes().contains("n1"));
  EXPECT_FALSE(other_->cluster().controllers().contains("c1")) << "nor is that kept";
}

TEST_F(TwoControllersTest, WhileTheStoreIsAwayNobodyIsMissed) {
  pass_together(10s);
  store_->away = other_store_->away = true;
  pass_together(65min);
  store_->away = other_store_->away = false;
  pass_together(10s);
  EXPECT_TRUE(status("n1").connected);
  EXPECT_FALSE(status("n1").stale);
  EXPECT_EQ(other_->cluster().placement("db")->node, "n1");
}

}  // namespace
}  // namespace meshd::controller
