// What the node does when the kernel or the store fails, and which connections it cuts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "meshd/node.h"
#include "tests/support/fault_vfs.h"
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

class NodeFaultTest : public NodePair {};

// --- the kernel fails -------------------------------------------------------------------------

TEST_F(NodeFaultTest, RefusedTransactionIsTriedAgainAndAnsweredWhenItHolds) {
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

TEST_F(NodeFaultTest, CommandThatCannotComeInForceIsToldSoAndHoldsLater) {
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

TEST_F(NodeFaultTest, WhoWaitsForLessIsToldSooner) {
  ASSERT_EQ(told(apply(kDb)), "OK");
  ASSERT_EQ(told(apply(kWorker)), "OK");
  for (const auto call : {Call::kCommit, Call::kConverge}) {
    kernel_.fail_next(call, FakeKernel::kForEver);
  }
  const auto patient = attach("worker");
  const auto answer = [] { return std::make_shared<std::optional<Status>>(); };
  const auto attached = answer(), detached = answer(), applied = answer();
  auto hasty = spec("db");
  hasty.deadline = now_ + seconds(2);
  node_->attach(hasty, now_, into<policy::Attachment>(attached));
  node_->apply(policy::read_declarations("test", kDb).value(), now_,
               into<mesh::v1::ApplyReply>(applied), now_ + seconds(3));
  node_->detach("db", now_, into<mesh::v1::DetachReply>(detached), now_ + seconds(1));
  for (const auto& next : {detached, attached, applied}) {
    pass(milliseconds(900));
    EXPECT_EQ(told(next), "pending");
    pass(milliseconds(100));
    EXPECT_THAT(told(next), HasSubstr("stored, not in force: "));
  }
  EXPECT_EQ(told(patient), "pending");
  pass(seconds(2));
  EXPECT_THAT(told(patient), HasSubstr("stored, not in force: "));
}

TEST_F(NodeFaultTest, WhatWasStoredIsInForceAfterARestartToo) {
  run_pair();
  kernel_.fail_next(Call::kCommit, FakeKernel::kForEver);
  kernel_.fail_next(Call::kConverge, FakeKernel::kForEver);
  const auto answer = apply(kWorkerWithoutPeers);
  kernel_.work_again();
  restart();
  EXPECT_EQ(kernel_.count(SetId::kAllow4), 0U);
  expect_kernel_is_as_planned();
}

TEST_F(NodeFaultTest, ChangesWhileBehindAllComeInForceAtOnce) {
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

TEST_F(NodeFaultTest, DetachThatWasNotHeardOfIsAnsweredOnTheNextCall) {
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

TEST_F(NodeFaultTest, ConntrackThatCannotBeErasedIsNotYetInForce) {
  run_pair();
  kernel_.fail_next(Call::kErase);
  const auto answer = detach("db");
  EXPECT_EQ(told(answer), "pending");
  EXPECT_THAT(kernel_.links(), Contains(testing::Key(testing::_)));
  pass(seconds(1));
  EXPECT_EQ(told(answer), "OK");
  ASSERT_FALSE(kernel_.erased.empty());
}

TEST_F(NodeFaultTest, ConntrackThatIsNeverErasedIsTriedEverMoreSeldom) {
  run_pair();
  kernel_.fail_next(Call::kErase, FakeKernel::kForEver);
  const auto answer = detach("db");
  pass(seconds(20));
  EXPECT_THAT(told(answer), HasSubstr("not in force"));
  EXPECT_LT(FakeKernel::kForEver - kernel_.still_failing(Call::kErase), 12);
}

TEST_F(NodeFaultTest, LinkThatCannotBeRemovedIsSweptByTheAudit) {
  run_pair();
  kernel_.fail_next(Call::kDisconnect);
  EXPECT_EQ(told(detach("worker")), "OK");
  EXPECT_EQ(kernel_.links().size(), 2U);
  node_->on_audit(now_);
  EXPECT_EQ(kernel_.links().size(), 1U);
}

TEST_F(NodeFaultTest, ForeignChangeOfTheTableIsPutRightAndCounted) {
  run_pair();
  kernel_.lose_elements();
  node_->on_drift(now_);
  expect_kernel_is_as_planned();
  EXPECT_EQ(node_->repairs(), 1U);
  EXPECT_EQ(events(Event::Kind::REPAIRED), 1U);
}

TEST_F(NodeFaultTest, ManyForeignChangesLeadToFewComparisons) {
  run_pair();
  for (int i = 0; i < 100; ++i) {
    kernel_.lose_elements();
    node_->on_drift(now_);
    pass(std::chrono::milliseconds(1));
  }
  EXPECT_LE(node_->repairs(), 3U);
  pass(std::chrono::milliseconds(50));
  expect_kernel_is_as_planned();
}

TEST_F(NodeFaultTest, DriftWhileTheKernelFailsIsNotForgotten) {
  run_pair();
  kernel_.lose_elements();
  kernel_.fail_next(Call::kConverge, 3);
  node_->on_drift(now_);
  EXPECT_NE(node_->behind(), "");
  pass(seconds(2));
  expect_kernel_is_as_planned();
}

// --- which connections are cut ------------------------------------------------------------------

TEST_F(NodeFaultTest, DetachErasesWhatTouchesItsAddresses) {
  run_pair();
  const auto gone = attachment("db");
  ASSERT_EQ(told(detach("db")), "OK");
  ASSERT_EQ(kernel_.erased.size(), 1U);
  EXPECT_THAT(kernel_.erased[0].addresses, testing::UnorderedElementsAre(*gone.v4, *gone.v6));
}

TEST_F(NodeFaultTest, WithdrawnPublicationErasesItsTranslation) {
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

// What a process that died before the erasing has left: an address that had an owner, a
// publication that is withdrawn, a VIP's endpoint that is another workload now.
TEST_F(NodeFaultTest, AStartErasesWhatTheProcessBeforeDidNotComeTo) {
  run_pair();
  ASSERT_EQ(told(apply(kPublished)), "OK");
  ASSERT_EQ(told(attach("web")), "OK");
  listens("web", 8080);
  const auto db = *attachment("db").v4, web = *attachment("web").v4;
  const auto outside = ip("198.51.100.1"), node = ip("192.0.2.1"), nobody = ip("10.213.0.99");
  restart();
  ASSERT_EQ(kernel_.outlived.size(), 2U) << "one at each start";
  const auto& erases = kernel_.outlived.back();
  const auto tcp = Proto::kTcp;
  EXPECT_FALSE(erases({tcp, worker(), ip(vip()), 6379, db, 6379}));
  EXPECT_FALSE(erases({tcp, worker(), db, 6379, db, 6379}));
  EXPECT_FALSE(erases({tcp, outside, node, 20080, web, 8080}));
  EXPECT_FALSE(erases({tcp, outside, node, 22, node, 22}));
  EXPECT_TRUE(erases({tcp, worker(), nobody, 6379, nobody, 6379})) << "nobody's address";
  EXPECT_TRUE(erases({tcp, nobody, outside, 443, outside, 443})) << "nobody's address";
  EXPECT_TRUE(erases({tcp, worker(), ip(vip()), 6379, web, 6379})) << "not its endpoint";
  EXPECT_TRUE(erases({tcp, worker(), ip(vip()), 6380, db, 6380})) << "not its port";
  EXPECT_TRUE(erases({tcp, outside, node, 20081, web, 8080})) << "not published";
  node_->on_drift(now_);
  EXPECT_EQ(kernel_.outlived.size(), 2U);
}

TEST_F(NodeFaultTest, AStartSparesOpenConnectionsToADrainingEndpoint) {
  run_pair();
  ASSERT_EQ(told(drain("db")), "OK");
  restart();
  ASSERT_FALSE(kernel_.outlived.empty());
  EXPECT_FALSE(kernel_.outlived.back()(
      {Proto::kTcp, worker(), ip(vip()), 6379, *attachment("db").v4, 6379}));
}

TEST_F(NodeFaultTest, AnEndpointMoreCutsNobodyOff) {
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

class NodeStoreTest : public NodeFaultTest {
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
  EXPECT_THAT(told(detach("db")), testing::StartsWith("detach db: shut, not stored: "));
  EXPECT_EQ(kernel_.count(SetId::kVip4), 0U);
  EXPECT_EQ(kernel_.links().size(), 1U);
  EXPECT_GT(events(Event::Kind::PROBLEM), 0U);
  EXPECT_NE(node_->store_trouble(), "");
  restart();  // finds the link gone
  EXPECT_FALSE(attached("db"));
  expect_kernel_is_as_planned();
}

TEST_F(NodeStoreTest, WhatWasNotStoredIsStoredBeforeWhatComesNext) {
  run_pair();
  fill_disk();
  EXPECT_THAT(told(detach("db")), HasSubstr("not stored"));
  EXPECT_EQ(told(apply(kWorkerWithoutPeers)), "OK");
  EXPECT_EQ(node_->store_trouble(), "");
  EXPECT_FALSE(store_->load()->workloads.find("db")->second.attachment);
}

TEST_F(NodeStoreTest, WhatWasNotStoredIsTriedAgainByItself) {
  run_pair();
  fill_disk();
  EXPECT_THAT(told(detach("db")), HasSubstr("not stored"));
  EXPECT_TRUE(store_->load()->workloads.find("db")->second.attachment);
  pass(seconds(2));
  EXPECT_FALSE(store_->load()->workloads.find("db")->second.attachment);
  EXPECT_EQ(node_->store_trouble(), "");
  EXPECT_EQ(node_->generations().named, node_->generations().stored);
}

TEST_F(NodeStoreTest, DetachIsAcknowledgedOnceItIsStored) {
  run_pair();
  fill_disk();
  EXPECT_THAT(told(detach("db")), HasSubstr("not stored"));
  fill_disk();
  EXPECT_THAT(told(detach("db")), HasSubstr("not stored"));
  EXPECT_EQ(told(detach("db")), "OK");
  EXPECT_FALSE(store_->load()->workloads.find("db")->second.attachment);
}

// Only damage can write it: neither of the two can be believed.
TEST_F(NodeStoreTest, TwoAttachmentsOfOneAddressAreBothDropped) {
  run_pair();
  auto twin = attachment("worker");
  twin.v4 = attachment("db").v4;
  const std::vector<StoreChange> changes{PutAttachment{"worker", twin}};
  ASSERT_TRUE(store_->apply(changes, store_->generation() + 1));
  restart();
  EXPECT_FALSE(attached("db"));
  EXPECT_FALSE(attached("worker"));
  EXPECT_THAT(node_->problems().at("db"), Contains(HasSubstr("db, worker")));
  EXPECT_EQ(kernel_.count(SetId::kAllow4), 0U);
  EXPECT_TRUE(kernel_.links().empty());
  expect_kernel_is_as_planned();
  restart();
  EXPECT_FALSE(attached("db")) << "it is stored";
}

}  // namespace
}  // namespace meshd
