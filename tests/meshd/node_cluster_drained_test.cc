// A workload that whoever declared it gave up, on the nodes of a cluster: its name is out and
// nothing new is let in, what is open stays; over restarts, and taken back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "controller/report.h"
#include "tests/support/cluster_nodes.h"

namespace meshd {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class NodeClusterDrainedTest : public ClusterNodesTest {
 protected:
  void SetUp() override {
    ClusterNodesTest::SetUp();
    say(false);
    attach("n1", "db");
    attach("n2", "worker");
    listens("n1", "db", 5432);
    ASSERT_THAT(node("n2").elements("vip4"), Not(IsEmpty()));
  }
  // As its container request has it.
  void say(bool drained) {
    auto read = policy::read_declarations(
        "test",
        "workloads: [{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 5432}]},"
        "{id: worker, owner: ada, workflow: r1, peers: [{name: db}]}]");
    ASSERT_TRUE(read) << read.error().what;
    const auto status = controller_->declare(controller::arvados_author(), *std::move(read), "",
                                             now_, {{"db", {drained, "request"}}});
    ASSERT_TRUE(status) << status.error().what;
    pump();
  }
  mesh::v1::WorkloadState::Value state() {
    const auto list = controller::workload_list(*controller_);
    for (const auto& one : list.workloads()) {
      if (one.declaration().id() == "db") return one.state();
    }
    return mesh::v1::WorkloadState::DECLARED;
  }
  void expect_drained() {
    EXPECT_THAT(node("n1").elements("drain4"), SizeIs(1));
    EXPECT_THAT(node("n2").elements("vip4"), IsEmpty());
    EXPECT_EQ(node("n1").elements("allow4"), allowed_) << "what is open goes on";
    EXPECT_EQ(node("n2").elements("allow4"), allowed_);
    EXPECT_EQ(state(), mesh::v1::WorkloadState::DRAINING);
    expect_hashes_agree();
  }
  void drain() {
    allowed_ = node("n1").elements("allow4");
    ASSERT_THAT(allowed_, SizeIs(1));
    say(true);
  }

  std::vector<std::string> allowed_;
};

TEST_F(NodeClusterDrainedTest, ItsNameGoesAndItsOpenConnectionsStay) {
  node("n1").kernel.erased.clear();
  node("n2").kernel.erased.clear();
  drain();
  expect_drained();
  for (const auto& name : {"n1", "n2"}) {
    for (const auto& request : node(name).kernel.erased) {
      EXPECT_THAT(request.addresses, IsEmpty());
      EXPECT_FALSE(request.also);
      for (const auto& cut : request.translations) EXPECT_TRUE(cut.only_unanswered);
    }
  }
  const auto told = [&] {
    std::vector<std::string> events;
    for (const auto& event : node("n1").events) {
      if (event.kind() == mesh::v1::Event::Kind::DRAINING) events.push_back(event.id());
    }
    return events;
  };
  EXPECT_THAT(told(), ElementsAre("db"));
  say(true);
  EXPECT_THAT(told(), ElementsAre("db"));
}

TEST_F(NodeClusterDrainedTest, TakenBackItIsAsBefore) {
  const auto slots = node("n2").elements("vip4");
  drain();
  say(false);
  EXPECT_THAT(node("n1").elements("drain4"), IsEmpty());
  EXPECT_EQ(node("n2").elements("vip4"), slots);
  EXPECT_EQ(state(), mesh::v1::WorkloadState::READY);
  expect_hashes_agree();
}

TEST_F(NodeClusterDrainedTest, ItOutlivesTheDaemonWithoutAController) {
  drain();
  const auto before = node("n1").elements();
  const auto writes = node("n1").kernel.writes();
  lose_controller();
  node("n1").start();
  EXPECT_EQ(node("n1").elements(), before);
  EXPECT_EQ(node("n1").kernel.writes(), writes) << "nothing differed";
  new_controller("c3");
  connect_all();
  expect_drained();
}

TEST_F(NodeClusterDrainedTest, AttachedLaterItIsNotLetIntoTheName) {
  EXPECT_EQ(told(node("n1").detach("db")), "OK");
  pump();
  say(true);
  attach("n1", "db");
  listens("n1", "db", 5432);
  EXPECT_THAT(node("n1").elements("drain4"), SizeIs(1));
  EXPECT_THAT(node("n2").elements("vip4"), IsEmpty());
  EXPECT_EQ(state(), mesh::v1::WorkloadState::DRAINING);
}

TEST_F(NodeClusterDrainedTest, WhatPeopleDrainOnTheNodeIsNotTakenBackWithIt) {
  const auto answer = std::make_shared<std::optional<Status>>();
  node("n1").process->drain("db", now_.steady, ClusterNode::into<mesh::v1::Empty>(answer));
  pump();
  EXPECT_EQ(told(answer), "OK");
  say(true);
  say(false);
  EXPECT_THAT(node("n1").elements("drain4"), SizeIs(1));
  EXPECT_EQ(state(), mesh::v1::WorkloadState::DRAINING);
}

}  // namespace
}  // namespace meshd
