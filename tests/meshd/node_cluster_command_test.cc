// What a node of a cluster does on command and what it tells: declaring through the controller,
// joining, node ports, reports.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/cluster_nodes.h"

namespace meshd {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using Kind = mesh::v1::SliceKey::Kind;

class NodeClusterCommandTest : public ClusterNodesTest {
 protected:
  Answer apply(const std::string& name, const std::string& workloads) {
    auto answer = std::make_shared<std::optional<Status>>();
    node(name).process->apply(
        policy::read_declarations("test", "workloads: [" + workloads + "]").value(), now_.steady,
        ClusterNode::into<mesh::v1::ApplyReply>(answer));
    return answer;
  }
  Answer remove(const std::string& name, const std::string& id, bool force) {
    auto answer = std::make_shared<std::optional<Status>>();
    node(name).process->remove(id, force, now_.steady,
                               ClusterNode::into<mesh::v1::DetachReply>(answer));
    return answer;
  }
  // As if the controller had said it.
  std::string slice(const std::string& name, mesh::v1::SliceChange change) {
    change.set_revision(node(name).part().revision() + 1);
    std::string outcome = "pending";
    node(name).part().on_slice(change, now_.steady, [&](Result<std::uint64_t> answer) {
      outcome = answer ? "taken" : answer.error().what;
    });
    return outcome;
  }
  static void add_service(mesh::v1::SliceChange& change, const std::string& key,
                          const std::string& vip) {
    mesh::v1::SliceService service;
    service.set_owner("ada");
    service.add_vips(vip);
    auto& item = *change.add_items();
    item.mutable_key()->set_kind(Kind::SERVICE);
    item.mutable_key()->set_key(key);
    item.set_value(service.SerializeAsString());
  }
  std::vector<std::string> reports(const std::string& name) {
    std::vector<std::string> lines;
    for (const auto& message : node(name).said) {
      if (!message.has_report()) continue;
      std::string line = message.report().all() ? "all" : "";
      for (const auto& endpoint : message.report().endpoints()) {
        line += fmt::format(" {}{}", endpoint.id(), endpoint.ready() ? "!" : "");
      }
      for (const auto& id : message.report().gone()) line += " -" + id;
      lines.push_back(line);
    }
    return lines;
  }
};

// --- declaring ---------------------------------------------------------------------------

TEST_F(NodeClusterCommandTest, AnApplyOnANodeGoesToTheController) {
  const auto answer = apply("n1", "{id: db, owner: ada, workflow: r1, name: db}");
  EXPECT_EQ(told(answer), "pending");
  pump();
  EXPECT_EQ(told(answer), "OK");
  EXPECT_EQ(controller_->cluster().author("db"), "node/n1");
  attach("n1", "db");
  const auto refused = apply("n2", "{id: db, owner: ada, workflow: r1}");
  pump();
  EXPECT_THAT(told(refused), HasSubstr("declared by node/n1"));
}

TEST_F(NodeClusterCommandTest, AnApplyIsAnsweredWhenItIsInForce) {
  const auto first =
      apply("n1", "{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 1}]}");
  pump();
  attach("n1", "db");
  node("n1").kernel.fail_next(FakeKernel::Call::kTransaction, FakeKernel::kForEver);
  const auto answer = apply("n1",
                            "{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 1}], "
                            "egress: [{cidr: 0.0.0.0/0}]}");
  pump();
  EXPECT_EQ(told(answer), "pending");
  node("n1").kernel.work_again();
  pass(1s);
  EXPECT_EQ(told(answer), "OK");
}

TEST_F(NodeClusterCommandTest, NodesThatMayNotDeclareSaySo) {
  new_controller("c1", false);
  connect_all();
  const auto answer = apply("n1", "{id: db, owner: ada}");
  EXPECT_THAT(told(answer), HasSubstr("apply: nodes of this cluster do not declare"));
}

TEST_F(NodeClusterCommandTest, WithoutAControllerNothingIsDeclared) {
  disconnect("n1");
  EXPECT_THAT(told(apply("n1", "{id: db, owner: ada}")),
              HasSubstr("apply: the controller is away since "));
  EXPECT_THAT(node("n1").process->world().workloads, IsEmpty());
}

TEST_F(NodeClusterCommandTest, WhatWasAskedWhenTheControllerWentIsNotKnown) {
  const auto answer = apply("n1", "{id: db, owner: ada}");
  disconnect("n1");
  EXPECT_THAT(told(answer), HasSubstr("apply: not known to be declared: the controller is away"));
}

TEST_F(NodeClusterCommandTest, ADeleteOnANodeDetachesWhenForced) {
  const auto declared = apply("n1", "{id: db, owner: ada}");
  pump();
  attach("n1", "db");
  EXPECT_THAT(told(remove("n1", "db", false)), HasSubstr("it is attached"));
  const auto answer = remove("n1", "db", true);
  pump();
  EXPECT_EQ(told(answer), "OK");
  EXPECT_FALSE(node("n1").attached("db"));
  EXPECT_EQ(controller_->cluster().declaration("db"), nullptr);
}

// --- joining -----------------------------------------------------------------------------

TEST_F(NodeClusterCommandTest, ANodeThatWasUsedByItselfDoesNotJoin) {
  auto& n3 = *nodes_.emplace("n3", std::make_unique<ClusterNode>("n3", now_.steady)).first->second;
  n3.start();
  // As an administrator left it, before there was a controller.
  n3.declare_by_itself("{id: old, owner: ada, workflow: r9}");
  connect("n3");
  pump();
  EXPECT_THAT(n3.part().text(), HasSubstr("not joined: join: 1 workloads are declared"));
  EXPECT_FALSE(n3.part().terms());
  EXPECT_THAT(reports("n3"), IsEmpty());
  EXPECT_THAT(controller_->node_status()[2].trouble, HasSubstr("a node joins empty"));
  EXPECT_TRUE(n3.process->world().workloads.contains("old"));
  // What the cluster has declared is not known here: nobody's is what it would be taken for.
  const auto answer = n3.attach("new");
  EXPECT_EQ((**answer).error().code, ErrorCode::kNotInForce);
  EXPECT_THAT(told(answer), HasSubstr("not joined: join"));
  n3.forget_by_itself("old");
  pass(2s);
  EXPECT_EQ(n3.part().text(), "connected to c1");
  EXPECT_EQ(n3.part().trouble(), "");
}

TEST_F(NodeClusterCommandTest, AnotherClusterIsRefused) {
  mesh::v1::ToNode message;
  auto& welcome = *message.mutable_welcome();
  welcome.set_cluster("other");
  welcome.set_zone("mesh.internal");
  welcome.set_pool4("10.0.0.0/16");
  welcome.set_block4("10.0.1.0/24");
  node("n1").part().on_message(message, now_.steady);
  EXPECT_THAT(node("n1").part().trouble(), HasSubstr("this node is of cluster test"));
  EXPECT_EQ(node("n1").process->world().settings.pool4->to_string(), "10.213.0.0/16");
}

// --- node ports --------------------------------------------------------------------------

TEST_F(NodeClusterCommandTest, OfTwoThatAskForAPortTheLaterHasAProblem) {
  declare("{id: web, owner: ada, publish: [{port: 80, node_port: 25000}]}");
  attach("n1", "web");
  declare("{id: app, owner: ada, publish: [{port: 80, node_port: 25000}]}");
  attach("n1", "app");
  const auto published = node("n1").elements("pub4");
  ASSERT_THAT(published, SizeIs(1));
  EXPECT_THAT(published[0], HasSubstr(node("n1").address("web")));
  EXPECT_THAT(node("n1").part().problems().at("app"),
              ElementsAre(HasSubstr("node_port 25000/tcp is web's")));
  forget("web");
  EXPECT_THAT(node("n1").elements("pub4"), ElementsAre(HasSubstr(node("n1").address("app"))));
  EXPECT_THAT(node("n1").part().problems(), IsEmpty());
}

TEST_F(NodeClusterCommandTest, AChosenPortStaysOverARestart) {
  declare("{id: web, owner: ada, publish: [{port: 80}]}");
  attach("n1", "web");
  const auto published = node("n1").elements("pub4");
  ASSERT_THAT(published, SizeIs(1));
  disconnect("n1");
  node("n1").start();
  connect("n1");
  pump();
  EXPECT_EQ(node("n1").elements("pub4"), published);
}

// --- services ----------------------------------------------------------------------------

TEST_F(NodeClusterCommandTest, TwoServicesOfOneAddressAreRefused) {
  mesh::v1::SliceChange first, second;
  add_service(first, "a", "10.214.0.1");
  EXPECT_EQ(slice("n1", first), "taken");
  add_service(second, "b", "10.214.0.1");
  EXPECT_EQ(slice("n1", second), "SERVICE b: vips: 10.214.0.1 is SERVICE a's");
  // In a whole slice the one that it has not named is of a time that is over.
  second.set_snapshot(true);
  EXPECT_EQ(slice("n1", second), "taken");
  EXPECT_THAT(node("n1").process->world().services, SizeIs(1));
}

// --- reports -----------------------------------------------------------------------------

TEST_F(NodeClusterCommandTest, WhatIsInForceIsReported) {
  declare("{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 1}]}");
  attach("n1", "db");
  listens("n1", "db", 1);
  const auto detached = node("n1").detach("db");
  pump();
  EXPECT_THAT(reports("n1"), ElementsAre("all", " db", " db!", " -db"));
  const auto& generations = node("n1").process->generations();
  EXPECT_EQ(node("n1").part().reported(), generations.named);
}

TEST_F(NodeClusterCommandTest, WhatIsOnlyPlannedIsNotReported) {
  declare("{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 1}]}");
  attach("n1", "db");
  node("n1").kernel.fail_next(FakeKernel::Call::kTransaction, FakeKernel::kForEver);
  listens("n1", "db", 1);
  EXPECT_EQ(reports("n1").back(), " db");
  EXPECT_LT(node("n1").part().reported(), node("n1").process->generations().stored);
  node("n1").kernel.work_again();
  pass(10s);
  EXPECT_EQ(reports("n1").back(), " db!");
}

TEST_F(NodeClusterCommandTest, ReadyAtAttachIsReportedSo) {
  declare("{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 1}], ready: NONE}");
  attach("n1", "db");
  EXPECT_EQ(reports("n1").back(), " db!");
}

}  // namespace
}  // namespace meshd
