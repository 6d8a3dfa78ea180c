// What the daemon knows of its table between a comparison and the first event it hears.
#include "meshd/linux_kernel.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/support/netns.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/ruleset_samples.h"

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

TEST_F(LinuxKernelTest, OwnCommitUnsettlesItToo) {
  converge();
  must(kernel_->commit({{elements_.front()}, {}}));
  EXPECT_FALSE(settled());
}

}  // namespace
}  // namespace meshd
