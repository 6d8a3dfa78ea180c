#include "policy/element_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace meshd::policy {
namespace {

Element local(std::uint32_t address) {
  return ElementBuilder(SetId::kLocal4).addr(IpAddress::v4(address)).build();
}

TEST(ElementIndexTest, KnowsNothingAtFirst) {
  const ElementIndex index;
  EXPECT_EQ(index.size(), 0U);
  EXPECT_FALSE(index.contains(local(1)));
}

TEST(ElementIndexTest, TellsTheFirstUseAndTheLast) {
  ElementIndex index;
  EXPECT_TRUE(index.add(local(1)));
  EXPECT_FALSE(index.add(local(1)));
  EXPECT_FALSE(index.remove(local(1)));
  EXPECT_TRUE(index.contains(local(1)));
  EXPECT_TRUE(index.remove(local(1)));
  EXPECT_FALSE(index.contains(local(1)));
}

// Against a map of the library, from empty to hundreds and back: slots close up behind what
// goes.
TEST(ElementIndexTest, IsAMapOfUses) {
  std::mt19937 random(1);
  ElementIndex index;
  std::map<std::uint32_t, int> uses;
  for (int step = 0; step < 20'000; ++step) {
    const auto address = static_cast<std::uint32_t>(random() % 500);
    const bool growing = step % 5'000 < 2'500;
    if (random() % 4 != 0 ? growing : !growing) {
      EXPECT_EQ(index.add(local(address)), ++uses[address] == 1);
    } else if (const auto found = uses.find(address); found != uses.end()) {
      const bool last = --found->second == 0;
      EXPECT_EQ(index.remove(local(address)), last);
      if (last) uses.erase(found);
    }
    ASSERT_EQ(index.size(), uses.size());
  }
  for (std::uint32_t address = 0; address < 500; ++address) {
    EXPECT_EQ(index.contains(local(address)), uses.contains(address)) << address;
  }
}

}  // namespace
}  // namespace meshd::policy
