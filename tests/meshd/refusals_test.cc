#include "meshd/refusals.h"

#include <gtest/gtest.h>

#include <limits>

namespace meshd {
namespace {

using namespace std::chrono_literals;

// 2026-01-31T09:30:00Z and so many seconds.
WallTime at(std::chrono::seconds later) { return WallTime(1769851800s + later); }

TEST(RefusalsTest, RepeatsAreCountedAndTheNewestStandsFirst) {
  Refusals refusals;
  EXPECT_TRUE(refusals.add("c", "db tcp/1: no peer", at(1s)));
  EXPECT_TRUE(refusals.add("c", "web tcp/80: no peer", at(2s)));
  EXPECT_FALSE(refusals.add("c", "db tcp/1: no peer", at(63s)));
  EXPECT_EQ(refusals.lines("c"),
            (std::vector<std::string>{"db tcp/1: no peer (2 times, 2026-01-31T09:31:03Z)",
                                      "web tcp/80: no peer (2026-01-31T09:30:02Z)"}));
  EXPECT_TRUE(refusals.lines("other").empty());
}

TEST(RefusalsTest, KeepsTheLastTenOfEachContainer) {
  Refusals refusals;
  for (int i = 0; i < 12; ++i) refusals.add("c", "line " + std::to_string(i), at(0s));
  const auto lines = refusals.lines("c");
  ASSERT_EQ(lines.size(), Refusals::kLines);
  EXPECT_EQ(lines.front(), "line 11 (2026-01-31T09:30:00Z)");
  EXPECT_EQ(lines.back(), "line 2 (2026-01-31T09:30:00Z)");
  refusals.forget("c");
  EXPECT_TRUE(refusals.lines("c").empty());
}

TEST(RefusalsTest, OfManyContainersThoseRefusedLastAreKept) {
  Refusals refusals;
  refusals.add("a", "line", at(20000s));  // first by name, last by time
  for (int i = 0; i < 10'000; ++i) {
    refusals.add("c" + std::to_string(i), "line", at(std::chrono::seconds(i)));
  }
  EXPECT_LE(refusals.size(), Refusals::kContainers);
  EXPECT_FALSE(refusals.lines("a").empty());
  EXPECT_FALSE(refusals.lines("c9999").empty());
  EXPECT_TRUE(refusals.lines("c0").empty());
}

class RepeatFilterTest : public testing::Test {
 protected:
  static RepeatFilter::Flow flow(std::uint16_t port) {
    const auto address = IpAddress::parse("10.213.0.1").value();
    return {address, address, 6, port};
  }
  RepeatFilter filter_;
  TimePoint now_{1000s};
};

TEST_F(RepeatFilterTest, LetsEachFlowThroughOnceASecond) {
  EXPECT_TRUE(filter_.admit(flow(1), now_));
  EXPECT_FALSE(filter_.admit(flow(1), now_));
  EXPECT_TRUE(filter_.admit(flow(2), now_));
  EXPECT_FALSE(filter_.admit(flow(1), now_ + 900ms));
  EXPECT_TRUE(filter_.admit(flow(1), now_ + 1s));
}

TEST_F(RepeatFilterTest, IsBoundedWhateverIsTried) {
  std::size_t admitted = 0;
  for (std::uint16_t port = 1; port <= 20'000; ++port) admitted += filter_.admit(flow(port), now_);
  EXPECT_EQ(admitted, RepeatFilter::kFlows);
  EXPECT_TRUE(filter_.admit(flow(20'000), now_ + 1s));
}

// The longest text beside the line: a count of twenty digits and the time.
TEST(RefusalsTest, LongLinesAreCutToWhatATxtStringHolds) {
  Refusals refusals;
  refusals.add("c", std::string(1000, 'x'), at(0s));
  refusals.add("c", std::string(1000, 'x'), at(0s));
  const auto most = std::to_string(std::numeric_limits<std::uint64_t>::max()).size();
  EXPECT_LE(refusals.lines("c").front().size() - 1 + most, 255U);
}

}  // namespace
}  // namespace meshd
