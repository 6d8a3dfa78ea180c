// What the node does with a command, told step by step: store, kernel, names, answer.
#include "meshd/node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/node_pair.h"

namespace meshd {
namespace {

using policy::SetId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::HasSubstr;
using Call = FakeKernel::Call;
using Event = mesh::v1::Event;

class NodeTest : public NodePair {};

// --- the straight way ------------------------------------------------------------------

TEST_F(NodeTest, DeclaredAndAttachedPairReachesEachOtherByName) {
  run_pair();
  expect_kernel_is_as_planned();
  EXPECT_EQ(kernel_.count(SetId::kAllow4), 1U);
  EXPECT_EQ(kernel_.count(SetId::kAllow6), 1U);
  EXPECT_EQ(kernel_.count(SetId::kHold4), 0U);
  EXPECT_EQ(name_seen_by(worker(), kName), vip());
  EXPECT_EQ(events(Event::Kind::ATTACHED), 2U);
  EXPECT_EQ(node_->generations().installed, node_->generations().stored);
  EXPECT_EQ(node_->generations().named, node_->generations().stored);
}

TEST_F(NodeTest, NothingIsInTheKernelForADeclarationAlone) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  ASSERT_EQ(told(apply(kWorker)), "OK");
  EXPECT_EQ(kernel_.count(SetId::kAllow4) + kernel_.count(SetId::kLocal4), 0U);
  EXPECT_TRUE(kernel_.links().empty());
}

TEST_F(NodeTest, AServiceThatIsNotReadyHoldsItsConsumers) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  ASSERT_EQ(told(apply(kWorker)), "OK");
  ASSERT_EQ(told(attach("worker")), "OK");
  EXPECT_EQ(kernel_.count(SetId::kHold4), 1U);
  ASSERT_EQ(told(attach("db")), "OK");
  EXPECT_EQ(kernel_.count(SetId::kHold4), 1U);
  EXPECT_EQ(kernel_.count(SetId::kVip4), 0U);
  listens("db", 6379);
  EXPECT_EQ(kernel_.count(SetId::kHold4), 0U);
  EXPECT_EQ(kernel_.count(SetId::kVip4), policy::kSlots);
}

TEST_F(NodeTest, AHoldEndsByItselfWhenItsTimeIsOver) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  ASSERT_EQ(told(apply(kWorker)), "OK");
  ASSERT_EQ(told(attach("worker")), "OK");
  pass(seconds(119));
  EXPECT_EQ(kernel_.count(SetId::kHold4), 1U);
  pass(seconds(2));
  EXPECT_EQ(kernel_.count(SetId::kHold4) + kernel_.count(SetId::kHold6), 0U);
  expect_kernel_is_as_planned();
}

TEST_F(NodeTest, AServiceThatGoesIsWaitedForAgainFromThen) {
  run_pair();
  pass(seconds(1000));
  ASSERT_EQ(told(detach("db")), "OK");
  EXPECT_EQ(kernel_.count(SetId::kHold4), 1U);
  EXPECT_EQ(name_seen_by(worker(), kName), vip()) << "the name stands for the service";
  pass(seconds(119));
  EXPECT_EQ(kernel_.count(SetId::kHold4), 1U);
  pass(seconds(2));
  EXPECT_EQ(kernel_.count(SetId::kHold4), 0U);
}

TEST_F(NodeTest, ReadinessStaysWhenTheServerRestarts) {
  run_pair();
  node_->on_listening("db", {}, {"nothing listens on 6379/tcp"}, now_);
  EXPECT_EQ(kernel_.count(SetId::kVip4), policy::kSlots);
}

TEST_F(NodeTest, AFamilyThatIsNotListenedOnHasNoEndpoint) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  ASSERT_EQ(told(attach("db")), "OK");
  listens("db", 6379, {true, false});
  EXPECT_EQ(kernel_.count(SetId::kVip4), policy::kSlots);
  EXPECT_EQ(kernel_.count(SetId::kVip6), 0U);
  listens("db", 6379, {false, true});
  EXPECT_EQ(kernel_.count(SetId::kVip6), policy::kSlots);
}

TEST_F(NodeTest, DrainingTakesNoNewConnectionsAndKeepsTheOpenOnes) {
  run_pair();
  ASSERT_EQ(told(drain("db")), "OK");
  EXPECT_EQ(kernel_.count(SetId::kVip4), 0U);
  EXPECT_EQ(kernel_.count(SetId::kDrain4), 1U);
  EXPECT_EQ(kernel_.count(SetId::kAllow4), 1U);
  for (const auto& request : kernel_.erased) {
    EXPECT_TRUE(request.addresses.empty());
    for (const auto& cut : request.translations) EXPECT_TRUE(cut.only_unanswered);
  }
  restart();
  EXPECT_EQ(kernel_.count(SetId::kDrain4), 1U);
}

TEST_F(NodeTest, RevokedPeerLosesRulesAndName) {
  run_pair();
  ASSERT_EQ(told(apply(kWorkerWithoutPeers)), "OK");
  EXPECT_EQ(kernel_.count(SetId::kAllow4) + kernel_.count(SetId::kAllow6), 0U);
  EXPECT_EQ(name_seen_by(worker(), kName), "NXDOMAIN");
  expect_kernel_is_as_planned();
}

// --- order -----------------------------------------------------------------------------

TEST_F(NodeTest, NameComesAfterItsRules) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  ASSERT_EQ(told(apply(kWorkerWithoutPeers)), "OK");
  ASSERT_EQ(told(attach("worker")), "OK");
  std::vector<std::string> seen;
  kernel_.on_commit = [&](const auto&) { seen.push_back(name_seen_by(worker(), kName)); };
  ASSERT_EQ(told(apply(kWorker)), "OK");
  EXPECT_THAT(seen, testing::ElementsAre("NXDOMAIN"));
  EXPECT_EQ(name_seen_by(worker(), kName), vip());
}

TEST_F(NodeTest, RulesAreCommittedOnlyOnceStored) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  std::vector<std::uint64_t> stored;
  kernel_.on_commit = [&](const auto&) { stored.push_back(store_->generation()); };
  const auto before = store_->generation();
  ASSERT_EQ(told(attach("db")), "OK");
  EXPECT_THAT(stored, testing::Each(before + 1));
  EXPECT_FALSE(stored.empty());
}

TEST_F(NodeTest, LinkGoesAfterItsRules) {
  run_pair();
  std::size_t links = 0;
  kernel_.on_commit = [&](const auto&) { links = kernel_.links().size(); };
  ASSERT_EQ(told(detach("worker")), "OK");
  EXPECT_EQ(links, 2U) << "when the rules went";
  EXPECT_EQ(kernel_.links().size(), 1U);
}

TEST_F(NodeTest, AnswerComesAfterNames) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  ASSERT_EQ(told(apply(kWorker)), "OK");
  std::string seen;
  node_->attach(spec("worker"), now_, [&](Result<policy::Attachment> a) {
    seen = name_seen_by(a.value().v4.value(), kName);
  });
  EXPECT_EQ(seen, vip());
}

// --- refusals change nothing --------------------------------------------------------------

class NodeRefusalTest : public NodeTest {
 protected:
  void SetUp() override {
    run_pair();
    generation_ = store_->generation();
    elements_ = elements_in_kernel();
    links_ = kernel_.links().size();
    writes_ = kernel_.writes();
  }
  void TearDown() override {
    EXPECT_EQ(store_->generation(), generation_);
    EXPECT_EQ(elements_in_kernel(), elements_);
    EXPECT_EQ(kernel_.links().size(), links_);
    EXPECT_EQ(elements_planned(), elements_) << "the plan";
    EXPECT_EQ(name_seen_by(worker(), kName), vip());
    // A later change must find the compiler as it was.
    EXPECT_EQ(told(apply(kWorkerWithoutPeers)), "OK");
    expect_kernel_is_as_planned();
  }
  std::uint64_t generation_ = 0;
  std::vector<std::string> elements_;
  std::size_t links_ = 0;
  int writes_ = 0;
};

TEST_F(NodeRefusalTest, ApplyThatContradictsWhatIsDeclared) {
  EXPECT_THAT(told(apply("workloads: [{id: x, owner: eve, workflow: wf1}]")), HasSubstr("x"));
}

TEST_F(NodeRefusalTest, ApplyOfManyWithOneBad) {
  EXPECT_NE(told(apply("workloads: [{id: fine, owner: bob, workflow: wf9}, "
                       "{id: x, owner: eve, workflow: wf1}]")),
            "OK");
  EXPECT_FALSE(node_->world().workloads.contains("fine"));
}

TEST_F(NodeRefusalTest, ApplyWhileTheNodesListenersCannotBeRead) {
  kernel_.fail_next(Call::kListening);
  EXPECT_THAT(told(apply(kPublished)), HasSubstr("sock_diag"));
}

TEST_F(NodeRefusalTest, AttachOfNobody) {
  EXPECT_EQ(told(attach("nobody")), "attach nobody: no workload of that id is declared here");
}

TEST_F(NodeRefusalTest, AttachElsewhereWhileAttached) {
  EXPECT_EQ(told(attach("db", 99)),
            "attach db: it is attached to /run/netns/db as eth0; detach it first");
}

TEST_F(NodeRefusalTest, AttachOfAnothersNamespace) {
  ASSERT_EQ(told(apply("workloads: [{id: thief, owner: eve, workflow: wf2}]")), "OK");
  generation_ = store_->generation();
  EXPECT_EQ(told(attach("thief", attachment("db").netns.ino)),
            "attach thief: that network namespace is db's");
}

TEST_F(NodeRefusalTest, AttachWhoseLinkFails) {
  ASSERT_EQ(told(apply("workloads: [{id: next, owner: bob, workflow: wf2}]")), "OK");
  generation_ = store_->generation();
  kernel_.fail_next(Call::kConnect);
  EXPECT_THAT(told(attach("next")), HasSubstr("No buffer space"));
  EXPECT_FALSE(attached("next"));
}

TEST_F(NodeRefusalTest, DeleteOfWhatIsAttached) {
  EXPECT_EQ(told(remove("db")), "delete db: it is attached; detach it first, or use --force");
}

TEST_F(NodeRefusalTest, DeleteDrainAndDetachOfNobody) {
  EXPECT_EQ(told(remove("nobody")), "delete nobody: no workload of that id");
  EXPECT_EQ(told(drain("nobody")), "drain nobody: no such workload is attached");
  EXPECT_EQ(told(detach("nobody")), "detach nobody: no workload of that id");
}

TEST_F(NodeRefusalTest, PlanIsOnlyTold) {
  const auto planned =
      node_->plan(policy::read_declarations("t", kWorkerWithoutPeers).value(), now_);
  ASSERT_TRUE(planned);
  EXPECT_FALSE(planned->empty());
  EXPECT_EQ(kernel_.writes(), writes_);
}

// --- repeated commands ----------------------------------------------------------------------

TEST_F(NodeTest, RepeatedCommandsAreHarmless) {
  run_pair();
  const auto v4 = *attachment("db").v4;
  const int writes = kernel_.writes();
  EXPECT_EQ(told(attach("db")), "OK");
  EXPECT_EQ(*attachment("db").v4, v4);
  EXPECT_EQ(told(apply(kDb)), "OK");
  EXPECT_EQ(kernel_.writes(), writes);
  EXPECT_EQ(told(detach("db")), "OK");
  EXPECT_EQ(told(detach("db")), "OK");
  EXPECT_EQ(told(remove("db")), "OK");
  expect_kernel_is_as_planned();
}

// --- addresses ---------------------------------------------------------------------------------

TEST_F(NodeTest, AddressesRestAfterTheirUseOverARestartToo) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  std::set<IpAddress> used;
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(told(attach("db")), "OK");
    EXPECT_TRUE(used.insert(*attachment("db").v4).second) << "given out again";
    ASSERT_EQ(told(detach("db")), "OK");
    restart();
    pass(seconds(1));
  }
}

TEST_F(NodeTest, PoolThatIsUsedUpSaysSoAndRecovers) {
  std::string all = "workloads:\n";
  for (int i = 0; i < 255; ++i) {
    all += "- {id: w" + std::to_string(i) + ", owner: ada, workflow: wf1}\n";
  }
  ASSERT_EQ(told(apply(all)), "OK");
  for (int i = 0; i < 254; ++i) ASSERT_EQ(told(attach("w" + std::to_string(i))), "OK");
  EXPECT_EQ(told(attach("w254")),
            "attach w254: no address is free: 254 of 254 are in use, 0 rest after their last use");
  ASSERT_EQ(told(detach("w7")), "OK");
  EXPECT_THAT(told(attach("w254")), HasSubstr("253 of 254 are in use"));
  pass(seconds(61));
  EXPECT_EQ(told(attach("w254")), "OK");
}

// --- waiting -----------------------------------------------------------------------------------

class NodeWaitTest : public NodeTest {
 protected:
  void SetUp() override { ASSERT_EQ(told(apply(kDb)), "OK"); }
  std::string wait(const std::string& target, milliseconds limit = seconds(10)) {
    auto text = std::make_shared<std::string>("pending");
    node_->wait(target, limit, ++calls_, now_, [text](Result<mesh::v1::WaitReply> r) {
      *text = !r ? r.error().what : r->ready() ? "ready" : r->reason();
    });
    last_ = text;
    return *text;
  }
  std::shared_ptr<std::string> last_;
  std::uint64_t calls_ = 0;
};

TEST_F(NodeWaitTest, ClientThatLeavesIsWaitedForNoMore) {
  for (std::size_t i = 0; i < 3 * kMaxReadyWaiters; ++i) {
    ASSERT_EQ(wait("db"), "pending");
    node_->cancel_wait(calls_);
    ASSERT_THAT(*last_, HasSubstr("nobody listens"));
  }
  node_->cancel_wait(7);  // nobody's by now
}

TEST_F(NodeWaitTest, TooManyAreRefused) {
  for (std::size_t i = 0; i < kMaxReadyWaiters; ++i) ASSERT_EQ(wait("db"), "pending");
  EXPECT_THAT(wait("db"), HasSubstr("others wait already"));
}

TEST_F(NodeWaitTest, NobodyWaitsForEver) {
  EXPECT_EQ(wait("db", std::chrono::hours(1000)), "pending");
  ASSERT_TRUE(node_->next_timer());
  EXPECT_LE(*node_->next_timer(), now_ + kMaxWait);
}

TEST_F(NodeWaitTest, EverybodyIsToldWhenTheDaemonStops) {
  ASSERT_EQ(told(attach("db")), "OK");
  wait("db");
  kernel_.fail_next(Call::kTransaction, FakeKernel::kForEver);
  const auto command = detach("db");
  EXPECT_EQ(told(command) + *last_, "pendingpending");
  node_->give_up_waiting("meshd is stopping");
  EXPECT_EQ(*last_, "wait db: meshd is stopping");
  EXPECT_THAT(told(command), testing::MatchesRegex("stored, not in force: .*; meshd is stopping"));
}

TEST_F(NodeWaitTest, ReadyOnceIsReadyAfterARestartWhateverIsDeclaredMeanwhile) {
  constexpr auto kNone =
      "workloads: [{id: db, owner: ada, workflow: wf1, name: db, "
      "ready: NONE, serves: [{port: 6379}]}]";
  ASSERT_EQ(told(apply(kNone)), "OK");
  ASSERT_EQ(told(attach("db")), "OK");
  ASSERT_EQ(told(apply(kDb)), "OK");
  restart();
  EXPECT_TRUE(node_->world().workloads.find("db")->second.ready);
}

TEST_F(NodeWaitTest, IsAnsweredWhenItBecomesReady) {
  EXPECT_EQ(wait("db"), "pending");
  ASSERT_EQ(told(attach("db")), "OK");
  EXPECT_EQ(*last_, "pending");
  listens("db", 6379);
  EXPECT_EQ(*last_, "ready");
  EXPECT_EQ(wait("db"), "ready");
  EXPECT_EQ(wait("db.wf1"), "ready");
}

TEST_F(NodeWaitTest, TellsWhyNot) {
  EXPECT_EQ(wait("nobody"), "wait nobody: no workload or service of that name");
  EXPECT_EQ(wait("db", seconds(1)), "pending");
  pass(seconds(2));
  EXPECT_EQ(*last_, "db is not attached");
  ASSERT_EQ(told(attach("db")), "OK");
  wait("db", seconds(1));
  pass(seconds(2));
  EXPECT_EQ(*last_, "nothing listens on 6379/tcp");
  node_->on_listening("db", {}, {"6379/tcp listens on 127.0.0.1 only"}, now_);
  wait("db", seconds(1));
  pass(seconds(2));
  EXPECT_EQ(*last_, "6379/tcp listens on 127.0.0.1 only");
}

TEST_F(NodeWaitTest, DeletedMeanwhileIsToldAtOnce) {
  EXPECT_EQ(wait("db"), "pending");
  ASSERT_EQ(told(remove("db")), "OK");
  EXPECT_EQ(*last_, "wait db: it was deleted");
}

}  // namespace
}  // namespace meshd
