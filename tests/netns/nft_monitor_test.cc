// NftMonitor against the kernel: own and foreign changes, and what is lost.
#include "netlink/nft_monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include "netlink/nft_batch.h"
#include "tests/support/netns.h"
#include "tests/support/nft_samples.h"

namespace meshd::netlink {
namespace {

using test::flow_key;
using test::flow_set;
using test::output_of;

class NftMonitorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto entered = test::PrivateNetns::enter();
    ASSERT_TRUE(entered) << entered.error().what;
    auto opened = Socket::open();
    ASSERT_TRUE(opened) << opened.error().what;
    socket_.emplace(*std::move(opened));
    NftBatch batch("t");
    ASSERT_TRUE(test::put_samples(batch));
    ASSERT_TRUE(std::move(batch).commit(*socket_));
    auto made = NftMonitor::make("t");
    ASSERT_TRUE(made) << made.error().what;
    monitor_.emplace(*std::move(made));
  }

  std::vector<TableEvent> events() {
    auto read = monitor_->read_events();
    EXPECT_TRUE(read) << read.error().what;
    return read ? *std::move(read) : std::vector<TableEvent>();
  }

  void put_many(std::uint32_t count) {
    std::vector<Bytes> keys;
    for (std::uint32_t i = 0; i < count; ++i) keys.push_back(flow_key(i, 1, 6, 80));
    std::vector<ElementView> views;
    for (const auto& key : keys) views.push_back({.key = key});
    NftBatch batch("t");
    ASSERT_TRUE(batch.put_elements(flow_set(), views));
    ASSERT_TRUE(std::move(batch).commit(*socket_));
  }

  std::optional<Socket> socket_;
  std::optional<NftMonitor> monitor_;
};

TEST_F(NftMonitorTest, NothingThereIsNoEventAndDoesNotBlock) { EXPECT_TRUE(events().empty()); }

TEST_F(NftMonitorTest, OwnChangeCarriesTheOwnPortId) {
  put_many(3);
  pollfd readable{.fd = monitor_->fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&readable, 1, 0), 1);
  const auto seen = events();
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].kind, TableEvent::Kind::kChanged);
  EXPECT_EQ(seen[0].port_id, socket_->port_id());
  EXPECT_EQ(seen[0].pid, static_cast<std::uint32_t>(getpid()));
}

TEST_F(NftMonitorTest, ForeignChangeNamesTheProcess) {
  ASSERT_EQ(output_of("nft flush chain inet t decide"), "");
  const auto seen = events();
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].process, "nft");
  EXPECT_NE(seen[0].port_id, socket_->port_id());
  EXPECT_NE(seen[0].pid, static_cast<std::uint32_t>(getpid()));
}

TEST_F(NftMonitorTest, EachKindOfForeignChangeIsSeen) {
  for (const auto* change : {"add rule inet t decide accept", "insert rule inet t guard accept",
                             "add element inet t users { 0 }", "delete element inet t users { 0 }",
                             "add chain inet t extra", "delete chain inet t extra",
                             "add set inet t extra '{ type ipv4_addr; }'",
                             "delete set inet t extra", "flush set inet t allow4",
                             "add counter inet t extra", "chain inet t guard '{ policy drop; }'"}) {
    // A flush of an empty set changes nothing and is no event.
    if (std::string_view(change).starts_with("flush")) put_many(1);
    (void)events();
    ASSERT_EQ(output_of(std::string("nft ") + change), "");
    EXPECT_EQ(events().size(), 1U) << change;
  }
}

TEST_F(NftMonitorTest, OtherTablesAreNoEvent) {
  ASSERT_EQ(output_of("nft add table inet other"), "");
  ASSERT_EQ(output_of("nft add table ip t"), "");
  EXPECT_TRUE(events().empty());
}

TEST_F(NftMonitorTest, DeletedTableIsSaid) {
  ASSERT_EQ(output_of("nft flush ruleset"), "");
  const auto seen = events();
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_TRUE(seen[0].deleted);
}

TEST_F(NftMonitorTest, RefusedTransactionIsNoEvent) {
  NftBatch batch("t");
  ASSERT_TRUE(batch.flush_rules());
  ASSERT_TRUE(batch.delete_chain("nowhere"));
  ASSERT_FALSE(std::move(batch).commit(*socket_));
  EXPECT_TRUE(events().empty());
}

TEST_F(NftMonitorTest, OverflowIsUnknownAndLaterChangesAreSeen) {
  monitor_->set_receive_queue_for_test(4096);
  put_many(5000);
  const auto seen = events();
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen[0].kind, TableEvent::Kind::kUnknown);
  ASSERT_EQ(output_of("nft flush chain inet t decide"), "");
  const auto later = events();
  ASSERT_FALSE(later.empty());
  EXPECT_EQ(later.back().process, "nft");
}

TEST_F(NftMonitorTest, TwentyThousandElementsFitTheQueue) {
  put_many(20'000);
  std::vector<TableEvent> seen;
  // read_events() is bounded, so a large transaction takes several calls.
  for (int i = 0; i < 100 && seen.empty(); ++i) seen = events();
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].kind, TableEvent::Kind::kChanged);
}

TEST_F(NftMonitorTest, ErrorsOfABatchThatOverflowTheQueueLeaveTheOutcomeUnknown) {
  socket_->set_receive_queue(2048);
  NftBatch batch("t");
  for (int i = 0; i < 2000; ++i) ASSERT_TRUE(batch.delete_chain("nowhere"));
  const auto refused = std::move(batch).commit(*socket_);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(outcome_unknown(refused.error())) << refused.error().what;
  // The socket is good for the next transaction.
  put_many(1);
}

}  // namespace
}  // namespace meshd::netlink
