// What is refused before it changes anything, and what a change is said to do: room in the
// kernel's sets, connections that would be cut, egress beside another interface, waiting by
// any kind of name.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "meshd/node.h"
#include "tests/support/node_fixture.h"

namespace meshd {
namespace {

using policy::Change;
using policy::SetId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using Event = mesh::v1::Event;

class NodeChangeTest : public NodeFixture {
 protected:
  Result<std::vector<Change>> plan(std::string_view yaml) {
    return node_->plan(policy::read_declarations("test", yaml).value(), now_);
  }
  // "worker -> db tcp/6379: 1 open connection ends", of cut connections.
  std::vector<std::string> cuts(std::string_view yaml) {
    const auto changes = plan(yaml);
    EXPECT_TRUE(changes) << changes.error().what;
    std::vector<std::string> lines;
    if (!changes) return lines;
    for (const auto& change : *changes) {
      if (change.kind != Change::Kind::kConnectionCut) continue;
      lines.push_back(change.subject + ": " + change.detail);
    }
    EXPECT_TRUE(std::ranges::is_sorted(*changes, {}, &Change::kind));
    return lines;
  }
};

// --- connections that would be cut -------------------------------------------------------

class PlanCutTest : public NodeChangeTest {
 protected:
  static constexpr std::string_view kWithoutPeers =
      "workloads: [{id: worker, owner: ada, workflow: wf1}]";
  void SetUp() override {
    ASSERT_EQ(told(apply("workloads: [{id: db, owner: ada, workflow: wf1, name: db, serves: "
                         "[{port: 6379}]}, {id: worker, owner: ada, workflow: wf1, peers: "
                         "[{name: db}]}]")),
              "OK");
    ASSERT_EQ(told(attach("db")), "OK");
    ASSERT_EQ(told(attach("worker")), "OK");
    listens("db", 6379);
  }
  policy::LiveConnection connection() {
    const auto vip = *node_->world().services.begin()->second.vip4;
    return {Proto::kTcp, *attachment("worker").v4, vip, 6379, *attachment("db").v4, 6379};
  }
};

TEST_F(PlanCutTest, OpenConnectionOfARevokedPeerIsTold) {
  EXPECT_THAT(cuts(kWithoutPeers), ElementsAre());
  kernel_.live.list = {connection(), connection()};
  EXPECT_THAT(cuts(kWithoutPeers), ElementsAre(StartsWith("worker -> db tcp/6379: 2 ")));
}

TEST_F(PlanCutTest, ApplyTellsTheSameLines) {
  kernel_.live.list = {connection()};
  std::optional<mesh::v1::ApplyReply> reply;
  node_->apply(policy::read_declarations("t", kWithoutPeers).value(), now_,
               [&](Result<mesh::v1::ApplyReply> r) { reply = r.value(); });
  ASSERT_TRUE(reply);
  const auto& changes = reply->changes();
  EXPECT_TRUE(std::ranges::any_of(changes, [](const auto& change) {
    return change.kind() == mesh::v1::Change::Kind::CONNECTION_CUT;
  }));
}

TEST_F(PlanCutTest, ListThatWasNotReadToItsEndSaysSo) {
  kernel_.live.list = {connection()};
  kernel_.live.more = true;
  const auto lines = cuts(kWithoutPeers);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[1], "and more: connection tracking holds more than were looked at");
}

TEST_F(PlanCutTest, UnreadableConnectionsFailThePlan) {
  kernel_.fail_next(FakeKernel::Call::kConnections);
  EXPECT_FALSE(plan(kWithoutPeers));
  EXPECT_TRUE(plan(kWithoutPeers)) << "and change nothing";
}

// --- room --------------------------------------------------------------------------------

class NodeRoomTest : public NodeChangeTest {
 protected:
  // 60 publications for 60 sources each: 3,600 intervals of src4, which holds 16,384.
  static std::string many_sources(int number) {
    auto yaml = fmt::format("{{id: w{}, owner: ada, workflow: wf1, publish: [", number);
    for (int port = 0; port < 60; ++port) {
      yaml += fmt::format("{}{{port: {}, allow_from: [", port == 0 ? "" : ", ", 1000 + port);
      for (int i = 0; i < 60; ++i) {
        yaml += fmt::format("{}{}.{}.{}.0", i == 0 ? "" : ", ", 20 + number, port, i);
      }
      yaml += "]}";
    }
    return "workloads: [" + yaml + "]}]";
  }
  static std::string few_sources(int number) {
    return fmt::format("workloads: [{{id: w{}, owner: ada, workflow: wf1}}]", number);
  }
  // As many as there is room for, attached.
  void fill() {
    for (int i = 0; i < 4; ++i) {
      ASSERT_EQ(told(apply(many_sources(i))), "OK");
      ASSERT_EQ(told(attach(fmt::format("w{}", i))), "OK");
    }
    ASSERT_EQ(told(apply(few_sources(4))), "OK");
    ASSERT_EQ(told(attach("w4")), "OK");
    ASSERT_EQ(kernel_.count(SetId::kSource4), 4 * 3600U);
  }
};

TEST_F(NodeRoomTest, ApplyForWhichThereIsNoRoomChangesNothing) {
  fill();
  const auto elements = elements_in_kernel();
  const auto world = node_->world().workloads.find("w4")->second.declaration;
  const auto ports = node_->world().node_ports;
  const auto stored = store_->generation();
  const int writes = kernel_.writes();
  const std::string why = "the kernel's set src4 would need 18000 elements and holds 16384";
  const auto planned = plan(many_sources(4));
  ASSERT_FALSE(planned) << "a plan fails where the apply would";
  EXPECT_EQ(planned.error().what, "plan: " + why);
  const auto answer = apply(many_sources(4));
  EXPECT_EQ(told(answer), "apply: " + why);
  EXPECT_EQ((**answer).error().code, ErrorCode::kExhausted);
  EXPECT_EQ(elements_in_kernel(), elements);
  EXPECT_EQ(elements_planned(), elements);
  EXPECT_EQ(node_->world().workloads.find("w4")->second.declaration, world);
  EXPECT_EQ(node_->world().node_ports, ports);
  EXPECT_EQ(store_->generation(), stored);
  EXPECT_EQ(kernel_.writes(), writes);
  EXPECT_EQ(told(apply(few_sources(0))), "OK") << "and later changes go on as ever";
  EXPECT_EQ(told(apply(many_sources(4))), "OK");
  expect_kernel_is_as_planned();
}

TEST_F(NodeRoomTest, AttachForWhichThereIsNoRoomChangesNothing) {
  fill();
  ASSERT_EQ(told(detach("w4")), "OK");
  ASSERT_EQ(told(apply(many_sources(4))), "OK") << "nothing in the kernel for a declaration";
  const auto elements = elements_in_kernel();
  EXPECT_EQ(told(attach("w4")),
            "attach w4: the kernel's set src4 would need 18000 elements and holds 16384");
  EXPECT_FALSE(attached("w4"));
  EXPECT_EQ(elements_planned(), elements);
  expect_kernel_is_as_planned();
}

// Rows of egress are each container's own, while the profile is kept once: 18 times 3,600 fit
// into 65,536, and 19 times do not.
TEST_F(NodeRoomTest, RowsOfEgressNeedRoomForEachContainer) {
  std::string egress;
  for (int i = 0; i < 60; ++i) {
    egress += fmt::format("{}{{cidr: 20.0.{}.0/24, ports: [", i == 0 ? "" : ", ", i);
    for (int port = 0; port < 60; ++port) {
      egress += fmt::format("{}{{port: {}}}", port == 0 ? "" : ", ", 2 * port + 1);
    }
    egress += "]}";
  }
  for (int i = 0; i < 19; ++i) {
    const auto id = fmt::format("w{}", i);
    ASSERT_EQ(told(apply(fmt::format(
                  "workloads: [{{id: {}, owner: ada, workflow: wf1, egress: [{}]}}]", id, egress))),
              "OK");
    const auto answer = told(attach(id));
    EXPECT_EQ(answer, i < 18 ? "OK"
                             : "attach w18: the kernel's set egc4 would need 68400 elements and "
                               "holds 65536");
  }
  EXPECT_EQ(kernel_.count(SetId::kEgress4), 3600U);
}

// VIP slots are not there yet at the apply, and must be counted all the same: 65 services of
// 64 ports and 16 slots are 66,560, where the set holds 65,536.
TEST_F(NodeRoomTest, SlotsThatReadinessWouldFillAreCountedBefore) {
  std::string refused;
  for (int i = 0; i < 65 && refused.empty(); ++i) {
    auto yaml = fmt::format(
        "workloads: [{{id: s{0}, owner: ada, workflow: wf1, name: n{0}, "
        "serves: [",
        i);
    for (int port = 0; port < 64; ++port) {
      yaml += fmt::format("{}{{port: {}}}", port == 0 ? "" : ", ", 1001 + 2 * port);
    }
    const auto declared = told(apply(yaml + "]}]"));
    const auto id = fmt::format("s{}", i);
    refused = declared != "OK" ? declared : told(attach(id));
    if (refused == "OK") refused.clear();
  }
  EXPECT_THAT(refused, HasSubstr("the kernel's set vip"));
  EXPECT_EQ(kernel_.count(SetId::kVip4), 0U) << "nothing listens anywhere";
}

TEST_F(NodeChangeTest, FullSetIsToldInPlainWords) {
  ASSERT_EQ(told(apply("workloads: [{id: a, owner: ada, workflow: wf1}]")), "OK");
  kernel_.fail_next(FakeKernel::Call::kTransaction, FakeKernel::kForEver);
  kernel_.failure = ENFILE;
  const auto answer = attach("a");
  EXPECT_THAT(node_->behind(), StartsWith("a set of the kernel is full: "));
}

// --- egress beside another interface -------------------------------------------------------

class BesideTest : public NodeChangeTest {
 protected:
  static constexpr std::string_view kPlain = "workloads: [{id: a, owner: ada, workflow: wf1}]";
  static constexpr std::string_view kEgress =
      "workloads: [{id: a, owner: ada, workflow: wf1, egress: [{cidr: 0.0.0.0/0}]}]";
  Answer attach_beside() {
    auto beside = spec("a");
    beside.default_route = false;
    auto answer = std::make_shared<std::optional<Status>>();
    node_->attach(beside, now_, into<policy::Attachment>(answer));
    return answer;
  }
};

TEST_F(BesideTest, EgressIsRefusedBeforeAndAfterTheAttach) {
  ASSERT_EQ(told(apply(kEgress)), "OK");
  EXPECT_THAT(told(attach_beside()), HasSubstr("egress needs the default route"));
  ASSERT_EQ(told(apply(kPlain)), "OK");
  ASSERT_EQ(told(attach_beside()), "OK");
  const std::string why =
      "workload a: egress: it is attached with --no-default-route, which leaves the default "
      "route to another interface; detach it first";
  EXPECT_EQ(told(apply(kEgress)), why);
  const auto planned = plan(kEgress);
  ASSERT_FALSE(planned);
  EXPECT_EQ(planned.error().what, why);
  EXPECT_TRUE(node_->world().workloads.find("a")->second.declaration.egress.empty());
  ASSERT_EQ(told(detach("a")), "OK");
  EXPECT_EQ(told(apply(kEgress)), "OK");
}

TEST_F(BesideTest, RepeatedAttachMustAskForTheSame) {
  ASSERT_EQ(told(apply(kPlain)), "OK");
  ASSERT_EQ(told(attach_beside()), "OK");
  EXPECT_EQ(told(attach_beside()), "OK");
  EXPECT_EQ(told(attach("a")), "attach a: it is attached with --no-default-route; detach it first");
  ASSERT_EQ(told(detach("a")), "OK");
  ASSERT_EQ(told(attach("a")), "OK");
  EXPECT_EQ(told(attach_beside()),
            "attach a: it is attached without --no-default-route; detach it first");
}

// --- waiting by name -------------------------------------------------------------------------

class WaitNameTest : public NodeChangeTest {
 protected:
  std::string wait(const std::string& target) {
    auto text = std::make_shared<std::string>("pending");
    node_->wait(target, seconds(10), ++calls_, now_, [text](Result<mesh::v1::WaitReply> r) {
      *text = !r ? r.error().what : r->ready() ? "ready" : r->reason();
    });
    return *text;
  }
  // A replica that is ready.
  void run(const std::string& id, const std::string& rest) {
    ASSERT_EQ(told(apply("workloads: [{id: " + id + ", owner: ada, " + rest +
                         ", serves: [{port: 80}], ready: NONE}]")),
              "OK");
    ASSERT_EQ(told(attach(id)), "OK");
  }
  std::uint64_t calls_ = 0;
};

TEST_F(WaitNameTest, AnyFormOfANameIsUnderstood) {
  run("i-1", "workflow: wf1, name: db");
  run("i-2", "name: ollama, scope: CLUSTER");
  for (const auto* target :
       {"i-1", "db", "db.wf1", "db.wf1.wf.mesh.internal", "db.wf1.wf.mesh.internal.", "ollama",
        "ollama.svc.mesh.internal", "i-1.id.mesh.internal"}) {
    EXPECT_EQ(wait(target), "ready") << target;
  }
  for (const auto* target :
       {"db.wf2", "db.svc.mesh.internal", "ollama.wf1", "db.mesh.internal", "i-3.id.mesh.internal",
        "db.wf1.wf.elsewhere", "", ".", "mesh.internal"}) {
    EXPECT_EQ(wait(target), fmt::format("wait {}: no workload or service of that name", target));
  }
}

TEST_F(WaitNameTest, BareNameOfSeveralWorkflowsMustBeSaidWhich) {
  run("i-1", "workflow: wf1, name: db");
  ASSERT_EQ(told(apply("workloads: [{id: i-2, owner: ada, workflow: wf2, name: db}]")), "OK");
  EXPECT_EQ(wait("db"), "wait db: several workflows have one: say which: db.wf1, db.wf2");
  EXPECT_EQ(wait("db.wf1"), "ready");
  EXPECT_EQ(wait("db.wf2"), "pending");
}

TEST_F(WaitNameTest, BareNameIsTheClustersFirst) {
  run("i-1", "workflow: wf1, name: db");
  ASSERT_EQ(told(apply("workloads: [{id: i-2, owner: ada, name: db, scope: CLUSTER}]")), "OK");
  EXPECT_EQ(wait("db"), "pending");
  EXPECT_EQ(wait("db.wf1"), "ready");
}

TEST_F(WaitNameTest, ReadyIsToldOnceTheRulesAreInForce) {
  ASSERT_EQ(told(apply("workloads: [{id: i-1, owner: ada, workflow: wf1, name: db, "
                       "serves: [{port: 80}]}]")),
            "OK");
  ASSERT_EQ(told(attach("i-1")), "OK");
  auto text = std::make_shared<std::string>("pending");
  node_->wait("db", seconds(10), ++calls_, now_, [text](Result<mesh::v1::WaitReply> r) {
    *text = r.value().ready() ? "ready" : "not ready";
  });
  kernel_.fail_next(FakeKernel::Call::kCommit);
  listens("i-1", 80);
  EXPECT_EQ(*text, "pending");
  pass(milliseconds(100));
  EXPECT_EQ(*text, "ready");
}

}  // namespace
}  // namespace meshd
