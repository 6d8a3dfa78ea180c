// Ports that are published on demand and the cluster's proxies, on a node: what is in its kernel
// and what it reports, over restarts, without a controller, and when it is over.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "controller/report.h"
#include "meshd/report.h"
#include "tests/support/cluster_nodes.h"

namespace meshd {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class NodeClusterOpenedTest : public ClusterNodesTest {
 protected:
  void SetUp() override {
    ClusterNodesTest::SetUp();
    new_controller("c2", true, {Prefix::parse("203.0.113.7").value()});
    connect_all();
    declare("{id: p, owner: ada}");
    attach("n1", "p");
  }
  void open(std::uint16_t port) {
    const auto status = controller_->open_port("p", port, "ada", now_);
    ASSERT_TRUE(status) << status.error().what;
    pump();
  }
  // As the controller lists it: "p tcp/8888 node port 20000 on demand".
  std::vector<std::string> published() {
    std::vector<std::string> lines;
    const auto list = controller::published_list(controller_->cluster());
    for (const auto& p : list.published()) {
      lines.push_back(fmt::format("{} tcp/{} node port {}{}{}{}", p.id(), p.port(), p.node_port(),
                                  p.http() ? " http" : "", p.on_demand() ? " on demand" : "",
                                  p.ready() ? "" : " not ready"));
    }
    return lines;
  }
  static constexpr const char* kOpen = "p tcp/8888 node port 20000 http on demand";
};

TEST_F(NodeClusterOpenedTest, WhatIsOpenedIsPublishedAndReported) {
  open(8888);
  EXPECT_THAT(node("n1").elements("pub4"),
              ElementsAre("pub4 192.0.2.1 . tcp . 20000 : 10.213.0.1 . 8888"));
  EXPECT_THAT(node("n1").elements("src4"), ElementsAre(HasSubstr("203.0.113.7")));
  EXPECT_THAT(published(), ElementsAre(kOpen));
  EXPECT_THAT(published_list(node("n1").process->world()).published(), SizeIs(1));
  EXPECT_THAT(node("n2").elements("pub"), IsEmpty());
  expect_hashes_agree();
}

TEST_F(NodeClusterOpenedTest, WhenItIsIdleItGoesWithItsConnections) {
  open(8888);
  node("n1").kernel.erased.clear();
  pass(13min);
  EXPECT_THAT(node("n1").elements("pub"), IsEmpty());
  EXPECT_THAT(node("n1").process->world().node_ports, IsEmpty());
  ASSERT_THAT(node("n1").kernel.erased, SizeIs(1));
  EXPECT_THAT(node("n1").kernel.erased[0].translations, SizeIs(1));
  EXPECT_THAT(published(), IsEmpty());
  expect_hashes_agree();
}

TEST_F(NodeClusterOpenedTest, ItOutlivesTheDaemonWithoutAController) {
  open(8888);
  const auto before = node("n1").elements();
  const auto writes = node("n1").kernel.writes();
  lose_controller();
  node("n1").start();
  EXPECT_EQ(node("n1").elements(), before);
  EXPECT_EQ(node("n1").kernel.writes(), writes) << "nothing differed";
  new_controller("c3", true, {Prefix::parse("203.0.113.7").value()});
  connect_all();
  EXPECT_EQ(node("n1").elements(), before);
  EXPECT_THAT(published(), ElementsAre(kOpen));
  expect_hashes_agree();
}

TEST_F(NodeClusterOpenedTest, ADetachEndsItAndTheNextAttachDoesNotBeginIt) {
  open(8888);
  EXPECT_EQ(told(node("n1").detach("p")), "OK");
  EXPECT_THAT(node("n1").elements("pub"), IsEmpty());
  pump();
  EXPECT_THAT(controller_->cluster().opened(), IsEmpty());
  attach("n1", "p");
  EXPECT_THAT(node("n1").elements("pub"), IsEmpty());
}

TEST_F(NodeClusterOpenedTest, OnAnotherNodeItIsOpenedAnew) {
  open(8888);
  EXPECT_EQ(told(node("n1").detach("p")), "OK");
  pump();
  attach("n2", "p");
  EXPECT_THAT(node("n2").elements("pub"), IsEmpty());
  open(8888);
  EXPECT_THAT(node("n2").elements("pub4"), SizeIs(1));
  EXPECT_THAT(node("n1").elements("pub"), IsEmpty());
  EXPECT_THAT(published(), ElementsAre(kOpen));
  expect_hashes_agree();
}

TEST_F(NodeClusterOpenedTest, DeclaredLaterItKeepsItsNodePort) {
  open(8888);
  declare("{id: p, owner: ada, publish: [{port: 8888, allow_from: [198.51.100.0/24]}]}");
  EXPECT_THAT(node("n1").elements("pub4"),
              ElementsAre("pub4 192.0.2.1 . tcp . 20000 : 10.213.0.1 . 8888"));
  EXPECT_THAT(node("n1").elements("src4"), ElementsAre(HasSubstr("198.51.100.0")));
  EXPECT_THAT(published(), ElementsAre("p tcp/8888 node port 20000"));
}

TEST_F(NodeClusterOpenedTest, AnOpenedPortMakesNobodyWaitForReadiness) {
  declare("{id: q, owner: ada, serves: [{port: 80}]}");
  attach("n1", "q");
  listens("n1", "q", 80);
  ASSERT_TRUE(node("n1").process->world().workloads.find("q")->second.ready);
  const auto status = controller_->open_port("q", 8888, "ada", now_);
  ASSERT_TRUE(status);
  pump();
  EXPECT_TRUE(node("n1").process->world().workloads.find("q")->second.ready);
}

TEST_F(NodeClusterOpenedTest, AnotherSetOfProxiesComesWithTheNextSession) {
  open(8888);
  new_controller("c3", true,
                 {Prefix::parse("203.0.113.9").value(), Prefix::parse("203.0.113.8").value()});
  EXPECT_THAT(node("n1").elements("src4"), ElementsAre(HasSubstr("203.0.113.7")));
  connect_all();
  EXPECT_THAT(node("n1").elements("src4"),
              ElementsAre(HasSubstr("203.0.113.8"), HasSubstr("203.0.113.9")));
  EXPECT_TRUE(node("n1").attached("p")) << "that needs no empty node";
  EXPECT_EQ(node("n1").part().trouble(), "");
  node("n1").start();
  EXPECT_THAT(node("n1").elements("src4"), SizeIs(2)) << "they are stored";
}

}  // namespace
}  // namespace meshd
