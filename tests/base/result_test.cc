#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace meshd {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return fail(ErrorCode::kInvalid, "odd");
  return n / 2;
}
Result<int> quarter(int n) {
  const int once = TRY(half(n));
  return TRY(half(once));
}
Status even(int n) {
  CHECK_OK(half(n));
  return {};
}

TEST(ResultTest, TryUnwrapsOrReturnsTheError) {
  EXPECT_EQ(quarter(8).value(), 2);
  ASSERT_FALSE(quarter(6));
  EXPECT_EQ(quarter(6).error().what, "odd");
  EXPECT_TRUE(even(2));
  EXPECT_EQ(even(3).error().code, ErrorCode::kInvalid);
}

TEST(ResultTest, ContextGoesInFront) {
  EXPECT_EQ((Error{ErrorCode::kInvalid, "odd"}).in("apply").what, "apply: odd");
}

TEST(ResultTest, ErrnoIsKeptAndSpelledOut) {
  const Status status = fail_errno("open x", ENOENT);
  EXPECT_EQ(status.error().sys_errno, ENOENT);
  EXPECT_EQ(status.error().what, "open x: No such file or directory");
}

}  // namespace
}  // namespace meshd
