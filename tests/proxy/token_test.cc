#include "proxy/token.h"

#include <gtest/gtest.h>

namespace meshd::proxy {
namespace {

TEST(ProxyTokenTest, WhatStandsInAHeaderLineCanBeAToken) {
  EXPECT_TRUE(is_token("mesh_abc-DEF_0"));
  EXPECT_TRUE(is_token("v2/zzzzz-gj3su-000000000000000/secret"));
  EXPECT_TRUE(is_token(std::string(kMaxTokenBytes, 'a')));
  EXPECT_FALSE(is_token(""));
  EXPECT_FALSE(is_token(std::string(kMaxTokenBytes + 1, 'a')));
  for (const auto* const text : {"a b", "a\tb", "a\r\nX: y", "a\x7f", "a\xc3\xa4"}) {
    EXPECT_FALSE(is_token(text)) << text;
  }
}

TEST(ProxyTokenTest, OursAreToldFromAnApplicationsOwn) {
  EXPECT_EQ(token_shape("mesh_anything"), TokenShape::kOurs);
  EXPECT_EQ(token_shape("v2/zzzzz-gj3su-000000000000000/secretgarbage"), TokenShape::kOurs);
  EXPECT_EQ(token_shape(std::string(50, '7')), TokenShape::kPerhaps);
  EXPECT_EQ(token_shape(std::string(39, 'a')), TokenShape::kNot);
  EXPECT_EQ(token_shape(std::string(50, 'A')), TokenShape::kNot);
  for (const auto* const text : {"", "sk-1234", "v2/", "v2/zzzzz", "v2/zzzzz-tpzed-0", "Mesh_x"}) {
    EXPECT_EQ(token_shape(text), TokenShape::kNot) << text;
  }
}

TEST(ProxyTokenTest, CookieValuesAreReadWithPaddingAndWithout) {
  EXPECT_EQ(to_base64url("mesh_?>~"), "bWVzaF8_Pn4");
  for (const std::string bytes : {"", "a", "ab", "abc", "v2/zzzzz-gj3su-000/x"}) {
    EXPECT_EQ(parse_base64url(to_base64url(bytes)), bytes);
  }
  EXPECT_EQ(parse_base64url("YQ=="), "a");
  EXPECT_EQ(parse_base64url("YQ"), "a");
}

TEST(ProxyTokenTest, WhatIsNotBase64UrlIsRefused) {
  for (const auto* const text : {"YQ=", "Y", "YR", "Y+==", "a/bc", "YQ==YQ==", "Y Q", "YQ==="}) {
    EXPECT_EQ(parse_base64url(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace meshd::proxy
