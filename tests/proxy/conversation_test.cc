#include "proxy/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/nginx_config.h"
#include "tests/proxy/samples.h"

namespace meshd::proxy {
namespace {

using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

class ConversationTest : public testing::Test {
 protected:
  ConversationTest() {
    site_.zone = "mesh.example.org";
    told_.head.method = "GET";
    told_.head.host = told_.line_host = "db.svc.mesh.example.org";
    told_.head.uri = "/";
    told_.head.client = "198.51.100.3";
    cookie_ = std::string(kTokenCookie) + "=" + to_base64url("mesh_a");
    told_.head.cookie = cookie_;
    set(sample_opening("w1", "db"));
  }
  void set(const Opening& opening) {
    writer_.set(opening);
    directory_ = writer_.directory();
  }
  static std::optional<Answer> nothing(const Question&) { return std::nullopt; }
  [[nodiscard]] Conversation made() const { return {site_, told_}; }
  static Reason refused(const Step& step) {
    const auto* refuse = std::get_if<Refuse>(&step);
    EXPECT_NE(refuse, nullptr);
    return refuse == nullptr ? Reason::kOddRequest : refuse->reason;
  }
  Question asked(Conversation& one) {
    const auto step = one.step(directory_.get(), nothing);
    const auto* ask = std::get_if<Ask>(&step);
    EXPECT_NE(ask, nullptr);
    return ask == nullptr ? Question() : ask->question;
  }

  const Answer may_read_{Answer::Kind::kGood, {"", "bob", false}, Access::kCanRead};
  Site site_;
  Told told_;
  std::string cookie_;
  DirectoryWriter writer_;
  std::shared_ptr<const Directory> directory_;
};

TEST_F(ConversationTest, GoesFromAQuestionToItsAnswer) {
  auto one = made();
  const auto question = asked(one);
  EXPECT_EQ(question.token, "mesh_a");
  one.answered(question, may_read_);
  const auto step = one.step(directory_.get(), nothing);
  const auto* allow = std::get_if<Allow>(&step);
  ASSERT_NE(allow, nullptr);
  EXPECT_EQ(allow->upstream, "192.0.2.7:20001");
}

TEST_F(ConversationTest, WhatIsKnownIsNotAskedFor) {
  auto one = made();
  const auto step = one.step(directory_.get(), [&](const Question&) { return may_read_; });
  EXPECT_TRUE(std::holds_alternative<Allow>(step));
  EXPECT_EQ(one.level_question()->id, "w1");
}

TEST_F(ConversationTest, AnAnswerCountsForTheWorkloadThatItWasAbout) {
  auto one = made();
  one.answered(asked(one), may_read_);
  writer_.end("w1", TimePoint());
  set(sample_opening("w2", "db"));
  EXPECT_EQ(asked(one).id, "w2");
}

TEST_F(ConversationTest, ADirectoryThatNeverStandsStillIsGivenUp) {
  auto one = made();
  for (std::size_t i = 0; i < kMaxQuestions; ++i) {
    one.answered(asked(one), may_read_);
    auto opening = sample_opening("w1", "db");
    opening.owner = "owner" + std::to_string(i);
    set(opening);
  }
  EXPECT_EQ(refused(one.step(directory_.get(), nothing)), Reason::kCannotAsk);
}

TEST_F(ConversationTest, WithoutADirectoryNothingIsKnown) {
  EXPECT_EQ(refused(made().step(nullptr, nothing)), Reason::kCannotAsk);
}

TEST_F(ConversationTest, WhatIsOddIsRefusedWithTheReasonOnItsPage) {
  told_.twice = true;
  auto twice = made();
  EXPECT_EQ(refused(twice.step(directory_.get(), nothing)), Reason::kOddRequest);
  EXPECT_THAT(twice.page({Reason::kOddRequest, {}, {}}).body, HasSubstr("a header came twice"));
  told_.twice = false;
  told_.head.uri = "no path";
  EXPECT_EQ(refused(made().step(directory_.get(), nothing)), Reason::kOddRequest);
  told_.head.uri = "/";
  told_.line_host = "other.example.org";
  EXPECT_EQ(refused(made().step(directory_.get(), nothing)), Reason::kOddRequest);
  told_.head.host = told_.line_host;
  EXPECT_EQ(refused(made().step(directory_.get(), nothing)), Reason::kMisdirected);
}

TEST_F(ConversationTest, WhatIsOpenIsBoundToTheWorkloadItself) {
  auto opening = sample_opening("w1", "db");
  opening.state = Opening::State::kDraining;
  auto one = made();
  const auto step = one.step(directory_.get(), [&](const Question&) { return may_read_; });
  auto bound = one.of_instance(std::get<Allow>(step));
  set(opening);
  set(sample_opening("w2", "db"));
  const auto known = [&](const Question& question) {
    EXPECT_EQ(question.id, "w1");
    return may_read_;
  };
  EXPECT_EQ(refused(bound.step(directory_.get(), known)), Reason::kEnding);
}

TEST_F(ConversationTest, AKeyStandsForCallerTargetWorkloadPortAndAddress) {
  const Allow allow{"192.0.2.7:20001", "w1", 8888, {}, "", "", ""};
  const auto key = made().relay_key(allow);
  EXPECT_EQ(key.size(), 40U);
  EXPECT_EQ(key.find_first_not_of("0123456789abcdef"), std::string::npos);
  auto other = allow;
  other.user.name = "bob";
  EXPECT_EQ(made().relay_key(other), key);
  other.port = 80;
  EXPECT_NE(made().relay_key(other), key);
  other = allow;
  other.id = "w2";
  EXPECT_NE(made().relay_key(other), key);
  told_.head.client = "198.51.100.4";
  EXPECT_NE(made().relay_key(allow), key);
  told_.head.client = "198.51.100.3";
  const auto cookie = std::string(kTokenCookie) + "=" + to_base64url("mesh_b");
  told_.head.cookie = cookie;
  EXPECT_NE(made().relay_key(allow), key);
}

TEST_F(ConversationTest, WhoMayGoesOnAndWhoDrainsToo) {
  const std::string upstream = "192.0.2.7:20001";
  const auto refusal = [](Reason reason) { return Step(Refuse{reason, {}, {}}); };
  EXPECT_EQ(fate_of(Allow{upstream, "w1", 1, {}, "", "", ""}, upstream), Fate::kGoesOn);
  EXPECT_EQ(fate_of(Allow{"192.0.2.8:20001", "w1", 1, {}, "", "", ""}, upstream), Fate::kCut);
  EXPECT_EQ(fate_of(Ask(), upstream), Fate::kUnsure);
  EXPECT_EQ(fate_of(MakeOpening(), upstream), Fate::kCut);
  EXPECT_EQ(fate_of(Redirect(), upstream), Fate::kCut);
  for (const auto reason : {Reason::kEnding, Reason::kNotReady}) {
    EXPECT_EQ(fate_of(refusal(reason), upstream), Fate::kGoesOn);
  }
  for (const auto reason :
       {Reason::kOddRequest, Reason::kSignIn, Reason::kBadToken, Reason::kNotYours,
        Reason::kNotFromHere, Reason::kForeignPage, Reason::kNoSuchName, Reason::kNotReadable,
        Reason::kNoSuchPort, Reason::kEnded, Reason::kUnassigned, Reason::kChanged,
        Reason::kMisdirected, Reason::kDoesNotAnswer, Reason::kNotStarted, Reason::kBeingOpened,
        Reason::kTooManyOpen, Reason::kCannotAsk}) {
    EXPECT_EQ(fate_of(refusal(reason), upstream), Fate::kCut) << reason_word(reason);
  }
}

TEST_F(ConversationTest, OnlyAllowIsAnsweredWithAnUpstream) {
  const auto refused = auth_reply(Refuse{Reason::kEnded, {"u", "bob", false}, "w1"});
  EXPECT_EQ(refused.status, 403);
  EXPECT_THAT(refused.headers,
              UnorderedElementsAre(Pair(kStatusHeader, "410"),
                                   Pair(kTextHeader, refusal_text(Reason::kEnded))));
  const auto redirected = auth_reply(Redirect{"/x", {"a=1", "b=2"}, true});
  EXPECT_EQ(redirected.status, 403);
  EXPECT_THAT(redirected.headers,
              UnorderedElementsAre(Pair(kStatusHeader, "303"), Pair(kLocationHeader, "/x"),
                                   Pair(kSetCookieHeader, "a=1")));
  const auto allowed =
      auth_reply(Allow{"u", "w1", 1, {"uuid", "bob", false}, "c=1", "Basic x", "s=1"}, "unix:/p");
  EXPECT_EQ(allowed.status, 200);
  EXPECT_THAT(
      allowed.headers,
      UnorderedElementsAre(Pair(kUpstreamHeader, "unix:/p"), Pair(kUserHeader, "bob"),
                           Pair(kArvadosUserHeader, "uuid"), Pair(kCookieHeader, "c=1"),
                           Pair(kAuthorizationHeader, "Basic x"), Pair(kSetCookieHeader, "s=1")));
}

TEST_F(ConversationTest, UpstreamsAreReadAsTheyAreWritten) {
  EXPECT_EQ(parse_upstream("192.0.2.7:20001"),
            (Upstream{IpAddress::parse("192.0.2.7").value(), 20001}));
  EXPECT_EQ(parse_upstream("[2001:db8::7]:1"),
            (Upstream{IpAddress::parse("2001:db8::7").value(), 1}));
  for (const auto* text : {"", ":", "192.0.2.7", "192.0.2.7:0", "host:1", "192.0.2.7:1 "}) {
    EXPECT_FALSE(parse_upstream(text)) << text;
  }
}

}  // namespace
}  // namespace meshd::proxy
