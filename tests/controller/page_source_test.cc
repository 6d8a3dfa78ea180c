// What is made and asked for while somebody looks at the page.
#include "controller/page_source.h"

#include <gmock/gmock.h>

#include "tests/controller/controller_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::IsEmpty;
using testing::SizeIs;

class PageSourceTest : public ControllerTest {
 protected:
  void SetUp() override {
    web_ = proxy::Site{"mesh.example.org", 443, "", 0, 0};
    ControllerTest::SetUp();
    hello(*controller_, node_);
    answer(*controller_, node_);
    ASSERT_TRUE(apply(*controller_, kTwo));
    answer(*controller_, node_);
    report(*controller_, node_, "worker", node_.welcome->block4().substr(0, 9) + "1");
    answer(*controller_, node_);
    source_ = std::make_unique<PageSource>(*controller_);
  }
  void look() {
    source_->looked(now_);
    source_->serve(now_);
  }
  void go_on(Duration time) {
    pass(time);
    source_->serve(now_);
  }
  std::shared_ptr<const proxy::Overview> shown() { return source_->overviews().load(); }
  mesh::v1::FromNode traffic() {
    mesh::v1::FromNode message;
    message.mutable_traffic()->set_over_ms(1000);
    auto& flow = *message.mutable_traffic()->add_flows();
    flow.set_consumer("worker");
    flow.set_provider("db");
    flow.mutable_port()->set_port(1);
    flow.set_packets(1);
    flow.set_bytes(100);
    return message;
  }
  std::uint64_t refused() {
    const auto& all = controller_->counts().refused;
    const auto found = all.find("traffic");
    return found == all.end() ? 0 : found->second;
  }

  FakeStream node_{"n1"};
  std::unique_ptr<PageSource> source_;
};

TEST_F(PageSourceTest, NothingIsMadeOrAskedUntilSomebodyLooks) {
  go_on(1min);
  EXPECT_EQ(shown(), nullptr);
  EXPECT_EQ(node_.looks, 0);
  EXPECT_FALSE(source_->next());
  look();
  ASSERT_NE(shown(), nullptr);
  EXPECT_THAT(shown()->shape->workloads, SizeIs(2));
  EXPECT_EQ(node_.looks, 1);
}

TEST_F(PageSourceTest, WhileSomebodyLooksItIsKeptUp) {
  look();
  const auto first = shown();
  ASSERT_TRUE(apply(*controller_, "{id: more, owner: ada}"));
  source_->serve(now_);
  EXPECT_EQ(shown(), first) << "not more often than once a second";
  go_on(1s);
  EXPECT_THAT(shown()->shape->workloads, SizeIs(3));
  EXPECT_EQ(shown()->made_at, now_.steady);
}

TEST_F(PageSourceTest, WhenNobodyLooksAnyMoreItEnds) {
  look();
  for (int i = 0; i < 10; ++i) go_on(1s);
  EXPECT_EQ(shown(), nullptr);
  EXPECT_FALSE(source_->next());
  EXPECT_EQ(node_.looks, 1);
}

TEST_F(PageSourceTest, NodesAreAskedAgainWhileSomebodyLooksAndSoAreThoseThatCome) {
  for (int i = 0; i < 20; ++i) {
    look();
    go_on(1s);
  }
  EXPECT_EQ(node_.looks, 2);
  FakeStream late("n2");
  hello(*controller_, late);
  EXPECT_EQ(late.looks, 1);
}

TEST_F(PageSourceTest, WhatNodesSayIsShown) {
  look();
  say(*controller_, node_, traffic());
  go_on(1s);
  ASSERT_THAT(*shown()->traffic, SizeIs(1));
  EXPECT_EQ(shown()->traffic->front().bytes, 100);
  controller_->on_closed(node_, now_);
  go_on(1s);
  EXPECT_THAT(*shown()->traffic, IsEmpty());
}

TEST_F(PageSourceTest, WhatNobodyAskedForIsNotKept) {
  say(*controller_, node_, traffic());
  EXPECT_EQ(refused(), 1);
  look();
  EXPECT_THAT(*shown()->traffic, IsEmpty());
}

TEST_F(PageSourceTest, WhatIsNotBelievedIsCountedAndTheSessionGoesOn) {
  look();
  auto forged = traffic();
  forged.mutable_traffic()->mutable_flows(0)->set_consumer("db");
  say(*controller_, node_, forged);
  EXPECT_EQ(refused(), 1);
  EXPECT_FALSE(node_.closed);
}

}  // namespace
}  // namespace meshd::controller
