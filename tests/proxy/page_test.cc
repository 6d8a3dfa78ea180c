#include "proxy/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>

#include "tests/proxy/overview_samples.h"

namespace meshd::proxy {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

class PageTest : public testing::Test {
 protected:
  PageTest() {
    site_.zone = "mesh.example.org";
    request_.method = "GET";
    request_.safe = true;
    bed_.shape.workloads[0].links = {
        {8888, ServiceTarget{"db", {}}, "Notebook", "/lab?a=1#x", policy::Access::kCanRead, true},
        {80, ServiceTarget{"db", std::uint16_t{80}}, "", "", policy::Access::kPublic, true}};
    overview_ = bed_.overview();
    ada_.kind = Answer::Kind::kGood;
    ada_.user.name = "ada";
  }
  PageStep step(std::string uri, const std::optional<Answer>& who = std::nullopt) {
    request_.uri = std::move(uri);
    return page_step(site_, request_, shown_, who);
  }
  Reply get(const std::string& uri, const std::optional<Answer>& who = std::nullopt) {
    const auto result = step(uri, who);
    const auto* said = std::get_if<PageReply>(&result);
    EXPECT_NE(said, nullptr) << uri;
    return said == nullptr ? Reply() : said->reply;
  }
  static std::string header(const Reply& reply, std::string_view name) {
    for (const auto& [known, value] : reply.headers) {
      if (known == name) return value;
    }
    return {};
  }
  void sign_in() { request_.cookie_token = "mesh_a"; }
  void post() {
    request_.method = "POST";
    request_.safe = false;
  }

  Site site_;
  Request request_;
  OverviewBed bed_;
  Overview overview_;
  const Overview* shown_ = &overview_;
  Answer ada_;
};

TEST_F(PageTest, ServesItsFilesToAnybody) {
  EXPECT_EQ(header(get("/"), "Content-Type"), "text/html; charset=utf-8");
  EXPECT_EQ(header(get("/style.css"), "Content-Type"), "text/css; charset=utf-8");
  EXPECT_EQ(header(get("/page.js?x"), "Content-Type"), "text/javascript; charset=utf-8");
  EXPECT_THAT(get("/").body, StartsWith("<!DOCTYPE html>"));
  EXPECT_EQ(get("/index.html").status, 404);
  EXPECT_EQ(get("/../style.css").status, 404);
}

TEST_F(PageTest, EveryAnswerForbidsInlineScriptsAndFrames) {
  sign_in();
  for (const auto* uri : {"/", "/style.css", "/page.js", "/state.json", "/nothing", "/open/x/1"}) {
    const auto reply = get(uri, ada_);
    EXPECT_THAT(header(reply, "Content-Security-Policy"),
                AllOf(HasSubstr("default-src 'none'"), HasSubstr("script-src 'self'"),
                      HasSubstr("style-src 'self'"), HasSubstr("frame-ancestors 'none'"),
                      HasSubstr("base-uri 'none'"), Not(HasSubstr("unsafe"))))
        << uri;
    EXPECT_EQ(header(reply, "X-Content-Type-Options"), "nosniff") << uri;
    EXPECT_EQ(header(reply, "Cross-Origin-Resource-Policy"), "same-origin") << uri;
  }
}

TEST_F(PageTest, ItsFilesNeedNothingThatThePolicyForbids) {
  const std::regex inline_code(R"(<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=)");
  const std::regex from_elsewhere(R"((src|href)=\"(https?:)?//|url\(|@import)");
  const std::regex into_html(R"(innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b)");
  for (const auto& [name, body] : page_bodies()) {
    const std::string text(body);
    EXPECT_FALSE(name.ends_with(".html") && std::regex_search(text, inline_code)) << name;
    EXPECT_FALSE(std::regex_search(text, from_elsewhere)) << name;
    EXPECT_FALSE(std::regex_search(text, into_html)) << name;
  }
}

TEST_F(PageTest, AFileThatTheBrowserHasIsNotSentAgain) {
  request_.if_none_match = "W/" + header(get("/page.js"), "ETag");
  const auto reply = get("/page.js");
  EXPECT_EQ(reply.status, 304);
  EXPECT_THAT(reply.body, IsEmpty());
  EXPECT_EQ(get("/style.css").status, 200);
}

TEST_F(PageTest, WithoutATokenNothingIsTold) {
  const auto reply = get("/state.json");
  EXPECT_EQ(reply.status, 401);
  EXPECT_THAT(reply.body, Not(HasSubstr("ada")));
}

TEST_F(PageTest, WhoseATokenIsIsAskedFirst) {
  sign_in();
  const auto asked = step("/state.json");
  const auto* ask = std::get_if<Ask>(&asked);
  ASSERT_NE(ask, nullptr);
  EXPECT_EQ(ask->question.what, Question::What::kSees);
  EXPECT_EQ(ask->question.token, "mesh_a");
}

TEST_F(PageTest, ABadTokenAndOneThatCannotBeAskedAboutSeeNothing) {
  sign_in();
  Answer answer;
  answer.kind = Answer::Kind::kBadToken;
  EXPECT_EQ(get("/state.json", answer).status, 401);
  answer.kind = Answer::Kind::kUnavailable;
  EXPECT_EQ(get("/state.json", answer).status, 503);
}

TEST_F(PageTest, WhoIsSignedInSeesTheirs) {
  sign_in();
  const auto reply = get("/state.json", ada_);
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(header(reply, "Content-Type"), "application/json");
  EXPECT_EQ(header(reply, "Cache-Control"), "no-store");
  EXPECT_THAT(reply.body, AllOf(HasSubstr("\"id\":\"db\""), Not(HasSubstr("\"id\":\"spy\""))));
}

TEST_F(PageTest, AnArvadosUserIsTheirUuidAndNeverTheNameThatTheyChose) {
  sign_in();
  ada_.user.uuid = "zzzzz-tpzed-000000000000001";
  EXPECT_THAT(get("/state.json", ada_).body, Not(HasSubstr("\"id\":\"db\"")));
}

TEST_F(PageTest, WhatIsKnownIsNotSentAgainUntilItOrTheViewerIsAnother) {
  sign_in();
  request_.if_none_match = header(get("/state.json", ada_), "ETag");
  EXPECT_EQ(get("/state.json", ada_).status, 304);
  EXPECT_EQ(get("/state.json?find=db", ada_).status, 200);
  auto more = ada_;
  more.owners = {"bob"};
  EXPECT_EQ(get("/state.json", more).status, 200);
  ++overview_.version;
  EXPECT_EQ(get("/state.json", ada_).status, 200);
}

TEST_F(PageTest, WhoFindsNothingMadeIsToldToComeAgainAndItIsMade) {
  sign_in();
  shown_ = nullptr;
  const auto result = step("/state.json", ada_);
  const auto& said = std::get<PageReply>(result);
  EXPECT_EQ(said.reply.status, 503);
  EXPECT_EQ(header(said.reply, "Retry-After"), "1");
  EXPECT_TRUE(said.looked);
}

TEST_F(PageTest, NothingIsMadeForStrangers) {
  const auto result = step("/state.json");
  EXPECT_FALSE(std::get<PageReply>(result).looked);
}

TEST_F(PageTest, PagesOfNeighboursLearnNothing) {
  sign_in();
  for (const auto* from : {"same-site", "cross-site"}) {
    request_.fetch_site = from;
    EXPECT_EQ(get("/state.json", ada_).status, 403) << from;
    EXPECT_EQ(header(get("/open/db/8888", ada_), "Location"), "/") << from;
  }
  request_.fetch_site.clear();
  request_.foreign = true;
  EXPECT_EQ(get("/state.json", ada_).status, 403);
}

TEST_F(PageTest, SigningInMakesACookieOfAGoodToken) {
  post();
  request_.bearer = "mesh_a";
  EXPECT_TRUE(std::holds_alternative<Ask>(step("/sign-in")));
  const auto reply = get("/sign-in", ada_);
  EXPECT_EQ(reply.status, 204);
  EXPECT_EQ(header(reply, "Set-Cookie"), own_cookie(kTokenCookie, to_base64url("mesh_a")));
  Answer bad;
  bad.kind = Answer::Kind::kBadToken;
  EXPECT_EQ(get("/sign-in", bad).status, 401);
  EXPECT_EQ(header(get("/sign-in", bad), "Set-Cookie"), "");
}

TEST_F(PageTest, NobodyIsSignedInOrOutByAnotherPageOrALink) {
  EXPECT_EQ(get("/sign-in").status, 405);
  EXPECT_EQ(get("/sign-out").status, 405);
  post();
  request_.bearer = "mesh_a";
  request_.foreign = true;
  EXPECT_EQ(get("/sign-in", ada_).status, 403);
  EXPECT_EQ(get("/sign-out").status, 403);
  EXPECT_EQ(get("/").status, 405);
}

TEST_F(PageTest, SigningOutExpiresTheCookie) {
  post();
  EXPECT_EQ(header(get("/sign-out"), "Set-Cookie"), expired_cookie(kTokenCookie));
}

TEST_F(PageTest, ATokenInTheAddressBecomesACookie) {
  request_.token_in_query = true;
  request_.query_token = "mesh_a";
  const auto reply = get("/");
  EXPECT_EQ(reply.status, 303);
  EXPECT_EQ(header(reply, "Location"), "/");
  EXPECT_EQ(header(reply, "Set-Cookie"), own_cookie(kTokenCookie, to_base64url("mesh_a")));
}

TEST_F(PageTest, ALinkGoesOnToTheServiceWithAMarkAndWithoutTheToken) {
  sign_in();
  const auto result = step("/open/db/8888", ada_);
  const auto* on = std::get_if<GoOn>(&result);
  ASSERT_NE(on, nullptr);
  EXPECT_EQ(on->token, "mesh_a");
  EXPECT_EQ(on->target, Target(ServiceTarget{"db", {}}));
  EXPECT_EQ(on->url, "https://db.svc.mesh.example.org/lab?a=1&mesh_enter#x");
}

TEST_F(PageTest, ALinkToWhatIsOpenToAllTakesNothingAlong) {
  sign_in();
  EXPECT_EQ(header(get("/open/db/80", ada_), "Location"), "https://db--80.svc.mesh.example.org/");
}

TEST_F(PageTest, NobodyGoesOnToWhatTheyMayNotSee) {
  sign_in();
  auto bob = ada_;
  bob.user.name = "bob";
  for (const auto* uri : {"/open/db/8888", "/open/db/81", "/open/none/80", "/open/", "/open/db",
                          "/open/db/8888/x", "/open//evil.example/"}) {
    EXPECT_EQ(header(get(uri, bob), "Location"), "/") << uri;
  }
  request_.cookie_token.clear();
  request_.bearer = "mesh_a";  // programs need no page for it
  EXPECT_EQ(header(get("/open/db/8888", ada_), "Location"), "/");
}

TEST_F(PageTest, ThePassIsForTheZoneAndReadByNoScript) {
  EXPECT_EQ(
      pass_cookie(site_, "abc", 30),
      "__Secure-mesh_pass=abc; Domain=mesh.example.org; Path=/; Max-Age=30; Secure; HttpOnly; "
      "SameSite=Lax");
}

}  // namespace
}  // namespace meshd::proxy
