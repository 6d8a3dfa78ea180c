#include "proxy/pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meshd::proxy {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;
using testing::StartsWith;

constexpr Looking kPerson{"db.svc.example.org", "", true, true};
constexpr Looking kProgram{"db.svc.example.org", "", false, true};

std::vector<Reason> all_reasons() {
  std::vector<Reason> reasons;
  for (int i = 0; i <= static_cast<int>(Reason::kCannotAsk); ++i) {
    reasons.push_back(static_cast<Reason>(i));
  }
  return reasons;
}

TEST(ProxyPagesTest, EveryRefusalHasAPageAndALine) {
  for (const auto reason : all_reasons()) {
    const auto page = refusal_reply({reason, {}, {}}, kPerson);
    EXPECT_EQ(page.status, status_of(reason));
    EXPECT_THAT(page.body, StartsWith("<!DOCTYPE html>"));
    EXPECT_THAT(page.body, HasSubstr(std::string(refusal_text(reason))));
    EXPECT_THAT(page.headers, Contains(Pair("Content-Type", "text/html; charset=utf-8")));
    const auto line = refusal_reply({reason, {}, {}}, kProgram);
    EXPECT_EQ(line.status, status_of(reason));
    EXPECT_THAT(line.body,
                StartsWith("{\"errors\":[\"" + std::string(refusal_text(reason)) + ": "));
    EXPECT_THAT(line.headers, Contains(Pair("Content-Type", "application/json")));
  }
}

TEST(ProxyPagesTest, NothingIsLoadedKeptOrToldOn) {
  for (const auto reason : all_reasons()) {
    const auto page = refusal_reply({reason, {}, {}}, kPerson);
    for (const auto* const what :
         {"http:", "https:", "src=", "url(", "<script", "@import", "<link"}) {
      EXPECT_THAT(page.body, Not(HasSubstr(what)));
    }
    EXPECT_THAT(page.headers, Contains(Pair("Cache-Control", "no-store")));
    EXPECT_THAT(page.headers, Contains(Pair("Referrer-Policy", "no-referrer")));
    EXPECT_THAT(page.headers,
                Contains(Pair("Content-Security-Policy", StartsWith("default-src 'none'"))));
  }
}

TEST(ProxyPagesTest, WhatWasSentToUsIsEscaped) {
  const std::string_view host = "<script>alert('x')</script>&\"";
  const auto page = refusal_reply({Reason::kOddRequest, {"", "<b>bob</b>", false}, {}},
                                  {host, "<i>odd</i>", true, true});
  EXPECT_THAT(page.body, Not(HasSubstr("<script>")));
  EXPECT_THAT(page.body, Not(HasSubstr("<b>")));
  EXPECT_THAT(page.body, Not(HasSubstr("<i>")));
  EXPECT_THAT(page.body, HasSubstr("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;"));
  EXPECT_EQ(escape_html("a\x01\xff\n"), "a???");
  EXPECT_EQ(json_string("a\"b\\c\n\xff"), "\"a\\\"b\\\\c??\"");
  const auto line = refusal_reply({Reason::kOddRequest, {}, {}}, {host, "a \"b\"", false, true});
  EXPECT_THAT(line.body, HasSubstr("In particular: a \\\"b\\\"."));
}

TEST(ProxyPagesTest, ALongHostIsNotRepeatedWhole) {
  const std::string host(60'000, 'a');
  EXPECT_LT(refusal_reply({Reason::kOddRequest, {}, {}}, {host, "", true, true}).body.size(),
            8'000U);
}

TEST(ProxyPagesTest, WhatWillBeReadyIsTriedAgain) {
  const Refuse refuse{Reason::kNotReady, {}, {}};
  const auto page = refusal_reply(refuse, kPerson);
  EXPECT_THAT(page.headers, Contains(Pair("Retry-After", "2")));
  EXPECT_THAT(page.body, HasSubstr("<meta http-equiv=\"refresh\" content=\"2\">"));
  const auto posted = refusal_reply(refuse, {"h", "", true, false});
  EXPECT_THAT(posted.body, Not(HasSubstr("http-equiv"))) << "a page cannot post again";
  const auto line = refusal_reply(refuse, kProgram);
  EXPECT_THAT(line.headers, Contains(Pair("Retry-After", "2")));
  EXPECT_THAT(line.body, Not(HasSubstr("page")));
  EXPECT_THAT(refusal_reply({Reason::kEnded, {}, {}}, kPerson).body, Not(HasSubstr("http-equiv")));
}

TEST(ProxyPagesTest, WhoMayNotReadSeesWhatStrangersSee) {
  const User bob{"zzzzz-tpzed-000000000000000", "bob", false};
  for (const auto& looking : {kPerson, kProgram}) {
    const auto nobody = refusal_reply({Reason::kNoSuchName, {}, {}}, looking);
    const auto hidden = refusal_reply({Reason::kNotReadable, bob, "w1"}, looking);
    EXPECT_EQ(nobody.status, hidden.status);
    EXPECT_EQ(nobody.headers, hidden.headers);
    EXPECT_EQ(nobody.body, hidden.body);
  }
}

TEST(ProxyPagesTest, WhoMayReadSeesAsWhomTheyAreSignedIn) {
  const auto page = refusal_reply({Reason::kNotYours, {"", "bob", false}, "w1"}, kPerson);
  EXPECT_THAT(page.body, HasSubstr("You are signed in as bob."));
  EXPECT_THAT(page.body, Not(HasSubstr("w1")));
}

TEST(ProxyPagesTest, ASignInPageTakesAToken) {
  for (const auto reason : {Reason::kSignIn, Reason::kBadToken}) {
    const auto page = refusal_reply({reason, {}, {}}, kPerson);
    EXPECT_THAT(page.body, HasSubstr("name=\"api_token\" type=\"password\""));
    EXPECT_THAT(page.headers, Contains(Pair("WWW-Authenticate", "Bearer")));
  }
  EXPECT_THAT(refusal_reply({Reason::kNotYours, {}, {}}, kPerson).body, Not(HasSubstr("<form")));
}

TEST(ProxyPagesTest, ARedirectIsKeptByNobody) {
  const auto reply = redirect_reply({"/lab?a=1", {"a=1; Path=/", "b=2; Path=/"}, false});
  EXPECT_EQ(reply.status, 303);
  EXPECT_THAT(reply.headers, Contains(Pair("Location", "/lab?a=1")));
  EXPECT_THAT(reply.headers, Contains(Pair("Set-Cookie", "a=1; Path=/")));
  EXPECT_THAT(reply.headers, Contains(Pair("Set-Cookie", "b=2; Path=/")));
  EXPECT_THAT(reply.headers, Contains(Pair("Cache-Control", "no-store")));
  EXPECT_THAT(reply.headers, Contains(Pair("Referrer-Policy", "no-referrer")));
  EXPECT_THAT(reply.headers, Not(Contains(Pair("Clear-Site-Data", testing::_))));
  EXPECT_THAT(reply.body, HasSubstr("<h1>Sent on</h1>"));
  EXPECT_THAT(redirect_reply({"/", {}, true}).headers,
              Contains(Pair("Clear-Site-Data", "\"cache\", \"storage\"")));
}

TEST(ProxyPagesTest, TheClosedPageIsOneTextForNginx) {
  EXPECT_EQ(closed_page().find_first_of("'$\\\n"), std::string::npos);
  EXPECT_LT(closed_page().size(), 3'500U) << "nginx takes no word above 4 KiB";
}

}  // namespace
}  // namespace meshd::proxy
