// What the daemon knows of its table between a comparison and the first event it hears.
#include "meshd/linux_kernel.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "netlink/netns.h"
#include "netlink/nft_batch.h"
#include "netlink/nft_dump.h"
#include "netlink/nft_monitor.h"
#include "tests/support/netns.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/ruleset_samples.h"
#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

using test::must;
using test::output_of;

class LinuxKernelTest : public testing::Test {
 protected:
  void SetUp() override {
    must(test::PrivateNetns::enter());
    kernel_ = must(LinuxKernel::make(test::sample_settings()));
    kernel_->set_table(test::sample_settings(), {});
  }
  // What there was to repair.
  std::size_t converge() { return must(kernel_->converge(elements_)).what.size(); }
  bool settled() { return must(kernel_->is_settled()); }

  std::unique_ptr<LinuxKernel> kernel_;
  std::vector<policy::Element> elements_ = test::RandomElements(1).make(3);
};

TEST_F(LinuxKernelTest, RulesetIsSettledAfterAComparisonThatWrote) {
  EXPECT_GT(converge(), 0U);
  EXPECT_TRUE(settled());
}

TEST_F(LinuxKernelTest, RulesetIsSettledAfterAComparisonThatHadNothingToDo) {
  converge();
  EXPECT_EQ(converge(), 0U);
  EXPECT_TRUE(settled());
}

TEST_F(LinuxKernelTest, NobodyIsForwardedBeforeTheTableIsThere) {
  const auto forwarding = [] { return must(netlink::read_sysctl("net/ipv4/ip_forward")); };
  ASSERT_EQ(forwarding(), "0");
  {
    auto rival = must(netlink::Socket::open());
    netlink::NftBatch batch{std::string(policy::kTableName)};
    must(batch.put_table(netlink::kTableOwner));
    must(std::move(batch).commit(rival));
    EXPECT_FALSE(kernel_->converge(elements_));
    EXPECT_EQ(forwarding(), "0");
  }
  converge();
  EXPECT_EQ(forwarding(), "1");
}

TEST_F(LinuxKernelTest, ChangeByAnybodyUnsettlesItUntilTheNextComparison) {
  converge();
  ASSERT_EQ(output_of("nft flush set inet meshd bind4"), "");
  EXPECT_FALSE(settled());
  converge();
  EXPECT_TRUE(settled());
  // The ruleset has one generation for all tables: rather once too often.
  ASSERT_EQ(output_of("nft add table inet another"), "");
  EXPECT_FALSE(settled());
}

TEST_F(LinuxKernelTest, OwnCommitsLeaveItSettled) {
  converge();
  must(kernel_->commit({{elements_.front()}, {}}));
  EXPECT_TRUE(settled());
}

TEST_F(LinuxKernelTest, CommitGoesThroughWhateverOthersDid) {
  converge();
  ASSERT_EQ(output_of("nft add table inet another"), "");
  must(kernel_->commit({{elements_.front()}, {}}));
  elements_.erase(elements_.begin());
  EXPECT_EQ(converge(), 0U);
}

// A process after another. What the later one believes unread shows in that it does not find
// what is wrong: a seal that fits too well is made by hand for that.
class TableSealTest : public LinuxKernelTest {
 protected:
  static constexpr const char* kBoot = "f3b1c7e2-0000-4000-8000-0123456789ab";

  void SetUp() override {
    LinuxKernelTest::SetUp();
    restart();
    EXPECT_GT(converge(), 0U);
  }
  void restart(const char* boot = kBoot) {
    kernel_ = must(LinuxKernel::make(test::sample_settings()));
    must(kernel_->keep_seal(dir_.path(), boot));
    kernel_->set_table(test::sample_settings(), {});
    must(kernel_->check());  // as every start does: no change of the ruleset
  }
  [[nodiscard]] TableSeal seal() const {
    return must(SealFile::open(dir_.path(), kBoot)).read().value();
  }
  // Somebody takes an element away behind our back, and the seal is mended to hide it.
  void forge(TableSeal seal) {
    ASSERT_EQ(output_of("nft flush set inet meshd bind4"), "");
    auto socket = must(netlink::Socket::open());
    seal.generation = must(netlink::read_generation(socket));
    must(SealFile::open(dir_.path(), kBoot)).write(seal);
  }

  TempDir dir_;
};

TEST_F(TableSealTest, TableThatNobodyChangedIsNotReadBack) {
  forge(seal());
  restart();
  EXPECT_EQ(converge(), 0U) << "believed";
  EXPECT_TRUE(settled());
  EXPECT_GT(converge(), 0U) << "only once: from then on a comparison compares";
}

TEST_F(TableSealTest, WhatWasCommittedSinceIsKnownToo) {
  must(kernel_->commit({{elements_.front()}, {}}));
  must(kernel_->commit({{elements_[1]}, {elements_[0]}}));
  elements_.erase(elements_.begin() + 1);
  forge(seal());
  restart();
  EXPECT_EQ(converge(), 0U);
}

TEST_F(TableSealTest, AnyChangeByAnybodyIsFound) {
  ASSERT_EQ(output_of("nft flush set inet meshd bind4"), "");
  restart();
  EXPECT_GT(converge(), 0U);
  ASSERT_EQ(output_of("nft flush ruleset"), "");
  restart();
  EXPECT_GT(converge(), 0U);
}

TEST_F(TableSealTest, OtherElementsOrAnotherTableAreInstalled) {
  elements_.pop_back();
  restart();
  EXPECT_GT(converge(), 0U);
  restart();
  kernel_->set_table(test::sample_settings(), {.forwarding4_was_off = true});
  EXPECT_GT(converge(), 0U);
}

TEST_F(TableSealTest, SealOfAnotherBootOrNamespaceIsNotBelieved) {
  const auto good = seal();
  forge(good);
  restart("another-boot");
  EXPECT_GT(converge(), 0U);
  auto elsewhere = good;
  ++elsewhere.netns;
  forge(elsewhere);
  restart();
  EXPECT_GT(converge(), 0U);
}

// Such as docker, which is at work on every node.
TEST_F(TableSealTest, TablesOfOthersDoNotCostTheSeal) {
  auto monitor = must(netlink::NftMonitor::make(std::string(policy::kTableName)));
  ASSERT_EQ(output_of("nft add table inet another"), "");
  must(kernel_->commit({{elements_.front()}, {}}));
  elements_.erase(elements_.begin());
  must(monitor.read_events());
  kernel_->heard(monitor.heard().value());
  forge(seal());
  restart();
  EXPECT_EQ(converge(), 0U);
}

TEST_F(TableSealTest, NothingIsSealedThatSomebodyElseTouched) {
  kernel_->distrust();
  const auto before = seal();
  must(kernel_->commit({{elements_.front()}, {}}));
  kernel_->heard(before.generation + 1);
  EXPECT_EQ(seal(), before);
}

TEST_F(TableSealTest, RefusedCommitChangesNothing) {
  const auto before = seal();
  // What is not there cannot be removed: refused, and the table is as it was.
  EXPECT_FALSE(kernel_->commit({{elements_.front(), elements_.front()}, {}}));
  EXPECT_EQ(seal(), before);
  forge(before);
  restart();
  EXPECT_EQ(converge(), 0U);
}

}  // namespace
}  // namespace meshd
