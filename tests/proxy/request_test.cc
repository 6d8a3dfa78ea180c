#include "proxy/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meshd::proxy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

constexpr std::string_view kToken = "mesh_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

class ProxyRequestTest : public testing::Test {
 protected:
  Request request() {
    auto parsed = parse_request(head_, kContainerCookie);
    EXPECT_TRUE(parsed) << parsed.error().what;
    return parsed ? *std::move(parsed) : Request();
  }
  std::string why_not() {
    const auto parsed = parse_request(head_, kContainerCookie);
    return parsed ? "" : parsed.error().what;
  }
  std::string uri_of(std::string_view uri) {
    head_.uri = uri;
    return request().uri;
  }
  Request with_cookies(std::string_view cookies) {
    head_.cookie = cookies;
    return request();
  }
  Request authorized(std::string_view header) {
    head_.authorization = header;
    return request();
  }
  static std::string token_cookie(std::string_view token) {
    return std::string(kTokenCookie) + "=" + to_base64url(token);
  }

  RequestHead head_{.method = "GET",
                    .host = "db.svc.example.org",
                    .uri = "/",
                    .cookie = {},
                    .authorization = {},
                    .upgrade = {},
                    .origin = {},
                    .accept = "text/html,*/*",
                    .client = "192.0.2.9"};
};

TEST_F(ProxyRequestTest, ATokenInTheQueryIsTakenOutOfIt) {
  head_.uri = "/lab?a=1&api_token=secret&b=%20x";
  const auto taken = request();
  EXPECT_TRUE(taken.token_in_query);
  EXPECT_EQ(taken.query_token, "secret");
  EXPECT_EQ(taken.uri, "/lab?a=1&b=%20x");
}

TEST_F(ProxyRequestTest, AllOtherBytesOfTheQueryStayAsTheyWere) {
  EXPECT_EQ(uri_of("/?baz&arvados_api_token=x"), "/?baz");
  EXPECT_EQ(uri_of("/?api_token=x"), "/");
  EXPECT_EQ(uri_of("/?api_token=x&"), "/");
  EXPECT_EQ(uri_of("/?b=2&&a=%2f;c&api_token=x&d==&&"), "/?b=2&&a=%2f;c&d==&&");
  EXPECT_EQ(uri_of("/?z&a&&api_token=x"), "/?z&a&");
  EXPECT_EQ(uri_of("/?api_token=x&api_token=y&a&api_token=z"), "/?a");
  EXPECT_EQ(uri_of("/a%2Fb/%C3%A4/%00;v=1?q=%"), "/a%2Fb/%C3%A4/%00;v=1?q=%");
  EXPECT_EQ(uri_of("/a?"), "/a?");
  EXPECT_EQ(uri_of("/a?&&;"), "/a?&&;");
  EXPECT_EQ(uri_of("/?my_api_token=x&api_token2=y&x=api_token=z"),
            "/?my_api_token=x&api_token2=y&x=api_token=z");
}

TEST_F(ProxyRequestTest, TheParametersNameInAnySpelling) {
  for (const auto* const name : {"api_token", "API_TOKEN", "Arvados_Api_Token",
                                 "arvados%5Fapi_token", "%61pi%5ftoken", "%41PI_TOKEN"}) {
    const auto uri = "/?a=1&" + std::string(name) + "=secret";
    head_.uri = uri;
    const auto taken = request();
    EXPECT_EQ(taken.query_token, "secret") << name;
    EXPECT_EQ(taken.uri, "/?a=1") << name;
  }
}

TEST_F(ProxyRequestTest, AParameterThatEndsInASemicolonIsOneTooForSomePrograms) {
  EXPECT_EQ(uri_of("/?a=1;api_token=secret;b=2"), "/?a=1;b=2");
  EXPECT_EQ(request().query_token, "secret");
}

TEST_F(ProxyRequestTest, AnEmptyTokenIsTakenOutAsWell) {
  for (const auto* const uri : {"/?api_token=", "/?api_token", "/?api_token=&api_token="}) {
    EXPECT_EQ(uri_of(uri), "/") << uri;
    EXPECT_TRUE(request().token_in_query) << uri;
    EXPECT_EQ(request().query_token, "") << uri;
  }
  EXPECT_EQ(uri_of("/?api_token=&api_token=secret"), "/");
  EXPECT_EQ(request().query_token, "secret");
}

TEST_F(ProxyRequestTest, WhatCanBeNoTokenIsTakenOutAndForgotten) {
  const auto longest = "/?api_token=" + std::string(60'000, 'a');
  for (const std::string& uri :
       {std::string("/?api_token=a%0d%0aSet-Cookie:x"), longest, std::string("/?api_token=%00"),
        std::string("/?api_token=a%20b")}) {
    EXPECT_EQ(uri_of(uri), "/");
    EXPECT_TRUE(request().token_in_query);
    EXPECT_EQ(request().query_token, "");
  }
  EXPECT_EQ(uri_of("/?api_token=%20secret%0A"), "/");
  EXPECT_EQ(request().query_token, "secret") << "pasted with what stood around it";
}

TEST_F(ProxyRequestTest, ARedirectNeverLeadsElsewhere) {
  EXPECT_EQ(uri_of("//evil.example/"), "/evil.example/");
  EXPECT_EQ(uri_of("///evil.example"), "/evil.example");
  EXPECT_EQ(uri_of("/\\evil.example"), "/evil.example");
  EXPECT_EQ(uri_of("/\\/\\\\evil.example?api_token=x"), "/evil.example");
  EXPECT_EQ(uri_of("//"), "/");
  EXPECT_EQ(uri_of("//?a"), "/?a");
  // To a browser these are paths: it does not decode before it looks for the host.
  EXPECT_EQ(uri_of("/%2Fevil.example"), "/%2Fevil.example");
  EXPECT_EQ(uri_of("/%5Cevil.example"), "/%5Cevil.example");
  EXPECT_EQ(uri_of("/a//b\\c"), "/a//b\\c");
  EXPECT_EQ(uri_of("/?u=//evil.example"), "/?u=//evil.example");
}

TEST_F(ProxyRequestTest, WhatNoBrowserSendsIsRefused) {
  using namespace std::string_view_literals;
  for (const auto uri : {""sv, "*"sv, "evil.example/"sv, "http://evil.example/"sv, "\\evil"sv,
                         "?api_token=x"sv, "/a\r\nX: y"sv, "/a\nb"sv, "/\t/evil.example"sv,
                         "/a b"sv, "/a\0b"sv, "/a\x7f"sv, "/a#b"sv, "/a?b#api_token=x"sv}) {
    head_.uri = uri;
    EXPECT_THAT(why_not(), HasSubstr("path")) << uri;
  }
  head_.uri = "/";
  for (const auto* const method :
       {"", "get", "GE T", "GET\r", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJ"}) {
    head_.method = method;
    EXPECT_THAT(why_not(), HasSubstr("method")) << method;
  }
}

TEST_F(ProxyRequestTest, AHeadOfMoreThan64KiBIsRefused) {
  const std::string cookie(kMaxHeadBytes, 'a');
  head_.cookie = cookie;
  EXPECT_THAT(why_not(), HasSubstr("64 KiB"));
}

TEST_F(ProxyRequestTest, NoRefusalRepeatsTheRequest) {
  head_.uri = "/secret secret";
  EXPECT_THAT(why_not(), Not(HasSubstr("secret")));
}

TEST_F(ProxyRequestTest, OurCookiesAreTakenOutAndOthersStay) {
  const auto cookies =
      "a=1; " + token_cookie(kToken) + "; b=x=y; " + std::string(kContainerCookie) + "=worker-1;c";
  const auto taken = with_cookies(cookies);
  EXPECT_EQ(taken.cookie_token, kToken);
  EXPECT_EQ(taken.container, "worker-1");
  EXPECT_EQ(taken.cookie, "a=1; b=x=y; c");
  EXPECT_THAT(taken.other_cookies, ElementsAre("a", "b", "c"));
}

TEST_F(ProxyRequestTest, AllCopiesOfOurCookiesAreTakenOutInAnySpelling) {
  const auto one = token_cookie(kToken);
  const auto cookies = one + ";" + one +
                       "; __host-MESH_token=x; __Host-mesh_other=1; "
                       "arvados_api_token=abc; ARVADOS_API_TOKEN=abc; "
                       "arvados_container_uuid=x ;  a=1";
  const auto taken = with_cookies(cookies);
  EXPECT_EQ(taken.cookie, "a=1");
  EXPECT_EQ(taken.cookie_token, kToken);
}

TEST_F(ProxyRequestTest, OfTwoTokensInCookiesNeitherIsBelieved) {
  const auto cookies = token_cookie(kToken) + "; " + token_cookie("mesh_planted");
  const auto taken = with_cookies(cookies);
  EXPECT_EQ(taken.cookie_token, "");
  EXPECT_EQ(taken.cookie, "");
}

TEST_F(ProxyRequestTest, ACookieThatAnyHostCouldPlantSignsNobodyIn) {
  const auto cookies = "arvados_api_token=" + to_base64url(kToken) +
                       "; mesh_token=" + to_base64url(kToken) +
                       "; __host-mesh_token=" + to_base64url(kToken);
  EXPECT_EQ(with_cookies(cookies).cookie_token, "");
}

TEST_F(ProxyRequestTest, ADamagedTokenCookieIsNone) {
  for (const auto* const value : {"", "!!!", "bWVzaF8", "=", "bWVzaF8=garbage", "bWVz aF8"}) {
    const auto cookie = std::string(kTokenCookie) + "=" + value;
    const auto taken = with_cookies(cookie);
    EXPECT_EQ(taken.cookie_token, value == std::string("bWVzaF8") ? "mesh_" : "") << value;
    EXPECT_EQ(taken.cookie, "") << value;
  }
}

TEST_F(ProxyRequestTest, CookiesWithControlCharactersAreDropped) {
  EXPECT_EQ(with_cookies("a=1\r\nX-Mesh-User: root; b=2; c=\x01").cookie, "b=2");
}

TEST_F(ProxyRequestTest, OnlySoManyCookiesAreToldToExpire) {
  std::string cookies;
  for (int i = 0; i < 100; ++i) cookies += "c" + std::to_string(i) + "=x; c1=y; bad name=z;";
  EXPECT_THAT(with_cookies(cookies).other_cookies, SizeIs(kMaxExpiredCookies));
}

TEST_F(ProxyRequestTest, ABearerTokenIsRead) {
  for (const auto* const scheme : {"Bearer", "bearer", "OAuth2", "BEARER "}) {
    const auto header = std::string(scheme) + " " + std::string(kToken);
    const auto taken = authorized(header);
    EXPECT_EQ(taken.bearer, kToken) << scheme;
    EXPECT_EQ(taken.bearer_shape, TokenShape::kOurs) << scheme;
  }
  const auto key = authorized("Bearer sk-applications-own");
  EXPECT_EQ(key.bearer_shape, TokenShape::kNot);
  EXPECT_EQ(key.authorization, "Bearer sk-applications-own");
}

TEST_F(ProxyRequestTest, OursInAnApplicationsFormIsNotPassedOn) {
  for (const auto* const before : {"token ", "", "Token  ", "Basic "}) {
    const auto header = before + std::string(kToken);
    const auto taken = authorized(header);
    EXPECT_EQ(taken.authorization, "") << before;
    EXPECT_EQ(taken.bearer, "") << before;
  }
  EXPECT_EQ(authorized("Basic dXNlcjpwYXNz").authorization, "Basic dXNlcjpwYXNz");
  EXPECT_EQ(authorized("Bearer x\r\nX-Mesh-User: root").authorization, "");
}

TEST_F(ProxyRequestTest, ADamagedBearerTokenOfOursStaysOurs) {
  const auto taken = authorized("Bearer mesh_abc def");
  EXPECT_EQ(taken.bearer, "");
  EXPECT_EQ(taken.bearer_shape, TokenShape::kOurs);
}

TEST_F(ProxyRequestTest, WhoLooksAndWhatMayBeSentAgain) {
  EXPECT_TRUE(request().html && request().safe && !request().upgrade);
  head_.accept = "application/json, */*";
  head_.method = "POST";
  head_.upgrade = "websocket";
  EXPECT_TRUE(!request().html && !request().safe && request().upgrade);
  head_.accept = "application/json;q=0.1,TEXT/HTML";
  head_.method = "HEAD";
  EXPECT_TRUE(request().html && request().safe);
}

TEST_F(ProxyRequestTest, APageOfAnotherOriginIsForeign) {
  const auto foreign = [&](std::string_view origin) {
    head_.origin = origin;
    return request().foreign;
  };
  EXPECT_FALSE(foreign(""));
  EXPECT_FALSE(foreign("https://db.svc.example.org"));
  EXPECT_TRUE(foreign("https://evil.svc.example.org"));
  EXPECT_TRUE(foreign("http://db.svc.example.org"));
  EXPECT_TRUE(foreign("https://db.svc.example.org:8443"));
  EXPECT_TRUE(foreign("null"));
}

TEST_F(ProxyRequestTest, TheClientsAddressIsOfItsOwnFamily) {
  const auto client = [&](std::string_view text) {
    head_.client = text;
    const auto address = request().client;
    return address ? address->to_string() : "";
  };
  EXPECT_EQ(client("192.0.2.9"), "192.0.2.9");
  EXPECT_EQ(client("::ffff:192.0.2.9"), "192.0.2.9");
  EXPECT_EQ(client("2001:db8::1"), "2001:db8::1");
  EXPECT_EQ(client("unix:"), "");
  EXPECT_EQ(client(""), "");
}

TEST_F(ProxyRequestTest, CookiesOfOursHaveEveryProtection) {
  EXPECT_EQ(own_cookie(kTokenCookie, "abc"),
            "__Host-mesh_token=abc; Path=/; Secure; HttpOnly; SameSite=Lax");
  EXPECT_THAT(expired_cookie("a"), testing::StartsWith("a=; Path=/; Max-Age=0"));
}

TEST_F(ProxyRequestTest, TheMarkOfThePageIsTakenOutOfTheQuery) {
  head_.uri = "/lab?a=1&Mesh%5Fenter&b=2";
  const auto taken = request();
  EXPECT_TRUE(taken.enter);
  EXPECT_FALSE(taken.token_in_query);
  EXPECT_EQ(taken.uri, "/lab?a=1&b=2");
  EXPECT_EQ(uri_of("/lab?mesh_enter"), "/lab");
  EXPECT_EQ(uri_of("/lab?mesh_enter=&x"), "/lab?x");
}

TEST_F(ProxyRequestTest, APassIsReadAndNotPassedOn) {
  const auto taken = with_cookies("a=1; __Secure-mesh_pass=abc; __SECURE-MESH_PASS=abc; b=2");
  EXPECT_EQ(taken.pass, "abc");
  EXPECT_EQ(taken.cookie, "a=1; b=2");
  EXPECT_THAT(taken.other_cookies, ElementsAre("a", "b"));
}

TEST_F(ProxyRequestTest, OfTwoPassesNeitherIsBelieved) {
  EXPECT_EQ(with_cookies("__Secure-mesh_pass=abc; __Secure-mesh_pass=def").pass, "");
  EXPECT_EQ(with_cookies("__Secure-mesh_pass=a b").pass, "");
}

}  // namespace
}  // namespace meshd::proxy
