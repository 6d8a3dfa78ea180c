#include "meshd/refusals.h"

#include <gtest/gtest.h>

namespace meshd {
namespace {

using namespace std::chrono_literals;

TEST(RefusalsTest, RepeatsAreCountedAndTheNewestStandsFirst) {
  Refusals refusals;
  EXPECT_TRUE(refusals.add("c", "db tcp/1: no peer", TimePoint(1s)));
  EXPECT_TRUE(refusals.add("c", "web tcp/80: no peer", TimePoint(2s)));
  EXPECT_FALSE(refusals.add("c", "db tcp/1: no peer", TimePoint(3s)));
  EXPECT_EQ(refusals.lines("c", TimePoint(10s)),
            (std::vector<std::string>{"db tcp/1: no peer (2 times, last 7 s ago)",
                                      "web tcp/80: no peer (8 s ago)"}));
  EXPECT_TRUE(refusals.lines("other", TimePoint(10s)).empty());
}

TEST(RefusalsTest, KeepsTheLastTenOfEachContainer) {
  Refusals refusals;
  for (int i = 0; i < 12; ++i) refusals.add("c", "line " + std::to_string(i), TimePoint(1s));
  const auto lines = refusals.lines("c", TimePoint(1s));
  ASSERT_EQ(lines.size(), Refusals::kLines);
  EXPECT_EQ(lines.front(), "line 11 (0 s ago)");
  EXPECT_EQ(lines.back(), "line 2 (0 s ago)");
  refusals.forget("c");
  EXPECT_TRUE(refusals.lines("c", TimePoint(1s)).empty());
}

TEST(RefusalsTest, LongLinesAreCutToWhatATxtStringHolds) {
  Refusals refusals;
  refusals.add("c", std::string(1000, 'x'), TimePoint(1s));
  EXPECT_LE(refusals.lines("c", TimePoint(1s)).front().size(), 255U);
}

}  // namespace
}  // namespace meshd
