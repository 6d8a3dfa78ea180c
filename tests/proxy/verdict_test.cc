#include "proxy/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/samples.h"

namespace meshd::proxy {
namespace {

using testing::ElementsAre;
using State = Opening::State;

constexpr std::string_view kRequestUuid = "zzzzz-xvhdp-000000000000000";
const std::string kOldToken(50, '7');  // Arvados' old form, and perhaps an application's

class ProxyVerdictTest : public testing::Test {
 protected:
  ProxyVerdictTest() {
    opening_.request = kRequestUuid;
    opening_.ports = {sample_port(8888, Access::kCanRead), sample_port(80, Access::kPublic),
                      sample_port(81, Access::kOwner)};
    request_.method = "GET";
    request_.safe = true;
    request_.uri = "/";
    request_.client = IpAddress::parse("198.51.100.3").value();
  }
  [[nodiscard]] Step step() const {
    DirectoryWriter writer;
    writer.set(opening_);
    for (const auto& other : others_) writer.set(other);
    if (ended_) writer.end(opening_.id, TimePoint());
    for (const auto& [name, target] : aliases_) writer.set_alias(name, target);
    writer.set_port(9000, ServiceTarget{"db", std::nullopt});
    return decide(*writer.directory(), target_, request_, known_);
  }
  // "allow w1:8888", "refuse not-ready", "ask level CAN...", "redirect /": what it comes to.
  [[nodiscard]] std::string outcome() const {
    const auto decided = step();
    if (const auto* allow = std::get_if<Allow>(&decided)) {
      return "allow " + allow->id + ":" + std::to_string(allow->port);
    }
    if (const auto* no = std::get_if<Refuse>(&decided)) {
      return "refuse " + std::string(reason_word(no->reason));
    }
    if (const auto* redirect = std::get_if<Redirect>(&decided))
      return "redirect " + redirect->location;
    if (const auto* make = std::get_if<MakeOpening>(&decided)) {
      return "open " + make->id + ":" + std::to_string(make->port);
    }
    const auto& question = std::get<Ask>(decided).question;
    return question.what == Question::What::kWho ? "ask who" : "ask level";
  }
  Allow allowed() const {
    const auto decided = step();
    const auto* allow = std::get_if<Allow>(&decided);
    EXPECT_NE(allow, nullptr) << outcome();
    return allow == nullptr ? Allow() : *allow;
  }
  Redirect redirected() const {
    const auto decided = step();
    const auto* redirect = std::get_if<Redirect>(&decided);
    EXPECT_NE(redirect, nullptr) << outcome();
    return redirect == nullptr ? Redirect() : *redirect;
  }
  void to_port(std::uint16_t port) { target_ = ServiceTarget{"db", port}; }
  void signed_in(std::optional<Access> level) {
    request_.cookie_token = "mesh_token";
    known_.level =
        Answer{Answer::Kind::kGood, {"zzzzz-tpzed-000000000000000", "bob", false}, level};
  }

  Opening opening_ = sample_opening("w1", "db");
  std::vector<Opening> others_;
  std::vector<std::pair<std::string, Target>> aliases_;
  bool ended_ = false;
  Target target_ = ServiceTarget{"db", std::nullopt};
  Request request_;
  Known known_;
};

TEST_F(ProxyVerdictTest, WithoutATokenThePersonIsToSignIn) {
  EXPECT_EQ(outcome(), "refuse sign-in");
  to_port(12345);
  EXPECT_EQ(outcome(), "refuse sign-in") << "and so at a port that nobody published";
}

TEST_F(ProxyVerdictTest, WhatATokenMayIsAskedOnceAndDecides) {
  request_.cookie_token = "mesh_token";
  const auto decided = step();
  const auto* ask = std::get_if<Ask>(&decided);
  ASSERT_NE(ask, nullptr);
  EXPECT_EQ(ask->question.what, Question::What::kLevel);
  EXPECT_EQ(ask->question.token, "mesh_token");
  EXPECT_EQ(ask->question.id, "w1");
  EXPECT_EQ(ask->question.owner, "alice");
  EXPECT_EQ(ask->question.request, kRequestUuid);
  EXPECT_EQ(ask->question.needed, Access::kCanRead);
  known_.take(ask->question, {Answer::Kind::kGood, {}, Access::kCanRead});
  EXPECT_EQ(outcome(), "allow w1:8888");
}

TEST_F(ProxyVerdictTest, EveryLevelAgainstEveryAccess) {
  const std::optional<Access> levels[] = {Access::kOwner, Access::kCanManage, Access::kCanWrite,
                                          Access::kCanRead, std::nullopt};
  // Rows: needed, from OWNER to CAN_READ; columns: levels as above.
  const std::string_view expected[] = {"ynnn-", "yynn-", "yyyn-", "yyyy-"};
  for (std::size_t needed = 0; needed < std::size(expected); ++needed) {
    opening_.ports.front().access = static_cast<Access>(needed);
    for (std::size_t level = 0; level < std::size(levels); ++level) {
      signed_in(levels[level]);
      const char want = expected[needed][level];
      EXPECT_EQ(outcome(), want == 'y'   ? "allow w1:8888"
                           : want == 'n' ? "refuse not-yours"
                                         : "refuse not-readable")
          << needed << " " << level;
    }
  }
}

TEST_F(ProxyVerdictTest, ABadTokenIs401AndSilenceIs503) {
  request_.cookie_token = "mesh_token";
  known_.level = Answer{Answer::Kind::kBadToken, {}, std::nullopt};
  EXPECT_EQ(outcome(), "refuse bad-token");
  known_.level = Answer{Answer::Kind::kUnavailable, {}, Access::kOwner};
  EXPECT_EQ(outcome(), "refuse cannot-ask");
}

TEST_F(ProxyVerdictTest, PublicAsksNobodyAndTellsNobodysName) {
  to_port(80);
  EXPECT_EQ(outcome(), "allow w1:80");
  request_.cookie_token = "mesh_token";
  EXPECT_EQ(outcome(), "allow w1:80");
  EXPECT_EQ(allowed().user, User());
}

TEST_F(ProxyVerdictTest, WhoIsLetInIsToldToTheContainer) {
  signed_in(Access::kCanRead);
  EXPECT_EQ(allowed().user.name, "bob");
  EXPECT_EQ(allowed().user.uuid, "zzzzz-tpzed-000000000000000");
}

TEST_F(ProxyVerdictTest, ANameThatNoHeaderCanHoldIsNotTold) {
  signed_in(Access::kCanRead);
  known_.level->user.name = "bob\r\nX-Mesh-User: root";
  EXPECT_EQ(allowed().user.name, "");
  EXPECT_EQ(allowed().user.uuid, "zzzzz-tpzed-000000000000000");
}

TEST_F(ProxyVerdictTest, TheUpstreamIsTheNodesAddressAndPort) {
  signed_in(Access::kOwner);
  EXPECT_EQ(allowed().upstream, "192.0.2.7:20001");
  opening_.ports.front().addresses = {IpAddress::parse("2001:db8::7").value()};
  EXPECT_EQ(allowed().upstream, "[2001:db8::7]:20001");
}

TEST_F(ProxyVerdictTest, NobodysNameIs404WithoutAQuestion) {
  request_.cookie_token = "mesh_token";
  for (const Target& target :
       {Target(ServiceTarget{"nobody", 80}), Target(InstanceTarget{"w9", 80}),
        Target(RequestTarget{"zzzzz-xvhdp-999999999999999", std::nullopt})}) {
    target_ = target;
    EXPECT_EQ(outcome(), "refuse no-such-name");
  }
  target_ = PortTarget{9001};
  EXPECT_EQ(outcome(), "refuse unassigned");
}

TEST_F(ProxyVerdictTest, AllKindsOfTargetsLeadToTheSame) {
  signed_in(Access::kOwner);
  for (const Target& target :
       {Target(ServiceTarget{"db", 8888}), Target(InstanceTarget{"w1", 8888}),
        Target(InstanceTarget{"w1", std::nullopt}), Target(PortTarget{9000}),
        Target(RequestTarget{std::string(kRequestUuid), std::nullopt})}) {
    target_ = target;
    EXPECT_EQ(outcome(), "allow w1:8888") << target_text(target);
  }
}

TEST_F(ProxyVerdictTest, ALinksNameLeadsToItsRequestAndPort) {
  signed_in(Access::kOwner);
  aliases_ = {{"ollama", RequestTarget{std::string(kRequestUuid), 81}},
              {"db", InstanceTarget{"w9", 80}}};
  target_ = ServiceTarget{"ollama", std::nullopt};
  EXPECT_EQ(outcome(), "allow w1:81");
  target_ = ServiceTarget{"ollama", 8888};
  EXPECT_EQ(outcome(), "allow w1:8888");
  target_ = ServiceTarget{"db", std::nullopt};
  EXPECT_EQ(outcome(), "allow w1:8888") << "a declared name before a link's";
}

TEST_F(ProxyVerdictTest, RawPortsAreNotForBrowsers) {
  signed_in(Access::kOwner);
  opening_.ports = {sample_port(5432, Access::kOwner)};
  opening_.ports.front().http = false;
  EXPECT_EQ(outcome(), "refuse no-such-port");
  to_port(5432);
  EXPECT_EQ(outcome(), "refuse no-such-port");
}

TEST_F(ProxyVerdictTest, AnOwnerOpensAnyPortOfTheirOwn) {
  to_port(12345);
  signed_in(Access::kOwner);
  EXPECT_EQ(outcome(), "open w1:12345");
  opening_.full = true;
  EXPECT_EQ(outcome(), "refuse too-many-open");
  opening_.full = false;
  opening_.state = State::kWaiting;
  EXPECT_EQ(outcome(), "refuse not-started");
  opening_.state = State::kReady;
  signed_in(Access::kCanManage);
  EXPECT_EQ(outcome(), "refuse not-yours");
  signed_in(std::nullopt);
  EXPECT_EQ(outcome(), "refuse not-readable");
}

TEST_F(ProxyVerdictTest, EndedIs410ToEverybody) {
  ended_ = true;
  EXPECT_EQ(outcome(), "refuse ended");
  target_ = InstanceTarget{"w1", 12345};
  EXPECT_EQ(outcome(), "refuse ended");
}

TEST_F(ProxyVerdictTest, ASuccessorTakesTheNameOfOneThatHasEnded) {
  ended_ = true;
  others_ = {sample_opening("w2", "db")};
  signed_in(Access::kOwner);
  EXPECT_EQ(outcome(), "allow w2:8888");
}

TEST_F(ProxyVerdictTest, WhatIsNotReadyIs503) {
  signed_in(Access::kOwner);
  auto& port = opening_.ports.front();
  port.ready = false;
  EXPECT_EQ(outcome(), "refuse not-ready");
  port.ready = true;
  port.addresses.clear();
  EXPECT_EQ(outcome(), "refuse not-ready");
  port.addresses = {IpAddress::parse("192.0.2.7").value()};
  port.upstream_port = 0;
  EXPECT_EQ(outcome(), "refuse not-ready");
  port.upstream_port = 20001;
  opening_.state = State::kAttached;
  EXPECT_EQ(outcome(), "allow w1:8888");
  opening_.state = State::kWaiting;
  EXPECT_EQ(outcome(), "refuse not-started");
  opening_.state = State::kDraining;
  EXPECT_EQ(outcome(), "refuse ending");
}

TEST_F(ProxyVerdictTest, WhoMayNotOpenItIsNotToldWhetherItIsReady) {
  opening_.ports.front().ready = false;
  EXPECT_EQ(outcome(), "refuse sign-in");
  signed_in(std::nullopt);
  EXPECT_EQ(outcome(), "refuse not-readable");
}

TEST_F(ProxyVerdictTest, SourcesAreJudgedByTheClientsAddress) {
  auto& port = opening_.ports.front();
  port.allow_from = {Prefix::parse("192.0.2.0/24").value()};
  EXPECT_EQ(outcome(), "refuse sign-in");
  signed_in(std::nullopt);
  EXPECT_EQ(outcome(), "refuse not-readable") << "no hint that there is such a service";
  signed_in(Access::kOwner);
  EXPECT_EQ(outcome(), "refuse not-from-here");
  request_.client = IpAddress::parse("192.0.2.200").value();
  EXPECT_EQ(outcome(), "allow w1:8888");
  request_.client.reset();
  EXPECT_EQ(outcome(), "refuse not-from-here");
  port.access = Access::kPublic;
  EXPECT_EQ(outcome(), "refuse not-from-here");
}

TEST_F(ProxyVerdictTest, ATokenInTheQueryBecomesACookie) {
  request_.token_in_query = true;
  request_.query_token = "mesh_token";
  request_.uri = "/lab?a=1";
  for (const bool safe : {true, false}) {
    request_.safe = safe;
    const auto redirect = redirected();
    EXPECT_EQ(redirect.location, "/lab?a=1");
    EXPECT_THAT(redirect.set_cookies,
                ElementsAre("__Host-mesh_token=bWVzaF90b2tlbg; Path=/; Secure; HttpOnly; "
                            "SameSite=Lax"));
    EXPECT_FALSE(redirect.clear_site_data);
  }
  to_port(80);
  EXPECT_EQ(outcome(), "redirect /lab?a=1") << "also where nobody needs one: it must not get there";
}

TEST_F(ProxyVerdictTest, AnEmptyTokenInTheQuerySignsOut) {
  request_.token_in_query = true;
  request_.cookie_token = "mesh_token";
  EXPECT_THAT(redirected().set_cookies,
              ElementsAre("__Host-mesh_token=; Path=/; Max-Age=0; Secure"));
}

TEST_F(ProxyVerdictTest, NothingIsRedirectedToNobody) {
  request_.token_in_query = true;
  target_ = ServiceTarget{"nobody", std::nullopt};
  EXPECT_EQ(outcome(), "refuse no-such-name");
  target_ = PortTarget{9001};
  EXPECT_EQ(outcome(), "refuse unassigned");
}

TEST_F(ProxyVerdictTest, AFirstVisitRemembersTheContainer) {
  signed_in(Access::kOwner);
  EXPECT_EQ(allowed().set_cookie,
            "__Host-mesh_container=w1; Path=/; Secure; HttpOnly; SameSite=Lax");
  request_.container = "w1";
  EXPECT_EQ(allowed().set_cookie, "");
}

TEST_F(ProxyVerdictTest, AnotherContainerThanBeforeClearsWhatTheFirstLeft) {
  signed_in(Access::kOwner);
  request_.container = "w0";
  request_.other_cookies = {"session", "_xsrf"};
  request_.uri = "/lab";
  const auto redirect = redirected();
  EXPECT_EQ(redirect.location, "/lab");
  EXPECT_TRUE(redirect.clear_site_data);
  EXPECT_THAT(
      redirect.set_cookies,
      ElementsAre("__Host-mesh_container=w1; Path=/; Secure; HttpOnly; SameSite=Lax",
                  "session=; Path=/; Max-Age=0; Secure", "_xsrf=; Path=/; Max-Age=0; Secure"));
}

TEST_F(ProxyVerdictTest, WhatCannotBeSentAgainIs410WhenTheContainerChanged) {
  signed_in(Access::kOwner);
  request_.container = "w0";
  request_.safe = false;
  EXPECT_EQ(outcome(), "refuse changed");
  request_.safe = true;
  request_.upgrade = true;
  EXPECT_EQ(outcome(), "refuse changed");
}

TEST_F(ProxyVerdictTest, WhoMayNotOpenItLearnsNothingOfTheChange) {
  request_.container = "w0";
  EXPECT_EQ(outcome(), "refuse sign-in");
}

TEST_F(ProxyVerdictTest, PortsOfOneHostHaveCookiesOfTheirOwn) {
  signed_in(Access::kOwner);
  target_ = PortTarget{9000};
  EXPECT_THAT(allowed().set_cookie, testing::StartsWith("__Host-mesh_container-9000=w1;"));
}

TEST_F(ProxyVerdictTest, AVisitorStaysWithOneReplica) {
  signed_in(Access::kOwner);
  for (int i = 2; i < 6; ++i) others_.push_back(sample_opening("w" + std::to_string(i), "db"));
  const auto first = allowed().id;
  EXPECT_EQ(allowed().id, first) << "without a cookie too";
  for (const auto* const id : {"w1", "w2", "w3", "w4", "w5"}) {
    request_.container = id;
    EXPECT_EQ(allowed().id, id);
  }
}

TEST_F(ProxyVerdictTest, VisitorsAreSpreadOverReplicas) {
  signed_in(Access::kOwner);
  for (int i = 2; i < 5; ++i) others_.push_back(sample_opening("w" + std::to_string(i), "db"));
  std::map<std::string, int> visits;
  for (std::uint32_t i = 0; i < 400; ++i) {
    request_.client = IpAddress::v4(0xc0000200 + i);
    ++visits[allowed().id];
  }
  for (const auto* const id : {"w1", "w2", "w3", "w4"}) EXPECT_GT(visits[id], 50) << id;
}

TEST_F(ProxyVerdictTest, AReadyReplicaIsPreferred) {
  signed_in(Access::kOwner);
  others_ = {sample_opening("w2", "db")};
  for (auto& port : opening_.ports) port.ready = false;
  request_.container = "w2";
  EXPECT_EQ(outcome(), "allow w2:8888");
  request_.container = "w1";
  EXPECT_EQ(outcome(), "redirect /") << "its replica is not ready; another one is";
  others_.front().ports.front().ready = false;
  EXPECT_EQ(outcome(), "refuse not-ready");
}

TEST_F(ProxyVerdictTest, AReplicaOfANodeThatIsNotHeardOfIsTheLastChoice) {
  signed_in(Access::kOwner);
  others_ = {sample_opening("w2", "db")};
  request_.container = "w1";
  EXPECT_EQ(outcome(), "allow w1:8888");
  opening_.stale = true;
  EXPECT_EQ(outcome(), "redirect /") << "the other one is taken";
  request_.container = "w2";
  EXPECT_EQ(outcome(), "allow w2:8888");
  others_.front().ports.front().ready = false;
  request_.container = "w1";
  EXPECT_EQ(outcome(), "allow w1:8888") << "its node may well go on alone";
}

TEST_F(ProxyVerdictTest, ABearerTokenOfOursIsUsedAndNotPassedOn) {
  request_.bearer = "mesh_token";
  request_.bearer_shape = TokenShape::kOurs;
  request_.authorization = "Bearer mesh_token";
  EXPECT_EQ(outcome(), "ask level");
  known_.level = Answer{Answer::Kind::kGood, {}, Access::kOwner};
  EXPECT_EQ(allowed().authorization, "");
  to_port(80);
  EXPECT_EQ(allowed().authorization, "") << "nor where nobody needs one";
}

TEST_F(ProxyVerdictTest, AnApplicationsOwnAuthorizationIsPassedOn) {
  request_.authorization = "Bearer sk-own";
  EXPECT_EQ(outcome(), "refuse sign-in") << "it is none of ours, and nobody is asked about it";
  signed_in(Access::kOwner);
  EXPECT_EQ(allowed().authorization, "Bearer sk-own");
  request_.authorization = "Basic dXNlcjpwYXNz";
  EXPECT_EQ(allowed().authorization, "Basic dXNlcjpwYXNz");
}

TEST_F(ProxyVerdictTest, ATokenThatMayBeOursIsAskedAboutBeforeItIsPassedOn) {
  to_port(80);
  request_.bearer = kOldToken;
  request_.bearer_shape = TokenShape::kPerhaps;
  request_.authorization = "Bearer " + kOldToken;
  EXPECT_EQ(outcome(), "ask who");
  known_.bearer = Answer{Answer::Kind::kBadToken, {}, std::nullopt};
  EXPECT_EQ(allowed().authorization, request_.authorization);
  known_.bearer = Answer{Answer::Kind::kGood, {}, std::nullopt};
  EXPECT_EQ(allowed().authorization, "");
  known_.bearer = Answer{Answer::Kind::kUnavailable, {}, std::nullopt};
  EXPECT_EQ(allowed().authorization, "") << "who knows";
}

TEST_F(ProxyVerdictTest, ATokenThatMayBeOursSignsInWhereThereIsNoCookie) {
  request_.bearer = kOldToken;
  request_.bearer_shape = TokenShape::kPerhaps;
  request_.authorization = "Bearer " + kOldToken;
  EXPECT_EQ(outcome(), "ask level");
  known_.level = Answer{Answer::Kind::kGood, {}, Access::kOwner};
  EXPECT_EQ(outcome(), "allow w1:8888");
  EXPECT_EQ(allowed().authorization, "");
}

TEST_F(ProxyVerdictTest, PagesOfOtherOriginsChangeNothingWithAPersonsCookie) {
  signed_in(Access::kOwner);
  request_.foreign = true;
  EXPECT_EQ(outcome(), "allow w1:8888") << "a link or a picture";
  request_.upgrade = true;
  EXPECT_EQ(outcome(), "refuse foreign-page");
  request_.upgrade = false;
  request_.safe = false;
  EXPECT_EQ(outcome(), "refuse foreign-page");
  to_port(80);
  EXPECT_EQ(outcome(), "allow w1:80") << "no cookie decides there";
}

TEST_F(ProxyVerdictTest, EveryReasonHasAStatusAndAWord) {
  for (auto reason = 0; reason <= static_cast<int>(Reason::kCannotAsk); ++reason) {
    EXPECT_GE(status_of(static_cast<Reason>(reason)), 400);
    EXPECT_NE(reason_word(static_cast<Reason>(reason)), "");
  }
}

}  // namespace
}  // namespace meshd::proxy
