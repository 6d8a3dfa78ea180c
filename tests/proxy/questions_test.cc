#include "proxy/questions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

struct Waiter {};

class QuestionsTest : public testing::Test {
 protected:
  static Question about(std::string token) {
    return {Question::What::kLevel, std::move(token), "w1", "alice", "", Access::kCanRead};
  }
  TimePoint now_{1h};
  Questions<Waiter> questions_{20s, 3};
  Waiter one_, two_;
};

TEST_F(QuestionsTest, WhoAsksTheSameWaitsForTheSameAnswer) {
  EXPECT_FALSE(questions_.join(about("a"), &one_));
  const auto number = questions_.add(about("a"), &one_, now_);
  ASSERT_TRUE(number);
  EXPECT_TRUE(questions_.join(about("a"), &two_));
  EXPECT_TRUE(questions_.join(about("a"), nullptr));
  EXPECT_FALSE(questions_.join(about("b"), &two_));
  EXPECT_EQ(questions_.waiting(), 2U);
  const auto entry = questions_.take(*number);
  ASSERT_TRUE(entry);
  EXPECT_THAT(entry->waiting, ElementsAre(&one_, &two_));
  EXPECT_FALSE(questions_.take(*number)) << "answered once";
  EXPECT_FALSE(questions_.join(about("a"), &one_));
}

TEST_F(QuestionsTest, OneThatIsOverdueIsAskedAnewButCountsUntilItsAnswer) {
  const auto number = questions_.add(about("a"), &one_, now_);
  EXPECT_FALSE(questions_.take_overdue(now_ + 19s));
  const auto overdue = questions_.take_overdue(now_ + 20s);
  ASSERT_TRUE(overdue);
  EXPECT_THAT(overdue->waiting, ElementsAre(&one_));
  EXPECT_FALSE(questions_.take_overdue(now_ + 20s)) << "told once";
  EXPECT_FALSE(questions_.join(about("a"), &one_));
  const auto again = questions_.add(about("a"), &two_, now_ + 20s);
  ASSERT_TRUE(again);
  const auto late = questions_.take(*number);
  ASSERT_TRUE(late);
  EXPECT_TRUE(late->late);
  EXPECT_THAT(late->waiting, IsEmpty());
  EXPECT_TRUE(questions_.join(about("a"), &one_)) << "the second one goes on";
}

TEST_F(QuestionsTest, ThereIsRoomForSoManyWhoeverWaits) {
  for (const auto* token : {"a", "b", "c"}) {
    EXPECT_TRUE(questions_.add(about(token), &one_, now_));
  }
  EXPECT_FALSE(questions_.add(about("d"), &one_, now_));
  while (questions_.take_overdue(now_ + 20s)) {
  }
  EXPECT_FALSE(questions_.add(about("d"), &one_, now_ + 20s));
  questions_.forget(1);
  EXPECT_TRUE(questions_.add(about("d"), &one_, now_ + 20s));
}

}  // namespace
}  // namespace meshd::proxy
