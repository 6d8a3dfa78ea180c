// What a controller says may be opened from outside, as it happens to it.
#include <gmock/gmock.h>

#include "tests/controller/controller_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using State = proxy::Opening::State;

class ControllerWebTest : public ControllerTest {
 protected:
  void SetUp() override {
    web_ = proxy::Site{"example.org", 443, "mesh.example.org", 8400, 8409};
    ControllerTest::SetUp();
  }
  static std::optional<State> state(const Controller& controller, const std::string& id) {
    const auto directory = controller.openings()->directory();
    const auto* opening = directory->by_id(id);
    return opening == nullptr ? std::nullopt : std::optional(opening->state);
  }
  static std::string behind(const Controller& controller, std::uint16_t port) {
    const auto directory = controller.openings()->directory();
    const auto* target = directory->by_port(port);
    return target == nullptr ? "nobody" : target_text(*target);
  }
  Status forget(Controller& controller, const std::string& id) {
    return controller.forget({Author::Role::kAdmin, "a"}, id, true, now_);
  }
  void attach(FakeStream& stream, const std::string& id) {
    report(*controller_, stream, id, stream.welcome->block4().substr(0, 9) + "1");
  }
  static constexpr const char* kLab =
      "{id: lab, owner: ada, name: lab, scope: CLUSTER, publish: [{port: 80, http: true}]}";
};

TEST_F(ControllerWebTest, WhereNoneIsConfiguredNothingIsKept) {
  web_.reset();
  MemoryStore* store = nullptr;
  const auto other = make("c2", store);
  EXPECT_EQ(other->openings(), nullptr);
  EXPECT_EQ(other->web(), nullptr);
}

TEST_F(ControllerWebTest, DeclaredAttachedAndEnded) {
  FakeStream n1("n1");
  hello(*controller_, n1);
  EXPECT_FALSE(state(*controller_, "lab"));
  ASSERT_TRUE(apply(*controller_, kLab));
  EXPECT_EQ(state(*controller_, "lab"), State::kWaiting);
  attach(n1, "lab");
  EXPECT_EQ(state(*controller_, "lab"), State::kReady);
  report_gone(n1, "lab");
  EXPECT_EQ(state(*controller_, "lab"), State::kWaiting);
  ASSERT_TRUE(forget(*controller_, "lab"));
  EXPECT_EQ(state(*controller_, "lab"), State::kEnded);
  pass(proxy::kRemembered);
  EXPECT_FALSE(state(*controller_, "lab"));
}

TEST_F(ControllerWebTest, OnesOfALostNodeAreMarkedThenGivenUp) {
  FakeStream n1("n1");
  hello(*controller_, n1);
  ASSERT_TRUE(apply(*controller_, kLab));
  attach(n1, "lab");
  const auto stale = [&] { return controller_->openings()->directory()->by_id("lab")->stale; };
  controller_->on_closed(n1, now_);
  pass(9s);
  EXPECT_FALSE(stale());
  pass(2s);
  EXPECT_TRUE(stale());
  EXPECT_EQ(state(*controller_, "lab"), State::kReady) << "it goes on alone";
  FakeStream again("n1");
  hello(*controller_, again);
  EXPECT_FALSE(stale());
  controller_->on_closed(again, now_);
  pass(2h);
  EXPECT_EQ(state(*controller_, "lab"), State::kWaiting);
}

TEST_F(ControllerWebTest, EqualControllersGiveTheSamePorts) {
  ASSERT_TRUE(apply(*controller_, kLab));
  EXPECT_EQ(behind(*controller_, 8400), "service lab port 80");
  MemoryStore* store = nullptr;
  const auto other = make("c2", store);
  EXPECT_EQ(behind(*other, 8400), "service lab port 80") << "read from the store";
  ASSERT_TRUE(apply(*other, "{id: a, owner: ada, publish: [{port: 80, http: true}]}"));
  EXPECT_EQ(behind(*other, 8401), "workload a port 80");
  controller_->on_store_notified(now_);
  EXPECT_EQ(behind(*controller_, 8401), "workload a port 80");
  EXPECT_EQ(state(*controller_, "a"), State::kWaiting);
}

TEST_F(ControllerWebTest, WhoFellFarBehindHasTheSameInTheEnd) {
  ASSERT_TRUE(apply(*controller_, kLab));
  MemoryStore* store = nullptr;
  const auto other = make("c2", store);
  ASSERT_TRUE(apply(*other, "{id: a, owner: ada, publish: [{port: 80, http: true}]}"));
  ASSERT_TRUE(forget(*other, "lab"));
  memory_->kept = 0;
  controller_->on_store_notified(now_);
  EXPECT_EQ(state(*controller_, "lab"), State::kEnded);
  EXPECT_EQ(state(*controller_, "a"), State::kWaiting);
  EXPECT_EQ(behind(*controller_, 8401), "workload a port 80");
}

TEST_F(ControllerWebTest, WhatConcernsNobodyFromOutsideChangesNothing) {
  FakeStream n1("n1");
  hello(*controller_, n1);
  ASSERT_TRUE(apply(*controller_, kLab));
  attach(n1, "lab");
  const auto before = controller_->openings()->changes();
  pass(1min);
  FakeStream n2("n2");
  hello(*controller_, n2);
  EXPECT_EQ(controller_->openings()->changes(), before);
}

}  // namespace
}  // namespace meshd::controller
