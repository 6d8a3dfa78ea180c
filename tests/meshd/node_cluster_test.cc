// Nodes and a controller together: what is in the nodes' kernels after a declaration, while a
// confirmation is on its way, without a controller, with another one, and after a crash.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/cluster_nodes.h"
#include "tests/support/fault_vfs.h"

namespace meshd {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

constexpr const char* kPair =
    "{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 5432}]},"
    "{id: worker, owner: ada, workflow: r1, peers: [{name: db}]}";

class NodeClusterTest : public ClusterNodesTest {
 protected:
  // db on n1, worker on n2, and the flow between them confirmed.
  void run_pair() {
    declare(kPair);
    attach("n1", "db");
    attach("n2", "worker");
    listens("n1", "db", 5432);
    ASSERT_EQ(node("n2").elements("allow4"), elements_of("worker", "db"));
  }
  // "allow4 10.213.1.1 . 10.213.0.1 . tcp . 5432"
  [[nodiscard]] std::string flow(const std::string& set, const std::string& consumer,
                                 const std::string& provider) {
    return fmt::format("{} {} . {} . tcp . 5432", set, node("n2").address(consumer),
                       node("n1").address(provider));
  }
  std::vector<std::string> elements_of(const std::string& consumer, const std::string& provider) {
    return {flow("allow4", consumer, provider)};
  }
  std::map<std::string, std::vector<std::string>> kernels() {
    std::map<std::string, std::vector<std::string>> all;
    for (const auto& [name, one] : nodes_) all[name] = one->elements();
    return all;
  }
  int writes() {
    int sum = 0;
    for (const auto& [name, one] : nodes_) sum += one->kernel.writes();
    return sum;
  }
  std::vector<std::string> refusals(const std::string& name) {
    std::vector<std::string> reasons;
    for (const auto& message : node(name).said) {
      if (message.has_refused()) reasons.push_back(message.refused().reason());
    }
    return reasons;
  }
};

// --- flows between nodes -----------------------------------------------------------------

TEST_F(NodeClusterTest, ADeclaredFlowIsOnBothNodes) {
  run_pair();
  EXPECT_EQ(node("n1").address("db"), "10.213.0.1");
  EXPECT_EQ(node("n2").address("worker"), "10.213.1.1");
  for (const auto* name : {"n1", "n2"}) {
    EXPECT_THAT(node(name).elements("allow4"), ElementsAre(flow("allow4", "worker", "db")));
    EXPECT_THAT(node(name).elements("allow6"), SizeIs(1));
    EXPECT_THAT(node(name).elements("hold"), IsEmpty()) << name;
    EXPECT_EQ(node(name).process->behind(), "");
  }
  const auto slots = node("n2").elements("vip4");
  EXPECT_THAT(slots, SizeIs(policy::kSlots));
  EXPECT_THAT(slots, Contains(HasSubstr(" : " + node("n1").address("db"))));
  EXPECT_THAT(node("n1").elements("local4"), ElementsAre(HasSubstr("10.213.0.1")));
  EXPECT_THAT(node("n1").elements("remote4"), ElementsAre(HasSubstr("10.213.1.0")));
  expect_hashes_agree();
}

TEST_F(NodeClusterTest, BeforeTheConfirmationTheConsumerIsHeld) {
  declare(kPair);
  attach("n2", "worker");
  const auto asked = node("n1").attach("db");
  // The provider's node knows of the consumer, and its answer has not arrived.
  while (!*asked) ASSERT_TRUE(pump_once());
  node("n1").process->on_listening("db", {{5432, {true, true}}}, {}, now_.steady);
  for (int i = 0; i < 100 && node("n2").address("db") == "nowhere"; ++i) pump_once();
  ASSERT_NE(node("n2").address("db"), "nowhere");
  node("n1").mute = true;
  pump();
  EXPECT_THAT(node("n1").elements("allow4"), ElementsAre(flow("allow4", "worker", "db")));
  EXPECT_THAT(node("n2").elements("allow"), IsEmpty());
  EXPECT_THAT(node("n2").elements("hold4"), Contains(flow("hold4", "worker", "db")));
  node("n1").mute = false;
  pump();
  EXPECT_THAT(node("n2").elements("allow4"), ElementsAre(flow("allow4", "worker", "db")));
  EXPECT_THAT(node("n2").elements("hold"), IsEmpty());
}

TEST_F(NodeClusterTest, AnAttachOfWhatIsNotDeclaredYetWaitsForIt) {
  const auto answer = node("n1").attach("db");
  pump();
  EXPECT_EQ(told(answer), "pending");
  declare(kPair);
  EXPECT_EQ(told(answer), "OK");
}

TEST_F(NodeClusterTest, AnAttachWithoutADeclarationIsToldSo) {
  const auto answer = node("n1").attach("db");
  const auto hurried = node("n1").attach("db", now_.steady + 5s);
  pass(6s);
  EXPECT_THAT(told(hurried), HasSubstr("no declaration arrived within 5 s"));
  EXPECT_EQ(told(answer), "pending");
  pass(30s);
  EXPECT_EQ(told(answer),
            "attach: db: no declaration arrived within 30 s (controller: connected to c1)");
}

// Whoever starts containers takes "not found" for nobody's (engines/attach.cc).
TEST_F(NodeClusterTest, OnlyAControllerThatCanKnowSaysThatThereIsNone) {
  const auto code = [](const Answer& answer) { return (**answer).error().code; };
  const auto ask = [&](const std::function<void()>& meanwhile) {
    const auto answer = node("n1").attach("db", now_.steady + 4s);
    pump();
    meanwhile();
    pump();
    pass(5s);
    return answer;
  };
  EXPECT_EQ(code(ask([] {})), ErrorCode::kNotFound);
  EXPECT_EQ(code(ask([&] { disconnect("n1"); })), ErrorCode::kNotInForce);
  // One that asks elsewhere, and has no answer; and has one.
  controller_->tell_waits([](const std::string&) {});
  connect("n1");
  pump();
  EXPECT_EQ(code(ask([] {})), ErrorCode::kNotInForce);
  EXPECT_EQ(code(ask([&] { controller_->say_unknown("db", now_); })), ErrorCode::kNotFound);
  // What it said to another session says nothing for the next.
  EXPECT_EQ(code(ask([&] {
              controller_->say_unknown("db", now_);
              pump();
              disconnect("n1");
              connect("n1");
            })),
            ErrorCode::kNotInForce);
}

TEST_F(NodeClusterTest, WhatIsDeclaredAndNotToBeHadYetIsNotNobodys) {
  run_pair();
  const auto answer = node("n2").attach("db", now_.steady + 4s);
  pass(4s);
  EXPECT_EQ((**answer).error().code, ErrorCode::kNotInForce) << "it is attached elsewhere";
}

TEST_F(NodeClusterTest, AnAttachOfWhatRunsElsewhereIsRefused) {
  run_pair();
  const auto answer = node("n2").attach("db");
  pass(6s);
  EXPECT_THAT(told(answer), HasSubstr("is attached to node n1"));
}

TEST_F(NodeClusterTest, AContainerMovesBeforeItsOldNodeIsHeard) {
  run_pair();
  node("n1").mute = true;
  const auto left = node("n1").detach("db");
  EXPECT_EQ(told(left), "OK");
  const auto answer = node("n2").attach("db");
  pump();
  EXPECT_EQ(told(answer), "pending");
  node("n1").mute = false;
  pump();
  EXPECT_EQ(told(answer), "OK");
}

TEST_F(NodeClusterTest, AForcedDeleteDetaches) {
  run_pair();
  forget("db");
  EXPECT_FALSE(node("n1").attached("db"));
  EXPECT_FALSE(node("n1").process->world().workloads.contains("db"));
  EXPECT_THAT(node("n1").kernel.links(), IsEmpty());
  EXPECT_THAT(node("n1").elements("allow"), IsEmpty());
  EXPECT_THAT(node("n2").elements("allow"), IsEmpty());
  EXPECT_THAT(node("n2").process->world().confirmed, IsEmpty());
  expect_hashes_agree();
}

TEST_F(NodeClusterTest, ARevokedFlowIsCutAtBothEndsAndGrantedAgainItWaits) {
  run_pair();
  declare("{id: worker, owner: ada, workflow: r1}");
  EXPECT_THAT(node("n1").elements("allow"), IsEmpty());
  EXPECT_THAT(node("n2").elements("allow"), IsEmpty());
  node("n1").mute = true;
  declare(kPair);
  EXPECT_THAT(node("n2").elements("allow"), IsEmpty()) << "an old confirmation says nothing";
  EXPECT_THAT(node("n2").elements("hold4"), Contains(flow("hold4", "worker", "db")));
  node("n1").mute = false;
  pump();
  EXPECT_THAT(node("n2").elements("allow4"), ElementsAre(flow("allow4", "worker", "db")));
}

TEST_F(NodeClusterTest, AnotherAddressIsAnotherFlow) {
  run_pair();
  node("n1").mute = true;  // what it says from now on nobody has heard
  node("n2").mute = true;
  ASSERT_EQ(told(node("n2").detach("worker")), "OK");
  ASSERT_EQ(told(node("n2").attach("worker")), "OK");
  EXPECT_EQ(node("n2").address("worker"), "10.213.1.2");
  EXPECT_THAT(node("n2").elements("allow"), IsEmpty());
  EXPECT_THAT(node("n2").elements("hold4"), Contains(flow("hold4", "worker", "db")));
  node("n1").mute = node("n2").mute = false;
  pump();
  EXPECT_THAT(node("n2").elements("allow4"), ElementsAre(flow("allow4", "worker", "db")));
  EXPECT_THAT(node("n1").elements("allow4"), ElementsAre(flow("allow4", "worker", "db")));
}

TEST_F(NodeClusterTest, WhatGrowsIsHeldAndWhatWasConfirmedGoesOn) {
  run_pair();
  node("n1").mute = true;
  declare("{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 5432}, {port: 9000}]}");
  EXPECT_THAT(node("n2").elements("allow4"), ElementsAre(flow("allow4", "worker", "db")));
  EXPECT_THAT(node("n2").elements("hold4"), Contains(HasSubstr("tcp . 9000")));
  node("n1").mute = false;
  pump();
  EXPECT_THAT(node("n2").elements("allow4"), SizeIs(2));
}

// --- without a controller, and with another ----------------------------------------------

TEST_F(NodeClusterTest, AnotherControllerChangesNothingInAnyKernel) {
  run_pair();
  const auto before = kernels();
  const auto written = writes();
  new_controller("c2");
  connect_all();
  EXPECT_EQ(kernels(), before);
  EXPECT_EQ(writes(), written);
  EXPECT_EQ(node("n1").part().text(), "connected to c2");
  expect_hashes_agree();
  pass(30s);
  EXPECT_EQ(kernels(), before);
}

TEST_F(NodeClusterTest, ADayWithoutAControllerChangesNothing) {
  run_pair();
  const auto before = kernels();
  const auto written = writes();
  lose_controller();
  pass_alone(12h);
  node("n2").start();  // and a restart in the middle of it
  pass_alone(12h);
  EXPECT_EQ(kernels(), before);
  EXPECT_EQ(writes(), written);
  ASSERT_EQ(told(node("n1").attach("db")), "OK") << "repeated, and still its own";
  new_controller("c2");
  connect_all();
  pass(30s);
  EXPECT_EQ(kernels(), before);
  EXPECT_EQ(writes(), written);
  EXPECT_EQ(controller_->cluster().placement("db")->node, "n1");
  expect_hashes_agree();
}

TEST_F(NodeClusterTest, AKilledNodeComesBackAsItWas) {
  run_pair();
  const auto before = kernels();
  const auto written = writes();
  const auto hash = node("n2").part().hash();
  disconnect("n2");
  node("n2").start();
  EXPECT_EQ(kernels(), before);
  EXPECT_EQ(writes(), written);
  EXPECT_EQ(node("n2").part().hash(), hash);
  const auto slices = node("n2").part().revision();
  connect("n2");
  pump();
  EXPECT_EQ(kernels(), before);
  EXPECT_EQ(writes(), written);
  EXPECT_LE(node("n2").part().revision(), slices + 1) << "confirmations at most";
  expect_hashes_agree();
}

TEST_F(NodeClusterTest, ARebootForgetsWhatWasAttachedAndConfirmed) {
  run_pair();
  disconnect("n2");
  node("n2").kernel = FakeKernel();
  node("n2").boot = "boot-2";
  node("n2").start();
  EXPECT_THAT(node("n2").process->world().confirmed, IsEmpty());
  EXPECT_FALSE(node("n2").attached("worker"));
  EXPECT_THAT(node("n2").elements("allow"), IsEmpty());
  connect("n2");
  pump();
  EXPECT_THAT(node("n1").elements("allow"), IsEmpty());
  attach("n2", "worker");
  EXPECT_THAT(node("n2").elements("allow4"), ElementsAre(flow("allow4", "worker", "db")));
}

TEST_F(NodeClusterTest, TheNodeStandsAlone) {
  declare(std::string(kPair) + ",{id: near, owner: ada, workflow: r1, peers: [{name: db}]}");
  attach("n1", "db");
  attach("n1", "near");
  attach("n2", "worker");
  for (const auto* name : {"n1", "n2"}) disconnect(name);
  EXPECT_EQ(node("n1").part().text(), "away since 1970-01-01T01:00:00Z: cut");
  ASSERT_EQ(told(node("n1").detach("near")), "OK");
  EXPECT_THAT(node("n1").elements("allow4"), SizeIs(1));
  ASSERT_EQ(told(node("n1").attach("near")), "OK");
  node("n1").process->on_listening("db", {{5432, {true, true}}}, {}, now_.steady);
  EXPECT_THAT(node("n1").elements("allow4"), SizeIs(2));
  EXPECT_THAT(node("n1").elements("vip4"), SizeIs(policy::kSlots));
  const auto unknown = node("n1").attach("nobody");
  EXPECT_EQ(told(unknown), "pending");
  connect_all();
  EXPECT_THAT(node("n2").elements("vip4"), SizeIs(policy::kSlots)) << "it was told later";
}

TEST_F(NodeClusterTest, NothingIsSweptBeforeAllOfTheSliceIsThere) {
  std::string many = kPair;
  for (int i = 0; i < 40; ++i) {
    many += fmt::format(",{{id: w{}, owner: ada, workflow: r1, peers: [{{name: db}}]}}", i);
  }
  declare(many);
  attach("n1", "db");
  attach("n2", "worker");
  for (int i = 0; i < 40; ++i) attach("n2", fmt::format("w{}", i));
  listens("n1", "db", 5432);
  const auto before = kernels();
  ASSERT_THAT(before.at("n1"), SizeIs(testing::Gt(82U)));
  // n1 misses a deletion and comes back to a slice in several parts.
  disconnect("n1");
  forget("w0");
  connect("n1");
  while (node("n1").part().revision() == 0 || node("n1").down.empty() ||
         !node("n1").down.front().has_slice()) {
    ASSERT_TRUE(pump_once());
  }
  ASSERT_TRUE(node("n1").down.front().slice().snapshot());
  pump_once();  // the first part, and no more
  EXPECT_EQ(node("n1").elements(), before.at("n1"));
  disconnect("n1");
  EXPECT_EQ(node("n1").elements(), before.at("n1")) << "neither by what is missing";
  connect("n1");
  pump();
  EXPECT_THAT(node("n1").elements("allow4"), SizeIs(40));
  EXPECT_FALSE(node("n1").process->world().workloads.contains("w0"));
  expect_hashes_agree();
}

// --- refusals ----------------------------------------------------------------------------

TEST_F(NodeClusterTest, AKernelThatIsFullRefusesTheSliceUntilThereIsRoom) {
  declare(kPair);
  attach("n2", "worker");
  node("n2").kernel.fail_next(FakeKernel::Call::kTransaction, FakeKernel::kForEver);
  const auto asked = node("n1").attach("db");
  pump();
  EXPECT_EQ(told(asked), "OK");
  EXPECT_THAT(refusals("n2"), IsEmpty()) << "it tries for a while";
  pass(7s);
  EXPECT_THAT(refusals("n2"), Contains(HasSubstr("stored, not in force")));
  EXPECT_THAT(controller_->node_status()[1].trouble, HasSubstr("stored, not in force"));
  node("n2").kernel.work_again();
  pass(20s);
  EXPECT_EQ(node("n2").process->behind(), "");
  EXPECT_THAT(node("n2").elements("allow4"), ElementsAre(flow("allow4", "worker", "db")));
  EXPECT_EQ(controller_->node_status()[1].trouble, "");
  expect_hashes_agree();
}

TEST_F(NodeClusterTest, AnOldRevisionChangesNothing) {
  run_pair();
  const auto before = kernels();
  mesh::v1::SliceChange replay;
  replay.set_revision(1);
  auto& gone = *replay.add_gone();
  gone.set_key("db");
  std::string why;
  node("n2").part().on_slice(replay, now_.steady, [&](Result<std::uint64_t> answer) {
    why = answer ? "taken" : answer.error().what;
  });
  EXPECT_THAT(why, HasSubstr("revision 1: "));
  EXPECT_EQ(kernels(), before);
}

TEST_F(NodeClusterTest, ABadItemRefusesTheWholeChange) {
  run_pair();
  const auto before = kernels();
  const auto hash = node("n2").part().hash();
  mesh::v1::SliceChange change;
  change.set_revision(1000);
  change.add_gone()->set_key("db");
  mesh::v1::SliceService service;
  service.set_owner("ada");
  service.add_vips("192.0.2.1");
  auto& item = *change.add_items();
  item.mutable_key()->set_kind(mesh::v1::SliceKey::Kind::SERVICE);
  item.mutable_key()->set_key("r1/db");
  item.set_value(service.SerializeAsString());
  std::string why;
  node("n2").part().on_slice(change, now_.steady, [&](Result<std::uint64_t> answer) {
    why = answer ? "taken" : answer.error().what;
  });
  EXPECT_EQ(why, "SERVICE r1/db: vips[0]: 192.0.2.1 is not in 10.214.0.0/16");
  EXPECT_EQ(kernels(), before);
  EXPECT_EQ(node("n2").part().hash(), hash);
}

TEST_F(NodeClusterTest, AStoreThatFailsTakesTheChangeBackWhole) {
  run_pair();
  FaultVfs::instance().reset();
  disconnect("n2");
  node("n2").vfs = FaultVfs::kName;
  node("n2").start();
  connect("n2");
  pump();
  const auto before = node("n2").elements();
  FaultVfs::instance().fail_once(1, SQLITE_FULL);
  declare("{id: far, owner: ada, workflow: r1, peers: [{id: worker}]}");
  forget("worker");
  EXPECT_THAT(refusals("n2"), ElementsAre(HasSubstr("database or disk is full")));
  EXPECT_TRUE(node("n2").attached("worker"));
  EXPECT_EQ(node("n2").elements(), before);
  pass(2s);
  EXPECT_FALSE(node("n2").process->world().workloads.contains("worker"));
  EXPECT_THAT(node("n2").elements("allow"), IsEmpty());
  expect_hashes_agree();
}

TEST_F(NodeClusterTest, AKernelThatDoesNotAnswerChangesNothing) {
  run_pair();
  const auto before = kernels();
  const auto& world = node("n2").process->world();
  const auto hash = node("n2").part().hash();
  mesh::v1::SliceChange change;
  change.set_revision(1000);
  change.add_gone()->set_key("db");
  change.add_gone()->set_key("worker");
  node("n2").kernel.fail_next(FakeKernel::Call::kListening);
  mesh::v1::SliceWorkload own;
  own.set_own(true);
  own.mutable_declaration()->set_id("web");
  own.mutable_declaration()->set_owner("ada");
  own.mutable_declaration()->add_publish()->set_port(80);
  auto& item = *change.add_items();
  item.mutable_key()->set_key("web");
  item.set_value(own.SerializeAsString());
  std::string why;
  node("n2").part().on_slice(change, now_.steady, [&](Result<std::uint64_t> answer) {
    why = answer ? "taken" : answer.error().what;
  });
  EXPECT_THAT(why, HasSubstr("sock_diag"));
  EXPECT_EQ(kernels(), before);
  EXPECT_TRUE(world.workloads.contains("db"));
  EXPECT_EQ(node("n2").part().hash(), hash);
}

}  // namespace
}  // namespace meshd
