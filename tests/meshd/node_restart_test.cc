// What a node that starts again finds, and links that vanish under it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "meshd/node.h"
#include "tests/support/node_pair.h"

namespace meshd {
namespace {

using policy::SetId;
using std::chrono::seconds;
using testing::HasSubstr;
using Call = FakeKernel::Call;
using Event = mesh::v1::Event;

class NodeRestartTest : public NodePair {};

// --- a prepared namespace that is left to be removed --------------------------------------------

class NodeLeftNetnsTest : public NodeRestartTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(told(apply(kDb)), "OK");
    prepare(7);
  }
  void prepare(std::uint64_t ino) {
    auto prepared = spec("db", ino);
    prepared.prepared = true;
    node_->attach(prepared, now_, [](const auto& a) { EXPECT_TRUE(a); });
  }
  // The inode that the client is to remove; 0: none.
  [[nodiscard]] std::uint64_t left() const {
    const auto reply = node_->left_netns("db");
    return reply.prepared() ? reply.netns_ino() : 0;
  }
  void removed(std::uint64_t ino) {
    node_->forget_netns("db", ino, now_, [](const auto& reply) { EXPECT_TRUE(reply); });
  }
};

TEST_F(NodeLeftNetnsTest, IsKnownUntilTheClientHasRemovedItOverARestartToo) {
  EXPECT_EQ(left(), 0U);
  ASSERT_EQ(told(detach("db")), "OK");
  restart();
  EXPECT_EQ(left(), 7U);
  removed(8);
  EXPECT_EQ(left(), 7U) << "that was another one";
  removed(7);
  EXPECT_EQ(left(), 0U);
  restart();
  EXPECT_EQ(left(), 0U);
}

TEST_F(NodeLeftNetnsTest, IsToldByEveryDetachAndDelete) {
  ASSERT_EQ(told(detach("db")), "OK");
  std::vector<std::string> told_netns;
  const auto note = [&](Result<mesh::v1::DetachReply> reply) {
    ASSERT_TRUE(reply) << reply.error().what;
    if (reply->prepared()) told_netns.push_back(reply->netns());
  };
  node_->detach("db", now_, note);
  node_->remove("db", false, now_, note);
  node_->remove("db", false, now_, note);
  EXPECT_THAT(told_netns, testing::Each("/run/netns/db"));
  EXPECT_EQ(told_netns.size(), 3U);
  removed(7);
  EXPECT_THAT(told(remove("db")), HasSubstr("no workload"));
}

TEST_F(NodeLeftNetnsTest, IsForgottenWithTheNextAttach) {
  ASSERT_EQ(told(detach("db")), "OK");
  prepare(9);
  EXPECT_EQ(left(), 0U);
  restart();
  EXPECT_EQ(left(), 0U);
  EXPECT_TRUE(attached("db"));
}

TEST_F(NodeLeftNetnsTest, IsLeftByAForcedDeleteToo) {
  ASSERT_EQ(told(remove("db", true)), "OK");
  restart();
  EXPECT_EQ(left(), 7U);
}

// --- restarts and links that vanish ------------------------------------------------------------

TEST_F(NodeRestartTest, RestartWithAllInPlaceWritesNothing) {
  run_pair();
  const auto elements = elements_in_kernel();
  const int writes = kernel_.writes();
  restart();
  EXPECT_EQ(kernel_.writes(), writes);
  EXPECT_EQ(elements_in_kernel(), elements);
  EXPECT_EQ(name_seen_by(worker(), kName), vip());
  EXPECT_EQ(events(Event::Kind::REPAIRED), 0U);
}

TEST_F(NodeRestartTest, NamesAreThereBeforeTheKernelIsCompared) {
  run_pair();
  start();
  EXPECT_EQ(name_seen_by(worker(), kName), vip());
}

TEST_F(NodeRestartTest, ContainerThatEndedMeanwhileIsDetachedAtStart) {
  run_pair();
  kernel_.lose_link(attachment("db").host_ifname);
  restart();
  EXPECT_FALSE(attached("db"));
  EXPECT_TRUE(attached("worker"));
  EXPECT_EQ(kernel_.count(SetId::kHold4), 1U);
  expect_kernel_is_as_planned();
}

TEST_F(NodeRestartTest, StartThatFindsTheKernelUnwillingTriesOn) {
  run_pair();
  start();
  kernel_.lose_elements();
  kernel_.fail_next(Call::kConverge);
  EXPECT_FALSE(node_->converge(now_));
  pass(seconds(1));
  expect_kernel_is_as_planned();
}

TEST_F(NodeRestartTest, LinkThatVanishesIsADetach) {
  run_pair();
  const auto link = attachment("db").host_ifname;
  kernel_.lose_link(link);
  node_->on_link_gone(link, now_);
  EXPECT_FALSE(attached("db"));
  EXPECT_EQ(kernel_.count(SetId::kAllow4), 0U);
  EXPECT_EQ(events(Event::Kind::DETACHED), 1U);
  node_->on_link_gone(link, now_);
  node_->on_link_gone("eth9", now_);
  EXPECT_EQ(events(Event::Kind::DETACHED), 1U);
}

// Renamed, or gone while events were lost.
TEST_F(NodeRestartTest, LinkThatAnAuditMissesIsADetach) {
  run_pair();
  kernel_.lose_link(attachment("db").host_ifname);
  node_->on_audit(now_);
  EXPECT_FALSE(attached("db"));
  EXPECT_EQ(kernel_.count(SetId::kAllow4), 0U);
  kernel_.lose_link(attachment("worker").host_ifname);
  node_->on_drift(now_);
  pass(seconds(1));
  EXPECT_FALSE(attached("worker"));
  EXPECT_EQ(events(Event::Kind::DETACHED), 2U);
  expect_kernel_is_as_planned();
}

TEST_F(NodeRestartTest, NameOfAForeignLinkIsPassedOver) {
  for (const char* name : {"mesh1", "mesh2", "mesh4"}) kernel_.foreign_links.insert(name);
  run_pair();
  EXPECT_EQ(attachment("db").host_ifname, "mesh3");
  EXPECT_EQ(attachment("worker").host_ifname, "mesh5");
  expect_kernel_is_as_planned();
}

TEST_F(NodeRestartTest, LinkThatNobodyKnowsIsSweptAtStart) {
  LinkPlan left_over;  // the process died between link and store
  left_over.host_ifname = "mesh7";
  ASSERT_TRUE(kernel_.connect(left_over, -1));
  restart();
  EXPECT_TRUE(kernel_.links().empty());
}

}  // namespace
}  // namespace meshd
