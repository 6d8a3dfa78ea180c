// Ports that are published on demand: to the proxies alone, and beside what is declared.
#include <gmock/gmock.h>

#include "policy/explain.h"
#include "policy/profile.h"
#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class OpenedTest : public testing::Test {
 protected:
  void SetUp() override {
    w_.apply("{id: p, owner: ada, publish: [{port: 80}]}");
    w_.attach("p");
  }
  Touched open(std::uint16_t port, std::uint16_t node_port) {
    w_.workload("p").opened.insert(port);
    w_.world.node_ports[{"p", Proto::kTcp, port}] = node_port;
    return w_.touch("p");
  }
  std::vector<std::string> published_ports() {
    std::vector<std::string> ports;
    for (const auto& p : publications_of(w_.workload("p"))) {
      ports.push_back(
          fmt::format("{}{}{}", p.port, p.http ? " http" : "", p.on_demand ? " on demand" : ""));
    }
    return ports;
  }

  PolicyWorld w_;
};

TEST_F(OpenedTest, AnOpenedPortAdmitsTheProxiesAlone) {
  open(8888, 20500);
  EXPECT_THAT(w_.elements("pub4"),
              testing::Contains("pub4 192.0.2.1 . tcp . 20500 : 10.213.0.1 . 8888"));
  EXPECT_THAT(w_.elements("pubc6"), SizeIs(2));
  const auto explained = [&](std::string_view source) {
    return explain(w_.world, source, "192.0.2.1", Proto::kTcp, 20500);
  };
  const auto proxy = explained("203.0.113.7");
  ASSERT_TRUE(proxy) << proxy.error().what;
  EXPECT_EQ(proxy->verdict, FlowVerdict::kAllowed);
  EXPECT_THAT(proxy->lines, ElementsAre("p publishes tcp/8888, on demand, as node port 20500"));
  const auto other = explained("198.51.100.1");
  ASSERT_TRUE(other);
  EXPECT_EQ(other->verdict, FlowVerdict::kRefused);
  EXPECT_THAT(other->missing, HasSubstr("publish.proxies"));
}

TEST_F(OpenedTest, WithoutANodePortNothingOpens) {
  const auto before = w_.elements("");
  w_.workload("p").opened.insert(8888);
  EXPECT_EQ(w_.elements(""), before);
}

TEST_F(OpenedTest, WhatIsDeclaredStaysAsItIsDeclared) {
  open(80, 20000);
  EXPECT_THAT(published_ports(), ElementsAre("80"));
  open(8888, 20500);
  EXPECT_THAT(published_ports(), ElementsAre("80", "8888 http on demand"));
}

TEST_F(OpenedTest, OpenedAndShutItIsAsItWas) {
  Compiler compiler;
  [[maybe_unused]] const auto first = compiler.rebuild(w_.world);
  const auto before = compiler.elements();
  const auto opened = compiler.update(w_.world, open(8888, 20500));
  EXPECT_THAT(opened.elements.remove, IsEmpty());
  EXPECT_FALSE(opened.elements.add.empty());
  w_.workload("p").opened.clear();
  w_.world.node_ports.erase({"p", Proto::kTcp, 8888});
  const auto shut = compiler.update(w_.world, w_.touch("p"));
  EXPECT_EQ(shut.elements.remove, opened.elements.add);
  EXPECT_EQ(compiler.elements(), before);
}

TEST_F(OpenedTest, ItIsNoServiceAndOpensNothingToContainers) {
  w_.apply("{id: c, owner: ada, peers: [{id: p}]}");
  w_.attach("c");
  const auto before = w_.elements("allow");
  open(8888, 20500);
  EXPECT_EQ(w_.elements("allow"), before);
}

TEST_F(OpenedTest, TheClustersProxiesAreAdmittedBesideTheNodesOwn) {
  w_.world.settings.cluster_proxies = {Prefix::parse("203.0.113.0/28").value(),
                                       Prefix::parse("2001:db8:1::/64").value()};
  open(8888, 20500);
  EXPECT_THAT(w_.elements("src4"), testing::Contains(HasSubstr("203.0.113.0-203.0.113.15")))
      << "which covers the node's own";
  EXPECT_THAT(w_.elements("src6"), SizeIs(1));
}

}  // namespace
}  // namespace meshd::policy
