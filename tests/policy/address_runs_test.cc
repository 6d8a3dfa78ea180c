// Runs of taken addresses against a plain set.
#include "policy/address_runs.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace meshd::policy {
namespace {

IpAddress v4(std::uint64_t number) { return IpAddress::parse("10.0.0.0").value().plus(number); }

TEST(AddressRunsTest, NeighboursAreOneRun) {
  AddressRuns taken;
  for (const std::uint64_t number : {1, 3, 2}) taken.add(v4(number));
  EXPECT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken.free_from(v4(0)), v4(0));
  EXPECT_EQ(taken.free_from(v4(1)), v4(4));
  taken.remove(v4(2));
  EXPECT_EQ(taken.size(), 2U);
  EXPECT_EQ(taken.free_from(v4(1)), v4(2));
}

TEST(AddressRunsTest, FamiliesStandApart) {
  AddressRuns taken;
  const auto v6 = IpAddress::parse("fd00::1").value();
  taken.add(v6);
  taken.add(v4(1));
  EXPECT_EQ(taken.free_from(v6), v6.plus(1));
  EXPECT_EQ(taken.free_from(v4(1)), v4(2));
  EXPECT_FALSE(taken.contains(v6.plus(1)));
}

TEST(AddressRunsTest, AgreesWithASet) {
  std::mt19937 random(7);
  AddressRuns taken;
  std::set<std::uint64_t> plain;
  for (int step = 0; step < 20'000; ++step) {
    const std::uint64_t number = random() % 64;
    if (random() % 2 == 0) {
      taken.add(v4(number));
      plain.insert(number);
    } else {
      taken.remove(v4(number));
      plain.erase(number);
    }
    auto free = random() % 64;
    const auto from = v4(free);
    while (plain.contains(free)) ++free;
    ASSERT_EQ(taken.free_from(from), v4(free)) << step;
    ASSERT_EQ(taken.contains(v4(number)), plain.contains(number)) << step;
    std::size_t runs = 0;
    for (const auto each : plain) runs += plain.contains(each - 1) ? 0 : 1;
    ASSERT_EQ(taken.size(), runs) << step;
  }
}

}  // namespace
}  // namespace meshd::policy
