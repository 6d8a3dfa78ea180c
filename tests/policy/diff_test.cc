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

}  // namespace
}  // namespace meshd::policy
