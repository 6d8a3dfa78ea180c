// Ports that are published on demand, at the controller: when one opens, what the node is sent,
// and when it is over, over restarts and with two controllers.
#include "controller/opened.h"

#include <gmock/gmock.h>

#include "tests/controller/controller_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class OpenedTest : public ControllerTest {
 protected:
  void SetUp() override {
    memory_->shared = true;
    ControllerTest::SetUp();
    other_ = make("c2", other_store_);
    hello(*controller_, n1_);
    hello(*other_, n2_);
    settle();
    ok(apply(*controller_, "{id: p, owner: ada, publish: [{port: 80}]}"));
    attach(n1_, "1");
  }
  static void ok(const Status& status) { ASSERT_TRUE(status) << status.error().what; }
  static void refused(const Status& status, ErrorCode code, std::string_view why) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, code);
    EXPECT_THAT(status.error().what, HasSubstr(why));
  }
  Controller& of(const FakeStream& stream) { return &stream == &n2_ ? *other_ : *controller_; }
  void attach(FakeStream& stream, const std::string& host) {
    settle();
    report(of(stream), stream, "p", stream.welcome->block4().substr(0, 9) + host);
    settle();
  }
  void gone(FakeStream& stream) {
    mesh::v1::FromNode message;
    message.mutable_report()->set_number(++stream.reports);
    message.mutable_report()->add_gone("p");
    say(of(stream), stream, message);
    settle();
  }
  void settle() {
    for (int i = 0; i < 5; ++i) {
      answer(*controller_, n1_);
      if (!other_) continue;
      answer(*other_, n2_);
      controller_->on_store_notified(now_);
      other_->on_store_notified(now_);
    }
  }
  // Time for both, in which `use` happens every minute.
  void both(Duration time, const std::function<void()>& use = [] {}) {
    for (const auto end = now_.steady + time; now_.steady < end;) {
      now_.steady += 5s;
      now_.wall_ms += 5000;
      if (now_.wall_ms % 60'000 == 0) use();
      for (auto* controller : {controller_.get(), other_.get()}) {
        if (controller == nullptr) continue;
        controller->on_timer(now_);
        controller->on_store_notified(now_);
      }
      settle();
    }
  }
  // What the node has been sent of it.
  static std::vector<std::uint32_t> opened(const FakeStream& stream) {
    const auto item = stream.items.find({mesh::v1::SliceKey::Kind::WORKLOAD, "p"});
    if (item == stream.items.end()) return {};
    mesh::v1::SliceWorkload workload;
    EXPECT_TRUE(workload.ParseFromString(item->second));
    return {workload.opened().begin(), workload.opened().end()};
  }

  MemoryStore* other_store_ = nullptr;
  std::unique_ptr<Controller> other_;
  FakeStream n1_{"n1"}, n2_{"n2"};
};

TEST_F(OpenedTest, ItsNodeIsSentWhatWasOpened) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  settle();
  EXPECT_THAT(opened(n1_), ElementsAre(8888));
  EXPECT_EQ(n1_.hash(), controller_->slices().hash("n1"));
  EXPECT_THAT(opened(n2_), IsEmpty());
  const policy::PublishKey key{"p", Proto::kTcp, 8888};
  EXPECT_EQ(other_->cluster().opened().at(key).by, "ada");
}

TEST_F(OpenedTest, OnlyWhatIsDeclaredAndAttachedIsOpened) {
  refused(controller_->open_port("q", 80, "ada", now_), ErrorCode::kNotFound, "is not declared");
  ok(apply(*controller_, "{id: q, owner: ada}"));
  refused(controller_->open_port("q", 80, "ada", now_), ErrorCode::kNotInForce, "is not attached");
  refused(controller_->open_port("p", 0, "ada", now_), ErrorCode::kInvalid, "is no port");
  refused(controller_->open_port("p", 1, "", now_), ErrorCode::kInvalid, "who opens it");
  EXPECT_THAT(controller_->cluster().opened(), IsEmpty());
}

TEST_F(OpenedTest, WhatIsPublishedOrOpenIsLeftAsItIs) {
  const auto before = memory_->log.size();
  ok(controller_->open_port("p", 80, "ada", now_));
  EXPECT_EQ(memory_->log.size(), before);
  ok(controller_->open_port("p", 8888, "ada", now_));
  ok(controller_->open_port("p", 8888, "bob", now_));
  EXPECT_EQ(memory_->log.size(), before + 1);
}

TEST_F(OpenedTest, AContainerHasSoManyPortsOpenAtMost) {
  for (std::uint16_t port = 1; port <= kMaxOpenedPorts; ++port) {
    ok(controller_->open_port("p", static_cast<std::uint16_t>(1000 + port), "ada", now_));
  }
  refused(controller_->open_port("p", 9000, "ada", now_), ErrorCode::kExhausted, "open already");
}

TEST_F(OpenedTest, ItIsShutWhenNobodyHasUsedItForLong) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  both(kOpenIdle);
  EXPECT_THAT(opened(n1_), ElementsAre(8888));
  both(use_stored(kOpenIdle) + 5s);
  EXPECT_THAT(opened(n1_), IsEmpty());
  EXPECT_THAT(other_->cluster().opened(), IsEmpty());
}

TEST_F(OpenedTest, UsesAtAnyControllerKeepItOpenAndAreSeldomWritten) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  const auto before = memory_->log.size();
  both(1h, [&] { other_->note_use("p", 8888, now_.steady); });
  EXPECT_THAT(opened(n1_), ElementsAre(8888));
  EXPECT_LE(memory_->log.size() - before, 30U) << "every two minutes";
  both(kOpenIdle - 1min);
  EXPECT_THAT(opened(n1_), ElementsAre(8888));
  both(use_stored(kOpenIdle) + 2min);
  EXPECT_THAT(opened(n1_), IsEmpty());
}

TEST_F(OpenedTest, AUseThatTheStoreDidNotTakeIsNotForgotten) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  store_->away = other_store_->away = true;
  both(11min, [&] { controller_->note_use("p", 8888, now_.steady); });
  both(2min);
  // Had the other one come first it could not have known.
  other_.reset();
  store_->away = false;
  both(1min);
  EXPECT_THAT(opened(n1_), ElementsAre(8888));
}

TEST_F(OpenedTest, ARestartCountsOnFromTheLastUse) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  settle();
  both(9min);
  n2_.closed = true;
  other_.reset();
  now_.steady = TimePoint(10s);  // another boot
  controller_ = make("c1", store_);
  FakeStream again("n1");
  again.items = n1_.items;
  hello(*controller_, again, n1_.revision, n1_.hash());
  ASSERT_TRUE(again.in_sync) << "what is open is part of the slice as before";
  EXPECT_EQ(again.in_sync->slice_hash(), n1_.hash());
  for (int i = 0; i < 60; ++i) {
    pass(5s);
    answer(*controller_, again);
  }
  EXPECT_THAT(opened(again), IsEmpty());
}

TEST_F(OpenedTest, ItEndsWithTheDetach) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  gone(n1_);
  EXPECT_THAT(opened(n1_), IsEmpty());
  EXPECT_THAT(other_->cluster().opened(), IsEmpty());
  attach(n1_, "2");
  EXPECT_THAT(opened(n1_), IsEmpty());
}

TEST_F(OpenedTest, ItEndsWhereADetachWentUnseen) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  attach(n1_, "7");  // another address: it is another container
  EXPECT_THAT(opened(n1_), IsEmpty());
}

TEST_F(OpenedTest, AReportOfSomethingElseLeavesItOpen) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  mesh::v1::FromNode message;
  message.mutable_report()->set_number(++n1_.reports);
  auto& endpoint = *message.mutable_report()->add_endpoints();
  endpoint.set_id("p");
  endpoint.add_addresses(n1_.welcome->block4().substr(0, 9) + "1");
  auto& published = *endpoint.add_published();
  published.set_port(8888);
  published.set_on_demand(true);
  say(*controller_, n1_, message);
  settle();
  EXPECT_THAT(opened(n1_), ElementsAre(8888));
}

TEST_F(OpenedTest, ItDoesNotMoveWithTheContainer) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  gone(n1_);
  attach(n2_, "1");
  EXPECT_THAT(opened(n2_), IsEmpty());
  ok(controller_->open_port("p", 8888, "ada", now_));
  settle();
  EXPECT_THAT(opened(n2_), ElementsAre(8888));
}

TEST_F(OpenedTest, ItEndsWithTheDeleteAndANewOwner) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  ok(apply(*controller_, "{id: p, owner: bob}"));
  EXPECT_THAT(controller_->cluster().opened(), IsEmpty());
  ok(controller_->open_port("p", 8888, "bob", now_));
  ok(controller_->forget({Author::Role::kAdmin, "root"}, "p", true, now_));
  EXPECT_THAT(controller_->cluster().opened(), IsEmpty());
  settle();
  EXPECT_THAT(other_->cluster().opened(), IsEmpty());
}

TEST_F(OpenedTest, ItEndsWithTheNodesBootAndWithTheNode) {
  ok(controller_->open_port("p", 8888, "ada", now_));
  controller_->on_closed(n1_, now_);
  settle();
  both(10s);
  FakeStream rebooted("n1");
  mesh::v1::FromNode message;
  message.mutable_hello()->set_protocol(1);
  message.mutable_hello()->set_boot_id("another");
  say(*controller_, rebooted, message);
  EXPECT_THAT(rebooted.farewell, "");
  EXPECT_THAT(controller_->cluster().opened(), IsEmpty());
  attach(n2_, "1");
  ok(other_->open_port("p", 8888, "ada", now_));
  ok(other_->dismiss("n2", now_));
  EXPECT_THAT(other_->cluster().opened(), IsEmpty());
}

TEST(OpenedKeyTest, OnlyWhatIsWrittenIsRead) {
  const policy::PublishKey key{"a-1", Proto::kTcp, 65535};
  EXPECT_EQ(opened_key(key), "a-1/tcp-65535");
  EXPECT_EQ(parse_opened_key("a-1/tcp-65535").value(), key);
  for (const auto* text : {"", "a", "/tcp-1", "a/tcp-", "a/tcp-0", "a/tcp-01", "a/tcp-65536",
                           "a/tcp-1 ", "a/udp-1", "a/tcp-1/tcp-2"}) {
    EXPECT_FALSE(parse_opened_key(text)) << text;
  }
}

}  // namespace
}  // namespace meshd::controller
