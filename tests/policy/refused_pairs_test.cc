#include "policy/refused_pairs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meshd::policy {
namespace {

using testing::ElementsAre;
using testing::Field;
using testing::Pair;
using testing::SizeIs;

RefusedPair pair_of(const std::string& consumer, std::uint16_t port = 80) {
  return {consumer, "db", Proto::kTcp, port};
}
auto counted(const RefusedPair& pair, std::uint64_t count) {
  return Pair(pair, Field(&RefusedPairs::Entry::count, count));
}
auto untold(const RefusedPair& pair, std::uint64_t count) {
  return Pair(pair, Field(&RefusedPairs::Entry::untold, count));
}

TEST(RefusedPairsTest, RepeatsAreCounted) {
  RefusedPairs pairs(8);
  pairs.add(pair_of("c"), 1, 10).missing = "in c: peers";
  pairs.add(pair_of("c", 81), 1, 20);
  pairs.add(pair_of("c"), 2, 30);
  EXPECT_THAT(pairs.all(), ElementsAre(counted(pair_of("c"), 3), counted(pair_of("c", 81), 1)));
  EXPECT_EQ(pairs.all()[0].second.missing, "in c: peers");
  EXPECT_EQ(pairs.all()[0].second.last_ms, 30);
}

TEST(RefusedPairsTest, WhatWasTakenIsToldNoMore) {
  RefusedPairs pairs(8);
  pairs.add(pair_of("c"), 3, 1);
  pairs.add(pair_of("d"), 1, 1);
  EXPECT_THAT(pairs.take_untold(1), ElementsAre(untold(pair_of("c"), 3)));
  pairs.add(pair_of("c"), 2, 2);
  EXPECT_THAT(pairs.take_untold(9), ElementsAre(untold(pair_of("c"), 2), untold(pair_of("d"), 1)));
  EXPECT_FALSE(pairs.has_untold());
  EXPECT_THAT(pairs.take_untold(9), SizeIs(0));
  EXPECT_THAT(pairs.all(), ElementsAre(counted(pair_of("c"), 5), counted(pair_of("d"), 1)));
}

TEST(RefusedPairsTest, OneThatTriesAllPortsPushesOutItsOwnOnly) {
  RefusedPairs pairs(8);
  pairs.add(pair_of("quiet"), 1, 0);
  for (std::uint16_t port = 1; port <= 1000; ++port) pairs.add(pair_of("scanner", port), 1, port);
  const auto all = pairs.all();
  EXPECT_THAT(all, SizeIs(1 + RefusedPairs::kPerConsumer));
  EXPECT_THAT(all.front(), counted(pair_of("quiet"), 1));
  EXPECT_EQ(all.back().first.port, 1000) << "the newest stay";
  EXPECT_EQ(pairs.lost(), 1000 - RefusedPairs::kPerConsumer);
  EXPECT_THAT(pairs.take_untold(10'000), SizeIs(all.size())) << "what went is not told either";
}

TEST(RefusedPairsTest, OfTooManyConsumersTheOneRefusedLongestAgoGoes) {
  RefusedPairs pairs(2);
  pairs.add(pair_of("a"), 1, 1);
  pairs.add(pair_of("b"), 1, 2);
  pairs.add(pair_of("a"), 1, 3);
  pairs.add(pair_of("c"), 1, 4);
  EXPECT_THAT(pairs.all(), ElementsAre(counted(pair_of("a"), 2), counted(pair_of("c"), 1)));
  EXPECT_EQ(pairs.lost(), 1U);
}

TEST(RefusedPairsTest, WhoIsForgottenWasRefusedNothing) {
  RefusedPairs pairs(2);
  pairs.add(pair_of("a"), 7, 1);
  pairs.forget("a");
  pairs.forget("nobody");
  EXPECT_FALSE(pairs.has_untold());
  pairs.add(pair_of("a"), 1, 2);
  EXPECT_THAT(pairs.all(), ElementsAre(counted(pair_of("a"), 1)));
}

}  // namespace
}  // namespace meshd::policy
