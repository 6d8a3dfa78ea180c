#include "policy/allocate.h"

#include <gtest/gtest.h>

namespace meshd::policy {
namespace {

using namespace std::chrono_literals;
constexpr Duration kRest = 60s;

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

class AllocateTest : public testing::Test {
 protected:
  AllocateTest() {
    world_.settings.vip_pool4 = Prefix::parse("10.214.0.0/29").value();  // six VIPs
    world_.settings.vip_pool6 = Prefix::parse("fd00::/64").value();
    world_.settings.publish_first = 20000;
    world_.settings.publish_last = 20002;
    world_.now = TimePoint(1000s);
  }

  static Declaration service(std::string id, std::string name, std::string owner = "alice") {
    Declaration d;
    d.id = std::move(id);
    d.owner = std::move(owner);
    d.workflow = "run";
    d.name = std::move(name);
    return d;
  }
  static Declaration cluster(std::string id, std::string name, std::string owner = "alice") {
    auto d = service(std::move(id), std::move(name), std::move(owner));
    d.workflow.clear();
    d.scope = Scope::kCluster;
    d.admit = Admit::kOwner;
    return d;
  }
  static Declaration publishing(std::string id, std::optional<std::uint16_t> node_port) {
    Declaration d;
    d.id = std::move(id);
    d.owner = "alice";
    d.scope = Scope::kCluster;
    d.publish.push_back({Proto::kTcp, 80, false, node_port, {}, {}, {}, Access::kOwner});
    return d;
  }

  Result<Outcome> declare_all(std::vector<Declaration> declarations) {
    return declare(world_, std::move(declarations), resting_, &listening_, kRest);
  }
  // Declares and adopts; the test wants it to be taken.
  Outcome take(std::vector<Declaration> declarations) {
    auto outcome = declare_all(std::move(declarations));
    EXPECT_TRUE(outcome) << outcome.error().what;
    if (!outcome) return {};
    adopt(world_, resting_, *outcome);
    return *std::move(outcome);
  }
  // Declares and returns the refusal's text; the world must not have changed by itself.
  std::string refusal(std::vector<Declaration> declarations) {
    const auto outcome = declare_all(std::move(declarations));
    return outcome ? "taken" : outcome.error().what;
  }

  World world_;
  Quarantine resting_;
  ListeningPorts listening_;
};

TEST_F(AllocateTest, ServiceGetsOneVipPerFamilyForAllReplicas) {
  const auto outcome = take({service("db-1", "db"), service("db-2", "db")});
  ASSERT_EQ(outcome.services.size(), 1U);
  const auto& db = world_.services.begin()->second;
  EXPECT_EQ(db.vip4, ip("10.214.0.1"));
  EXPECT_EQ(db.vip6, ip("fd00::1"));
  EXPECT_EQ(db.declared_at, world_.now);
}

TEST_F(AllocateTest, VipStaysWhenDeclaredAgain) {
  take({service("db-1", "db")});
  take({service("web-1", "web")});
  const auto again = take({service("db-2", "db")});
  EXPECT_TRUE(again.services.empty());
  EXPECT_EQ(world_.services.size(), 2U);
}

TEST_F(AllocateTest, WorkflowNameGoesWithItsLastDeclarationAndItsVipRests) {
  take({service("db-1", "db"), service("db-2", "db")});
  adopt(world_, resting_, forget(world_, "db-1", kRest));
  EXPECT_EQ(world_.services.size(), 1U);
  adopt(world_, resting_, forget(world_, "db-2", kRest));
  EXPECT_TRUE(world_.services.empty());
  EXPECT_EQ(resting_.at(ip("10.214.0.1")), world_.now + kRest);
  take({service("web-1", "web")});
  EXPECT_EQ(world_.services.begin()->second.vip4, ip("10.214.0.2"));
  world_.now += kRest;
  take({service("mail-1", "mail")});
  EXPECT_EQ((world_.services.at({Scope::kWorkflow, "run", "mail"}).vip4), ip("10.214.0.1"));
}

TEST_F(AllocateTest, ClusterNameStaysItsOwnersUntilReleased) {
  const ServiceKey key{Scope::kCluster, "", "model"};
  take({cluster("model-1", "model")});
  const auto vip = world_.services.at(key).vip4;
  EXPECT_EQ(release(world_, key, kRest).error().code, ErrorCode::kConflict);
  adopt(world_, resting_, forget(world_, "model-1", kRest));
  EXPECT_EQ(world_.services.at(key).vip4, vip);
  EXPECT_NE(refusal({cluster("other-1", "model", "bob")}).find("belongs to another owner"),
            std::string::npos);
  auto released = release(world_, key, kRest);
  ASSERT_TRUE(released);
  adopt(world_, resting_, *std::move(released));
  EXPECT_EQ(refusal({cluster("other-1", "model", "bob")}), "taken");
}

TEST_F(AllocateTest, ReplicasThatAdmitTheirWorkflowAreOfOneWorkflow) {
  const auto of_run = [](std::string id, std::string run, Admit admit) {
    auto d = cluster(std::move(id), "model");
    d.workflow = std::move(run);
    d.admit = admit;
    return d;
  };
  const auto why =
      "workload model-2: workflow: replicas of model with admit: WORKFLOW must be of one workflow, "
      "and "
      "model-1 is of run-1";
  EXPECT_EQ(refusal({of_run("model-1", "run-1", Admit::kWorkflow),
                     of_run("model-2", "run-2", Admit::kWorkflow)}),
            why);
  take({of_run("model-1", "run-1", Admit::kWorkflow)});
  EXPECT_EQ(refusal({of_run("model-2", "run-2", Admit::kWorkflow)}), why);
  EXPECT_EQ(refusal({of_run("model-2", "run-1", Admit::kWorkflow)}), "taken");
  EXPECT_EQ(refusal({of_run("model-1", "run-1", Admit::kOwner),
                     of_run("model-2", "run-2", Admit::kOwner)}),
            "taken");
}

TEST_F(AllocateTest, NameDeclaredAgainAfterAPauseCountsItsHoldFromNow) {
  const ServiceKey key{Scope::kCluster, "", "model"};
  take({cluster("model-1", "model")});
  adopt(world_, resting_, forget(world_, "model-1", kRest));
  world_.now += 1h;
  take({cluster("model-2", "model")});
  EXPECT_EQ(world_.services.at(key).declared_at, world_.now);
}

TEST_F(AllocateTest, ReplicasMustAgree) {
  auto other = service("db-2", "db");
  other.admit = Admit::kCluster;
  EXPECT_NE(refusal({service("db-1", "db"), other}).find("admit: replicas"), std::string::npos);
  other = service("db-2", "db");
  other.hold = 5s;
  EXPECT_NE(refusal({service("db-1", "db"), other}).find("hold: replicas"), std::string::npos);
  other = service("db-2", "db");
  other.admit_owners = {"bob"};
  EXPECT_NE(refusal({service("db-1", "db"), other}).find("admit_owners: replicas"),
            std::string::npos);
}

TEST_F(AllocateTest, WorkflowBelongsToItsFirstOwner) {
  take({service("db-1", "db", "alice")});
  EXPECT_NE(refusal({service("web-1", "web", "bob")}).find("workflow: run belongs to another"),
            std::string::npos);
  EXPECT_NE(refusal({service("a", "a", "bob"), service("b", "b", "carol")}).find("workflow"),
            std::string::npos);
}

TEST_F(AllocateTest, IdentityIsFixedWhileAttached) {
  take({service("db-1", "db")});
  world_.workloads.at("db-1").attachment.emplace();
  auto changed = service("db-1", "db");
  changed.workflow = "other";
  EXPECT_NE(refusal({changed}).find("workflow: stays"), std::string::npos);
  EXPECT_NE(refusal({service("db-1", "db", "bob")}).find("owner: stays"), std::string::npos);
  changed = service("db-1", "renamed");
  EXPECT_EQ(refusal({changed}), "taken");
}

TEST_F(AllocateTest, TheSameIdTwiceIsRefused) {
  EXPECT_NE(refusal({service("db-1", "db"), service("db-1", "web")}).find("declared twice"),
            std::string::npos);
}

TEST_F(AllocateTest, RepeatingAnApplyChangesNothing) {
  take({service("db-1", "db"), publishing("p", std::nullopt)});
  const auto again = take({service("db-1", "db"), publishing("p", std::nullopt)});
  EXPECT_TRUE(again.declarations.empty());
  EXPECT_TRUE(again.services.empty());
  EXPECT_TRUE(again.node_ports.empty());
  EXPECT_EQ(again.unchanged.size(), 2U);
}

TEST_F(AllocateTest, VipsRunOutWithAReason) {
  for (int i = 0; i < 6; ++i) take({service("s" + std::to_string(i), "n" + std::to_string(i))});
  EXPECT_NE(refusal({service("more", "more")}).find("no VIP is free in 10.214.0.0/29"),
            std::string::npos);
}

TEST_F(AllocateTest, ChosenNodePortIsKeptAndAvoidsDeclaredOnes) {
  take({publishing("a", std::nullopt), publishing("b", 20000)});
  EXPECT_EQ((world_.node_ports.at({"b", Proto::kTcp, 80})), 20000);
  EXPECT_EQ((world_.node_ports.at({"a", Proto::kTcp, 80})), 20001);
  auto more = publishing("a", std::nullopt);
  more.publish.front().label = "changed";
  take({more});
  EXPECT_EQ((world_.node_ports.at({"a", Proto::kTcp, 80})), 20001);
}

TEST_F(AllocateTest, NodePortConflictsAreRefused) {
  take({publishing("a", 20000)});
  EXPECT_NE(refusal({publishing("b", 20000)}).find("node_port 20000/tcp is a's"),
            std::string::npos);
  listening_.insert({Proto::kTcp, 22});
  EXPECT_NE(refusal({publishing("c", 22)}).find("the node itself listens on 22/tcp"),
            std::string::npos);
  listening_.insert({Proto::kTcp, 20001});
  listening_.insert({Proto::kTcp, 20002});
  EXPECT_NE(refusal({publishing("d", std::nullopt)}).find("no node port is free"),
            std::string::npos);
}

TEST_F(AllocateTest, WithdrawnPublicationFreesItsPort) {
  take({publishing("a", 20000)});
  auto none = publishing("a", std::nullopt);
  none.publish.clear();
  take({none});
  EXPECT_TRUE(world_.node_ports.empty());
  EXPECT_EQ(refusal({publishing("b", 20000)}), "taken");
}

// A refused apply leaves nothing behind: neither in the world nor among what rests.
TEST_F(AllocateTest, WhatIsTakenBackIsAsItWas) {
  take({service("db-1", "db"), service("web", "web"), publishing("p", 20000)});
  const auto resting = world_.services.at({Scope::kWorkflow, "run", "web"}).vip4.value();
  resting_[resting] = TimePoint(5s);  // from an earlier life, about to be overwritten
  const auto declared = [&] {
    std::map<std::string, Declaration> all;
    for (const auto& [id, workload] : world_.workloads) all.emplace(id, workload.declaration);
    return all;
  };
  const auto declarations = declared();
  const auto services = world_.services;
  const auto node_ports = world_.node_ports;
  const auto rested = resting_;
  const auto expect_all_as_before = [&](const char* what) {
    EXPECT_EQ(declared(), declarations) << what;
    EXPECT_EQ(world_.services, services) << what;
    EXPECT_EQ(world_.node_ports, node_ports) << what;
    EXPECT_EQ(resting_, rested) << what;
  };
  world_.now += 10s;
  auto outcome = declare_all({service("db-1", "other"), service("web", "more"),
                              service("new", "new"), publishing("p", 20001)});
  ASSERT_TRUE(outcome) << outcome.error().what;
  auto back = adopt(world_, resting_, *outcome);
  EXPECT_EQ(resting_.size(), 4U) << "two names are gone, with two VIPs each";
  adopt(world_, resting_, std::move(back));
  expect_all_as_before("apply");
  back = adopt(world_, resting_, forget(world_, "db-1", kRest));
  EXPECT_EQ(world_.workloads.size(), 2U);
  adopt(world_, resting_, std::move(back));
  expect_all_as_before("delete");
}

TEST_F(AllocateTest, ReservedNamesAreRefused) {
  world_.settings.reserved_names = {"gateway"};
  EXPECT_NE(refusal({service("x", "gateway")}).find("reserved by names.reserved"),
            std::string::npos);
}

}  // namespace
}  // namespace meshd::policy
