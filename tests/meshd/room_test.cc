#include "meshd/room.h"

#include <gtest/gtest.h>

namespace meshd {
namespace {

constexpr auto kSet = static_cast<std::size_t>(policy::SetId::kVip4);

std::string refusal(std::size_t before, std::size_t after) {
  Room was{}, is{};
  was[kSet] = before;
  is[kSet] = after;
  const auto status = check_room(was, is);
  return status ? "" : status.error().what;
}

TEST(RoomTest, ASetHoldsItsSizeAndNotOneMore) {
  const std::size_t size = policy::set_info(policy::SetId::kVip4).size;
  EXPECT_EQ(refusal(0, size), "");
  EXPECT_EQ(refusal(0, size + 1),
            "the kernel's set vip4 would need 65537 elements and holds 65536");
}

// Else a node that is too full could not even be made emptier.
TEST(RoomTest, OneThatWasTooFullMayShrink) {
  const std::size_t size = policy::set_info(policy::SetId::kVip4).size;
  EXPECT_EQ(refusal(size + 10, size + 9), "");
  EXPECT_EQ(refusal(size + 10, size + 10), "");
  EXPECT_NE(refusal(size + 10, size + 11), "");
}

}  // namespace
}  // namespace meshd
