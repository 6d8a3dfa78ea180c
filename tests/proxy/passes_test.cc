#include "proxy/passes.h"

#include <gtest/gtest.h>

#include "proxy/token.h"

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;

class PassesTest : public testing::Test {
 protected:
  std::string issue(const std::string& token = "mesh_a") {
    auto pass = passes_.issue(token, "service lab", now_);
    EXPECT_TRUE(pass);
    return pass ? *pass : "";
  }
  TimePoint now_{1h};
  Passes passes_;
};

TEST_F(PassesTest, IsGoodOnceForItsTarget) {
  const auto pass = issue();
  EXPECT_TRUE(is_token(pass));
  EXPECT_EQ(passes_.redeem(pass, "service lab", now_), "mesh_a");
  EXPECT_FALSE(passes_.redeem(pass, "service lab", now_));
}

TEST_F(PassesTest, AtAnotherTargetItIsSpentForNothing) {
  const auto pass = issue();
  EXPECT_FALSE(passes_.redeem(pass, "service evil", now_));
  EXPECT_FALSE(passes_.redeem(pass, "service lab", now_));
}

TEST_F(PassesTest, LapsesSoon) {
  const auto pass = issue();
  EXPECT_FALSE(passes_.redeem(pass, "service lab", now_ + kPassLife));
  EXPECT_EQ(passes_.size(), 0);
}

TEST_F(PassesTest, NobodyHasOneThatWasNotIssued) {
  issue();
  EXPECT_FALSE(passes_.redeem("", "service lab", now_));
  EXPECT_FALSE(passes_.redeem("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "service lab", now_));
}

TEST_F(PassesTest, EachIsAnother) { EXPECT_NE(issue(), issue()); }

TEST_F(PassesTest, ManyPushOutTheOldest) {
  const auto first = issue("mesh_first"), second = issue("mesh_second");
  for (std::size_t i = 1; i < kMaxPasses; ++i) issue();
  EXPECT_EQ(passes_.size(), kMaxPasses);
  EXPECT_FALSE(passes_.redeem(first, "service lab", now_));
  EXPECT_EQ(passes_.redeem(second, "service lab", now_), "mesh_second");
}

}  // namespace
}  // namespace meshd::proxy
