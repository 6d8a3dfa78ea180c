// A gateway and the node of a provider with one controller: what is in both kernels, over
// restarts, moves and the end.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "controller/report.h"
#include "tests/support/cluster_nodes.h"

namespace meshd {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// n1 and n2 at 192.0.2.11 and .12; g, the gateway, at 192.0.2.13.
class NodeClusterGatewayTest : public ClusterNodesTest {
 protected:
  void SetUp() override {
    ClusterNodesTest::SetUp();
    lose_controller();
    int number = 10;
    for (const auto* name : {"n1", "n2", "g"}) {
      if (!nodes_.contains(name)) {
        nodes_.emplace(name, std::make_unique<ClusterNode>(name, now_.steady));
      }
      node(name).underlay = {IpAddress::parse(fmt::format("192.0.2.{}", ++number)).value()};
      node(name).gateway = std::string_view(name) == "g";
      node(name).start();
    }
    begin("c2");
    declare("{id: db, owner: ada, publish: [{port: 5432, allow_from: [198.51.100.0/24]}]}");
    attach("n1", "db");
  }
  void begin(const std::string& name) {
    new_controller(name, true, {}, {30000, 32767});
    connect_all();
  }
  bool has_applied() {
    return std::ranges::any_of(node("g").said, &mesh::v1::FromNode::has_applied);
  }
  std::string led_to(const char* address, int node_port = 20000) {
    return fmt::format("gate4 192.0.2.13 . tcp . 30000 : {} . {}", address, node_port);
  }
  static constexpr const char* kN1 = "192.0.2.11";
};

TEST_F(NodeClusterGatewayTest, TheGatewayLeadsThereAndTheProviderAdmitsIt) {
  EXPECT_THAT(node("g").elements("gate4"), ElementsAre(led_to(kN1)));
  EXPECT_THAT(node("g").elements("src4"), ElementsAre(HasSubstr("198.51.100.0")));
  EXPECT_THAT(node("n1").elements("src4"),
              ElementsAre(HasSubstr("192.0.2.13"), HasSubstr("198.51.100.0")));
  EXPECT_THAT(node("n2").elements("gate"), IsEmpty());
  const auto list = controller::published_list(controller_->cluster());
  ASSERT_EQ(list.published_size(), 1);
  EXPECT_EQ(list.published(0).gateway_port(), 30000U);
  EXPECT_THAT(list.published(0).gateway_addresses(), ElementsAre("192.0.2.13"));
  expect_hashes_agree();
}

TEST_F(NodeClusterGatewayTest, ItOutlivesTheDaemonAndTheController) {
  const auto before = node("g").elements();
  const auto writes = node("g").kernel.writes();
  lose_controller();
  node("g").start();
  EXPECT_EQ(node("g").elements(), before);
  EXPECT_EQ(node("g").kernel.writes(), writes);
  begin("c3");
  EXPECT_EQ(node("g").elements(), before);
  expect_hashes_agree();
}

TEST_F(NodeClusterGatewayTest, AMoveIsFollowedAndErasedBeforeItIsAcknowledged) {
  EXPECT_EQ(told(node("n1").detach("db")), "OK");
  node("g").kernel.erased.clear();
  node("g").said.clear();
  node("g").kernel.fail_next(FakeKernel::Call::kErase, FakeKernel::kForEver);
  pump();
  EXPECT_THAT(node("g").elements("gate"), IsEmpty());
  EXPECT_FALSE(has_applied());
  node("g").kernel.work_again();
  pass(1s);
  EXPECT_TRUE(has_applied());
  ASSERT_THAT(node("g").kernel.erased, SizeIs(1));
  ASSERT_THAT(node("g").kernel.erased[0].translations, SizeIs(1));
  EXPECT_EQ(node("g").kernel.erased[0].translations[0].to.to_string(), kN1);
  attach("n2", "db");
  EXPECT_THAT(node("g").elements("gate4"), ElementsAre(led_to("192.0.2.12")));
  expect_hashes_agree();
}

TEST_F(NodeClusterGatewayTest, WhatRunsOnTheGatewayItselfIsReachedDirectly) {
  EXPECT_EQ(told(node("n1").detach("db")), "OK");
  pump();
  attach("g", "db");
  EXPECT_THAT(node("g").elements("gate4"),
              ElementsAre(fmt::format("gate4 192.0.2.13 . tcp . 30000 : {} . 5432",
                                      node("g").address("db"))));
  EXPECT_THAT(node("g").elements("gated"), IsEmpty());
}

TEST_F(NodeClusterGatewayTest, ANodeThatIsNoGatewayAnyMoreIsAdmittedNoLonger) {
  disconnect("g");
  node("g").gateway = false;
  node("g").start();
  connect("g");
  pump();
  EXPECT_THAT(node("g").elements("gate"), IsEmpty());
  EXPECT_THAT(node("n1").elements("src4"), ElementsAre(HasSubstr("198.51.100.0")));
  expect_hashes_agree();
}

TEST_F(NodeClusterGatewayTest, WhoIsNotNamedAsAGatewayIsNotBelieved) {
  for (const auto& named : {std::set<std::string>{"n2"}, std::set<std::string>{"g", "n2"}}) {
    controller_with({.name = "c3", .gateway_ports = {30000, 32767}, .gateway_nodes = named});
    connect_all();
    const bool believed = named.contains("g");
    EXPECT_THAT(node("g").elements("gate4"), SizeIs(believed ? 1 : 0));
    EXPECT_THAT(node("n1").elements("src4"), SizeIs(believed ? 2 : 1));
    expect_hashes_agree();
  }
  controller_with({.name = "c4"});
  connect_all();
  EXPECT_THAT(node("n1").elements("src4"), SizeIs(1)) << "without outside ports there are none";
}

TEST_F(NodeClusterGatewayTest, WithTheWorkloadTheOutsidePortLeadsNowhere) {
  forget("db");
  EXPECT_THAT(node("g").elements("gate"), IsEmpty());
  EXPECT_THAT(node("g").elements("src"), IsEmpty());
}

// At a start: connections that an earlier process did not come to erase.
TEST_F(NodeClusterGatewayTest, AStartFindsWhatIsOutlived) {
  forget("db");
  lose_controller();
  node("g").kernel.outlived.clear();
  node("g").start();
  ASSERT_FALSE(node("g").kernel.outlived.empty());
  const auto& is_over = node("g").kernel.outlived.back();
  const auto ip = [](std::string_view text) { return IpAddress::parse(text).value(); };
  policy::LiveConnection live{Proto::kTcp, ip("198.51.100.7"), ip("192.0.2.13"),
                              30000,       ip("192.0.2.11"),   20000};
  EXPECT_TRUE(is_over(live));
  live.asked_port = 2222;
  EXPECT_FALSE(is_over(live)) << "no outside port";
  live.asked_port = 30000;
  live.server = ip("203.0.113.5");
  EXPECT_FALSE(is_over(live)) << "no node's";
}

}  // namespace
}  // namespace meshd
