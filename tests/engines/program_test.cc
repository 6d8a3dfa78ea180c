// What the programs share: one answer, by the deadline or of the last resort.
#include "engines/program.h"

#include <gtest/gtest.h>
#include <sys/time.h>

#include <chrono>

#include "engines/limits.h"

namespace meshd::engines {
namespace {

std::chrono::seconds left() {
  itimerval timer{};
  getitimer(ITIMER_REAL, &timer);
  return std::chrono::seconds(timer.it_value.tv_sec);
}

TEST(ProgramTest, LastResortIsForgottenOnceThereIsAnAnswer) {
  end_after_deadline(2, "never said\n");
  EXPECT_GE(left() + std::chrono::seconds(1), kDeadline);
  forget_deadline();
  itimerval timer{};
  ASSERT_EQ(getitimer(ITIMER_REAL, &timer), 0);
  EXPECT_EQ(timer.it_value.tv_sec, 0);
  EXPECT_EQ(timer.it_value.tv_usec, 0);
}

}  // namespace
}  // namespace meshd::engines
