#include "policy/diff.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace meshd::policy {
namespace {

Element slot(std::uint32_t number, std::uint32_t endpoint) {
  return ElementBuilder(SetId::kVip4)
      .addr(IpAddress::v4(0x0ad60001))
      .proto(Proto::kTcp)
      .port(80)
      .number(number)
      .data()
      .addr(IpAddress::v4(endpoint))
      .build();
}

std::vector<Element> random_elements(std::mt19937& random) {
  std::vector<Element> elements;
  for (int i = 0; i < 40; ++i) {
    const auto id = random() % 2 == 0 ? SetId::kLocal4 : SetId::kDrain4;
    elements.push_back(
        ElementBuilder(id).addr(IpAddress::v4(static_cast<std::uint32_t>(random() % 30))).build());
  }
  std::ranges::sort(elements);
  const auto [first, last] = std::ranges::unique(elements);
  elements.erase(first, last);
  return elements;
}

TEST(DiffTest, OfEqualSetsIsEmpty) {
  std::mt19937 random(1);
  const auto elements = random_elements(random);
  EXPECT_TRUE(diff(elements, elements).empty());
}

TEST(DiffTest, AppliedToTheOneGivesTheOther) {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    const auto from = random_elements(random), to = random_elements(random);
    const auto delta = diff(from, to);
    std::vector<Element> result;
    std::ranges::set_difference(from, delta.remove, std::back_inserter(result));
    EXPECT_EQ(result.size() + delta.remove.size(), from.size());
    result.insert(result.end(), delta.add.begin(), delta.add.end());
    std::ranges::sort(result);
    EXPECT_EQ(result, to);
  }
}

TEST(DiffTest, OtherDataOfAMapIsRemovedAndAdded) {
  const std::vector from = {slot(0, 1), slot(1, 1)}, to = {slot(0, 1), slot(1, 2)};
  const auto delta = diff(from, to);
  EXPECT_EQ(delta.remove, std::vector{slot(1, 1)});
  EXPECT_EQ(delta.add, std::vector{slot(1, 2)});
}

TEST(DiffTest, OrderDoesNotMatter) {
  const std::vector from = {slot(2, 1), slot(0, 1)}, to = {slot(3, 1), slot(2, 1), slot(1, 1)};
  const auto delta = diff(from, to);
  EXPECT_EQ(delta.remove, std::vector{slot(0, 1)});
  EXPECT_EQ(delta.add, (std::vector{slot(1, 1), slot(3, 1)}));
}

TEST(DiffTest, WhatIsForgottenIsMissing) {
  const auto local = ElementBuilder(SetId::kLocal4).addr(IpAddress::v4(1)).build();
  const std::vector wanted = {local, slot(0, 1)};
  Comparison comparison(wanted);
  comparison.saw(local);
  comparison.saw(slot(0, 1));
  comparison.saw(slot(0, 2));
  comparison.forget(SetId::kVip4);
  const auto delta = std::move(comparison).result();
  EXPECT_TRUE(delta.remove.empty());
  EXPECT_EQ(delta.add, std::vector{slot(0, 1)});
}

// Runs as fragments are, and as they never should be: overlapping, with repetitions.
TEST(DiffTest, SortingRunsIsSorting) {
  std::mt19937 random(3);
  for (int round = 0; round < 100; ++round) {
    std::vector<Element> all;
    for (int run = 0; run < 5; ++run) {
      const auto more = random_elements(random);
      all.insert(all.end(), more.begin(), more.end());
    }
    auto sorted = all;
    std::ranges::sort(sorted);
    sorted.erase(std::ranges::unique(sorted).begin(), sorted.end());
    sort_runs(all);
    EXPECT_EQ(all, sorted);
  }
}

}  // namespace
}  // namespace meshd::policy
