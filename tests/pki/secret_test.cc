#include "pki/secret.h"

#include <gtest/gtest.h>

#include <set>

namespace meshd::pki {
namespace {

TEST(SecretTest, DigestsAreThoseOfTheStandard) {
  EXPECT_EQ(to_hex(sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(SecretTest, RandomBytesAreNotTwiceTheSame) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    Sha256 bytes{};
    ASSERT_TRUE(fill_random(bytes));
    EXPECT_TRUE(seen.insert(to_hex(bytes)).second);
  }
}

TEST(SecretTest, ComparesContentAndLength) {
  const Sha256 a = sha256("a");
  EXPECT_TRUE(equal_in_constant_time(a, a));
  EXPECT_FALSE(equal_in_constant_time(a, sha256("b")));
  EXPECT_FALSE(equal_in_constant_time(a, std::span(a).first(31)));
}

TEST(SecretTest, HexadecimalHasOneText) {
  std::array<std::uint8_t, 2> bytes{};
  ASSERT_TRUE(parse_hex("0aff", bytes));
  EXPECT_EQ(to_hex(bytes), "0aff");
  for (const std::string_view text : {"", "0af", "0aff0", "0AFF", "0xff", " aff", "0a-1"}) {
    EXPECT_FALSE(parse_hex(text, bytes)) << text;
  }
}

TEST(SecretTest, Base64SurvivesEveryLength) {
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    const auto text = to_base64(bytes);
    const auto read = parse_base64(text);
    ASSERT_TRUE(read) << i;
    EXPECT_EQ(*read, bytes);
    bytes += static_cast<char>(i * 7);
  }
}

TEST(SecretTest, Base64HasOneText) {
  EXPECT_EQ(to_base64("ab"), "YWI=");
  for (const std::string_view text :
       {"YWI", "YWJ=", "YW==YWI=", "====", "Y===", "YW I=", "YWI=\n", "YWI-", "YWI_", " YWI"}) {
    EXPECT_FALSE(parse_base64(text)) << text;
  }
}

}  // namespace
}  // namespace meshd::pki
