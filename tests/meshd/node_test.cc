// What the node does with a command, told step by step: store, kernel, names, answer.
#include "meshd/node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fault_vfs.h"
#include "tests/support/node_fixture.h"

namespace meshd {
namespace {

using policy::SetId;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::HasSubstr;
using Call = FakeKernel::Call;
using Event = mesh::v1::Event;

constexpr std::string_view kDb =
    "workloads: [{id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 6379}]}]";
constexpr std::string_view kWorker =
    "workloads: [{id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}]";
constexpr std::string_view kWorkerWithoutPeers =
    "workloads: [{id: worker, owner: ada, workflow: wf1}]";
constexpr std::string_view kPublished =
    "workloads: [{id: web, owner: ada, workflow: wf1, "
    "publish: [{port: 8080, node_port: 20080, allow_from: [192.0.2.0/24]}]}]";
constexpr std::string_view kName = "db.wf1.wf.mesh.internal";

class NodeTest : public NodeFixture {
 protected:
  // worker uses db, and db listens.
  void run_pair() {
    ASSERT_EQ(told(apply(kDb)), "OK");
    ASSERT_EQ(told(apply(kWorker)), "OK");
    ASSERT_EQ(told(attach("db")), "OK");
    ASSERT_EQ(told(attach("worker")), "OK");
    listens("db", 6379);
    ASSERT_EQ(kernel_.count(SetId::kVip4), policy::kSlots);
  }
  [[nodiscard]] std::string vip() const {
    const policy::ServiceKey key{policy::Scope::kWorkflow, "wf1", "db"};
    return node_->world().services.at(key).vip4->to_string();
  }
  [[nodiscard]] IpAddress worker() const { return *attachment("worker").v4; }
};

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
  EXPECT_TRUE(kernel_.erased.empty());
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

// --- the kernel fails -------------------------------------------------------------------------

TEST_F(NodeTest, RefusedTransactionIsTriedAgainAndAnsweredWhenItHolds) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  ASSERT_EQ(told(apply(kWorker)), "OK");
  kernel_.fail_next(Call::kCommit);
  const auto answer = attach("worker");
  EXPECT_EQ(told(answer), "pending");
  EXPECT_THAT(node_->behind(), HasSubstr("No buffer space"));
  EXPECT_EQ(name_seen_by(worker(), kName), "DROPPED") << "no view before its rules";
  pass(milliseconds(60));
  EXPECT_EQ(told(answer), "OK");
  EXPECT_EQ(name_seen_by(worker(), kName), vip());
  EXPECT_EQ(node_->repairs(), 0U) << "our own lag is no repair of somebody's change";
  expect_kernel_is_as_planned();
}

TEST_F(NodeTest, CommandThatCannotComeInForceIsToldSoAndHoldsLater) {
  run_pair();
  for (const auto call : {Call::kCommit, Call::kConverge}) {
    kernel_.fail_next(call, FakeKernel::kForEver);
  }
  const auto answer = apply(kWorkerWithoutPeers);
  pass(milliseconds(4900));
  EXPECT_EQ(told(answer), "pending");
  EXPECT_EQ(name_seen_by(worker(), kName), vip()) << "its rules still stand";
  pass(milliseconds(200));
  EXPECT_THAT(told(answer), HasSubstr("stored, not in force: "));
  EXPECT_EQ((**answer).error().code, ErrorCode::kNotInForce);
  EXPECT_LT(node_->generations().installed, node_->generations().planned);
  kernel_.work_again();
  pass(seconds(6));
  EXPECT_EQ(node_->behind(), "");
  EXPECT_EQ(name_seen_by(worker(), kName), "NXDOMAIN");
  EXPECT_EQ(node_->generations().installed, node_->generations().stored);
  expect_kernel_is_as_planned();
}

TEST_F(NodeTest, WhatWasStoredIsInForceAfterARestartToo) {
  run_pair();
  kernel_.fail_next(Call::kCommit, FakeKernel::kForEver);
  kernel_.fail_next(Call::kConverge, FakeKernel::kForEver);
  const auto answer = apply(kWorkerWithoutPeers);
  kernel_.work_again();
  restart();
  EXPECT_EQ(kernel_.count(SetId::kAllow4), 0U);
  expect_kernel_is_as_planned();
}

TEST_F(NodeTest, ChangesWhileBehindAllComeInForceAtOnce) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  ASSERT_EQ(told(apply(kWorker)), "OK");
  kernel_.fail_next(Call::kCommit);
  const auto first = attach("db");
  const auto second = attach("worker");
  listens("db", 6379);
  const auto third = detach("db");
  EXPECT_EQ(told(first) + told(second) + told(third), "pendingpendingpending");
  pass(seconds(1));
  EXPECT_THAT(told(first), HasSubstr("detached meanwhile"));
  EXPECT_EQ(told(second) + told(third), "OKOK");
  expect_kernel_is_as_planned();
}

TEST_F(NodeTest, DetachThatWasNotHeardOfIsAnsweredOnTheNextCall) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  auto prepared = spec("db");
  prepared.prepared = true;
  node_->attach(prepared, now_, [](const auto& a) { EXPECT_TRUE(a); });
  kernel_.fail_next(Call::kCommit, FakeKernel::kForEver);
  kernel_.fail_next(Call::kConverge, FakeKernel::kForEver);
  const auto answer = detach("db");
  pass(seconds(6));
  EXPECT_THAT(told(answer), HasSubstr("not in force"));
  kernel_.work_again();
  std::optional<mesh::v1::DetachReply> reply;
  node_->detach("db", now_, [&](Result<mesh::v1::DetachReply> r) { reply = r.value(); });
  pass(seconds(6));
  ASSERT_TRUE(reply);
  EXPECT_TRUE(reply->was_attached());
  EXPECT_TRUE(reply->prepared());
  EXPECT_EQ(reply->netns(), "/run/netns/db");
}

TEST_F(NodeTest, ConntrackThatCannotBeErasedIsNotYetInForce) {
  run_pair();
  kernel_.fail_next(Call::kErase);
  const auto answer = detach("db");
  EXPECT_EQ(told(answer), "pending");
  EXPECT_THAT(kernel_.links(), Contains(testing::Key(testing::_)));
  pass(seconds(1));
  EXPECT_EQ(told(answer), "OK");
  ASSERT_FALSE(kernel_.erased.empty());
}

TEST_F(NodeTest, LinkThatCannotBeRemovedIsSweptByTheAudit) {
  run_pair();
  kernel_.fail_next(Call::kDisconnect);
  EXPECT_EQ(told(detach("worker")), "OK");
  EXPECT_EQ(kernel_.links().size(), 2U);
  node_->on_audit(now_);
  EXPECT_EQ(kernel_.links().size(), 1U);
}

TEST_F(NodeTest, ForeignChangeOfTheTableIsPutRightAndCounted) {
  run_pair();
  kernel_.lose_elements();
  node_->on_drift(now_);
  expect_kernel_is_as_planned();
  EXPECT_EQ(node_->repairs(), 1U);
  EXPECT_EQ(events(Event::Kind::REPAIRED), 1U);
}

TEST_F(NodeTest, DriftWhileTheKernelFailsIsNotForgotten) {
  run_pair();
  kernel_.lose_elements();
  kernel_.fail_next(Call::kConverge, 3);
  node_->on_drift(now_);
  EXPECT_NE(node_->behind(), "");
  pass(seconds(2));
  expect_kernel_is_as_planned();
}

// --- which connections are cut ------------------------------------------------------------------

TEST_F(NodeTest, DetachErasesWhatTouchesItsAddresses) {
  run_pair();
  const auto gone = attachment("db");
  ASSERT_EQ(told(detach("db")), "OK");
  ASSERT_EQ(kernel_.erased.size(), 1U);
  EXPECT_THAT(kernel_.erased[0].addresses, testing::UnorderedElementsAre(*gone.v4, *gone.v6));
}

TEST_F(NodeTest, WithdrawnPublicationErasesItsTranslation) {
  ASSERT_EQ(told(apply(kPublished)), "OK");
  ASSERT_EQ(told(attach("web")), "OK");
  listens("web", 8080);
  ASSERT_EQ(kernel_.count(SetId::kPub4), 1U);
  ASSERT_EQ(told(apply("workloads: [{id: web, owner: ada, workflow: wf1}]")), "OK");
  ASSERT_EQ(kernel_.erased.size(), 1U);
  ASSERT_EQ(kernel_.erased[0].translations.size(), 1U);
  const auto& cut = kernel_.erased[0].translations[0];
  EXPECT_EQ(cut.from, ip("192.0.2.1"));
  EXPECT_EQ(cut.first, 20080);
  EXPECT_EQ(cut.to, *attachment("web").v4);
}

TEST_F(NodeTest, AnEndpointMoreCutsNobodyOff) {
  run_pair();
  ASSERT_EQ(told(apply("workloads: [{id: db2, owner: ada, workflow: wf1, name: db, "
                       "serves: [{port: 6379}]}]")),
            "OK");
  ASSERT_EQ(told(attach("db2")), "OK");
  listens("db2", 6379);
  for (const auto& request : kernel_.erased) EXPECT_TRUE(request.empty());
  expect_kernel_is_as_planned();
}

// --- the store fails ----------------------------------------------------------------------------

class NodeStoreTest : public NodeTest {
 protected:
  // Every file operation of the next transaction fails: a full disk.
  void fill_disk() { FaultVfs::instance().fail_once(1, SQLITE_FULL); }
  Result<Store> open_store() override {
    FaultVfs::instance();
    StoreOptions options;
    options.boot_id = "boot-1";
    options.now = now_;
    options.vfs = FaultVfs::kName;
    return Store::open(temp_ / "state", options);
  }
  void SetUp() override {
    FaultVfs::instance().reset();
    restart();  // the base's constructor could not yet call our open_store()
  }
  void TearDown() override { FaultVfs::instance().reset(); }
};

TEST_F(NodeStoreTest, ApplyThatIsNotStoredChangesNothing) {
  run_pair();
  const auto elements = elements_in_kernel();
  fill_disk();
  EXPECT_THAT(told(apply(kWorkerWithoutPeers)), HasSubstr("full"));
  EXPECT_EQ(elements_in_kernel(), elements);
  EXPECT_EQ(elements_planned(), elements);
  EXPECT_EQ(name_seen_by(worker(), kName), vip());
  EXPECT_EQ(told(apply(kWorkerWithoutPeers)), "OK") << "and may be tried again";
  EXPECT_EQ(kernel_.count(SetId::kAllow4), 0U);
}

TEST_F(NodeStoreTest, AttachThatIsNotStoredLeavesNoLink) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  fill_disk();
  EXPECT_THAT(told(attach("db")), HasSubstr("full"));
  EXPECT_TRUE(kernel_.links().empty());
  EXPECT_FALSE(attached("db"));
  EXPECT_EQ(told(attach("db")), "OK");
  expect_kernel_is_as_planned();
}

TEST_F(NodeStoreTest, DrainThatIsNotStoredDoesNotDrain) {
  run_pair();
  fill_disk();
  EXPECT_THAT(told(drain("db")), HasSubstr("full"));
  EXPECT_EQ(kernel_.count(SetId::kDrain4), 0U);
  EXPECT_EQ(kernel_.count(SetId::kVip4), policy::kSlots);
}

// Shutting needs no disk.
TEST_F(NodeStoreTest, DetachShutsEvenIfItCannotBeStored) {
  run_pair();
  fill_disk();
  EXPECT_EQ(told(detach("db")), "OK");
  EXPECT_EQ(kernel_.count(SetId::kVip4), 0U);
  EXPECT_EQ(kernel_.links().size(), 1U);
  EXPECT_GT(events(Event::Kind::PROBLEM), 0U);
  restart();  // finds the link gone
  EXPECT_FALSE(attached("db"));
  expect_kernel_is_as_planned();
}

// --- restarts and links that vanish
// ---------------------------------------------------------------

TEST_F(NodeTest, RestartWithAllInPlaceWritesNothing) {
  run_pair();
  const auto elements = elements_in_kernel();
  const int writes = kernel_.writes();
  restart();
  EXPECT_EQ(kernel_.writes(), writes);
  EXPECT_EQ(elements_in_kernel(), elements);
  EXPECT_EQ(name_seen_by(worker(), kName), vip());
  EXPECT_EQ(events(Event::Kind::REPAIRED), 0U);
}

TEST_F(NodeTest, NamesAreThereBeforeTheKernelIsCompared) {
  run_pair();
  start();
  EXPECT_EQ(name_seen_by(worker(), kName), vip());
}

TEST_F(NodeTest, ContainerThatEndedMeanwhileIsDetachedAtStart) {
  run_pair();
  kernel_.lose_link(attachment("db").host_ifname);
  restart();
  EXPECT_FALSE(attached("db"));
  EXPECT_TRUE(attached("worker"));
  EXPECT_EQ(kernel_.count(SetId::kHold4), 1U);
  expect_kernel_is_as_planned();
}

TEST_F(NodeTest, StartThatFindsTheKernelUnwillingTriesOn) {
  run_pair();
  start();
  kernel_.lose_elements();
  kernel_.fail_next(Call::kConverge);
  EXPECT_FALSE(node_->converge(now_));
  pass(seconds(1));
  expect_kernel_is_as_planned();
}

TEST_F(NodeTest, LinkThatVanishesIsADetach) {
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

TEST_F(NodeTest, LinkThatNobodyKnowsIsSweptAtStart) {
  LinkPlan left_over;  // the process died between link and store
  left_over.host_ifname = "mesh7";
  ASSERT_TRUE(kernel_.connect(left_over, -1));
  restart();
  EXPECT_TRUE(kernel_.links().empty());
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
    node_->wait(target, limit, now_, [text](Result<mesh::v1::WaitReply> r) {
      *text = !r ? r.error().what : r->ready() ? "ready" : r->reason();
    });
    last_ = text;
    return *text;
  }
  std::shared_ptr<std::string> last_;
};

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
  EXPECT_EQ(*last_, "wait db: no workload or service of that name");
}

}  // namespace
}  // namespace meshd
