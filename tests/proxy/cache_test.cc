#include "proxy/cache.h"

#include <gtest/gtest.h>

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;
using Kind = Answer::Kind;

class ProxyCacheTest : public testing::Test {
 protected:
  static Question level_of(std::string token, std::string id = "w1",
                           Access needed = Access::kCanRead) {
    return {Question::What::kLevel, std::move(token), std::move(id), "alice", "", needed};
  }
  [[nodiscard]] bool has(const Question& question, Duration after) {
    return cache_.find(question, now_ + after) != nullptr;
  }

  const Answer good_{Kind::kGood, {"", "bob", false}, Access::kCanRead};
  const Answer bad_{Kind::kBadToken, {}, std::nullopt};
  TimePoint now_{10h};
  AnswerCache cache_{CacheLimits{60s, 5s, 4}};
};

TEST_F(ProxyCacheTest, AGoodAnswerLivesForAMinuteAndABadOneForFiveSeconds) {
  cache_.put(level_of("a"), good_, now_);
  cache_.put(level_of("b"), bad_, now_);
  cache_.put(level_of("c"), {Kind::kGood, {}, std::nullopt}, now_);
  ASSERT_TRUE(has(level_of("a"), 59s));
  EXPECT_EQ(*cache_.find(level_of("a"), now_), good_);
  EXPECT_TRUE(has(level_of("b"), 4s) && has(level_of("c"), 4s));
  EXPECT_FALSE(has(level_of("b"), 5s) || has(level_of("c"), 5s));
  EXPECT_FALSE(has(level_of("a"), 60s));
  EXPECT_EQ(cache_.size(), 0);
}

TEST_F(ProxyCacheTest, WhatDoesNotSufficeIsAskedAgainSoon) {
  cache_.put(level_of("a", "w1", Access::kOwner), good_, now_);
  EXPECT_FALSE(has(level_of("a", "w1", Access::kOwner), 5s));
}

TEST_F(ProxyCacheTest, EachTokenWorkloadAndLevelIsAQuestionOfItsOwn) {
  cache_.put(level_of("a"), good_, now_);
  EXPECT_FALSE(has(level_of("b"), 0s));
  EXPECT_FALSE(has(level_of("a", "w2"), 0s));
  EXPECT_FALSE(has(level_of("a", "w1", Access::kOwner), 0s));
  auto anothers = level_of("a");
  anothers.owner = "carol";
  EXPECT_FALSE(has(anothers, 0s)) << "declared anew by somebody else";
  EXPECT_FALSE(has({Question::What::kWho, "a", "", "", "", Access::kOwner}, 0s));
}

TEST_F(ProxyCacheTest, ANewAnswerReplacesTheOldOne) {
  cache_.put(level_of("a"), good_, now_);
  cache_.put(level_of("a"), bad_, now_ + 1s);
  ASSERT_TRUE(has(level_of("a"), 2s));
  EXPECT_EQ(cache_.find(level_of("a"), now_ + 2s)->kind, Kind::kBadToken);
  EXPECT_EQ(cache_.size(), 1);
}

TEST_F(ProxyCacheTest, ThatNobodyCouldBeAskedIsNotKept) {
  cache_.put(level_of("a"), {Kind::kUnavailable, {}, std::nullopt}, now_);
  EXPECT_FALSE(has(level_of("a"), 0s));
}

TEST_F(ProxyCacheTest, GarbageDoesNotPushOutThoseWhoAreLetIn) {
  cache_.put(level_of("a"), good_, now_);
  for (int i = 0; i < 1000; ++i) cache_.put(level_of("x" + std::to_string(i)), bad_, now_);
  EXPECT_TRUE(has(level_of("a"), 0s));
  EXPECT_EQ(cache_.size(), 5);
  EXPECT_TRUE(has(level_of("x999"), 0s));
}

TEST_F(ProxyCacheTest, TheOldestMakesRoom) {
  for (const auto* const token : {"a", "b", "c", "d", "e"}) {
    cache_.put(level_of(token), good_, now_);
  }
  EXPECT_FALSE(has(level_of("a"), 0s));
  EXPECT_TRUE(has(level_of("b"), 0s) && has(level_of("e"), 0s));
}

TEST_F(ProxyCacheTest, AClearedCacheKnowsNothing) {
  cache_.put(level_of("a"), good_, now_);
  cache_.put(level_of("b"), bad_, now_);
  cache_.clear();
  EXPECT_FALSE(has(level_of("a"), 0s) || has(level_of("b"), 0s));
  cache_.put(level_of("a"), good_, now_);
  EXPECT_TRUE(has(level_of("a"), 0s));
}

TEST_F(ProxyCacheTest, WhomSomebodySeesIsKeptBesideWhoTheyAre) {
  const Question sees{Question::What::kSees, "a", "", "", "", Access::kOwner};
  const Question who{Question::What::kWho, "a", "", "", "", Access::kOwner};
  cache_.put(sees, good_, now_);
  EXPECT_TRUE(has(sees, 59s));
  EXPECT_FALSE(has(who, 0s));
}

}  // namespace
}  // namespace meshd::proxy
