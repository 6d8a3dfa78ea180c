#include "controller/elsewhere.h"

#include <gmock/gmock.h>

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using Kind = NodeNews::Kind;

class ElsewhereTest : public testing::Test {
 protected:
  std::vector<NodeNews> hear(const Elsewhere& from, const std::vector<NodeNews>& news) {
    std::vector<NodeNews> heard;
    for (const auto& line : from.lines(news)) {
      for (auto& one : me_.hear(line, now_)) heard.push_back(std::move(one));
    }
    return heard;
  }
  void hear_myself() { EXPECT_THAT(hear(me_, {}), IsEmpty()); }

  TimePoint now_{1h};
  Elsewhere me_{"me", true, now_}, a_{"a", true, now_}, b_{"b", true, now_};
};

TEST_F(ElsewhereTest, WhatIsToldIsHeard) {
  const std::vector<NodeNews> news = {{Kind::kTook, "n1", std::nullopt},
                                      {Kind::kHolds, "n2", 0xffff'ffff'ffff'fff1},
                                      {Kind::kHolds, "n3", 0}};
  EXPECT_TRUE(me_.alone());
  EXPECT_EQ(hear(a_, news), news);
  EXPECT_FALSE(me_.alone());
  EXPECT_TRUE(me_.has("n1") && me_.has("n2") && me_.has("n3"));
  EXPECT_FALSE(me_.has("n4"));
  EXPECT_THAT(hear(me_, news), IsEmpty()) << "one's own word is no news";
}

TEST_F(ElsewhereTest, ManyNodesTakeSeveralLines) {
  std::vector<NodeNews> news;
  for (int i = 0; i < 2000; ++i) news.push_back({Kind::kHolds, "node-" + std::to_string(i), i});
  const auto lines = a_.lines(news);
  EXPECT_GE(lines.size(), 5U);
  for (const auto& line : lines) EXPECT_LE(line.size(), kMaxNewsBytes);
  EXPECT_THAT(hear(a_, news), SizeIs(2000));
}

TEST_F(ElsewhereTest, OnlyWhoHasANodeLosesIt) {
  hear(a_, {{Kind::kTook, "n1", {}}});
  hear(b_, {{Kind::kTook, "n1", {}}});
  EXPECT_THAT(hear(a_, {{Kind::kLost, "n1", {}}}), IsEmpty());
  EXPECT_TRUE(me_.has("n1"));
  EXPECT_THAT(hear(b_, {{Kind::kLost, "n1", {}}}), SizeIs(1));
  EXPECT_FALSE(me_.has("n1"));
}

TEST_F(ElsewhereTest, WhoFallsSilentIsGone) {
  hear(a_, {{Kind::kHolds, "n1", {}}});
  const auto heard = now_;
  now_ += kNewsLife;
  hear_myself();
  EXPECT_THAT(me_.expire(now_), IsEmpty());
  now_ += 1ms;
  EXPECT_THAT(me_.expire(now_), ElementsAre(std::pair<std::string, TimePoint>("n1", heard)));
  EXPECT_FALSE(me_.has("n1"));
  EXPECT_TRUE(me_.alone());
}

TEST_F(ElsewhereTest, WhoHearsNothingKnowsNothing) {
  hear(a_, {{Kind::kHolds, "n1", {}}});
  now_ += 1h;
  EXPECT_FALSE(me_.hears(now_));
  EXPECT_THAT(me_.expire(now_), IsEmpty());
  hear_myself();
  EXPECT_TRUE(me_.hears(now_));
  EXPECT_THAT(me_.expire(now_), IsEmpty()) << "they have as long as ever to be heard";
  for (int i = 0; i < 3; ++i) {
    now_ += kNewsLife / 2;
    hear_myself();
  }
  EXPECT_THAT(me_.expire(now_), SizeIs(1));
}

TEST_F(ElsewhereTest, WhatCannotBeReadSaysNothing) {
  for (const auto* line : {"", "1 ", "2 a =n1", "=n1", "1", "x"}) {
    EXPECT_THAT(me_.hear(line, now_), IsEmpty()) << line;
  }
  EXPECT_THAT(me_.hear("1 a n1 = ?n1 =n1: =n1:xyz =n1:fffffffffffffffff  =n2", now_),
              ElementsAre(NodeNews{Kind::kHolds, "n2", {}}));
  EXPECT_FALSE(me_.has("n1"));
}

TEST(ElsewhereAloneTest, WhoSharesNothingHearsAll) {
  const Elsewhere only("me", false, TimePoint(1h));
  EXPECT_TRUE(only.hears(TimePoint(100h)));
  EXPECT_TRUE(only.alone());
}

}  // namespace
}  // namespace meshd::controller
