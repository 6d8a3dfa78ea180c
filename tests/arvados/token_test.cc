// A token is what can stand in a header, comes from a file of ours, and shows in no text.
#include "arvados/token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "arvados/limits.h"
#include "tests/support/temp_dir.h"

namespace meshd::arvados {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr auto kSample = "v2/zzzzz-gj3su-000000000000001/3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru";

TEST(TokenTest, EveryFormOfTokenIsTaken) {
  for (const auto* text :
       {kSample, "v2/zzzzz-gj3su-000000000000001/abc/zzzzz-dz642-000000000000001",
        "3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru", "eyJhbGciOi.J9_-.a=="}) {
    EXPECT_EQ(Token::parse(text).value().secret(), text);
  }
}

TEST(TokenTest, WhatCannotBeATokenNeverReachesTheApi) {
  for (const std::string& text :
       {std::string(), std::string("a b"), std::string("a\r\nX-Evil: 1"), std::string("a\0b", 3),
        std::string("caf\xc3\xa9"), std::string(kMaxTokenBytes + 1, 'a')}) {
    const auto token = Token::parse(text);
    ASSERT_FALSE(token);
    EXPECT_THAT(token.error().what, Not(HasSubstr("X-Evil")));
  }
  EXPECT_TRUE(Token::parse(std::string(kMaxTokenBytes, 'a')));
}

TEST(TokenTest, AFileIsOneLineThatOthersCannotRead) {
  const TempDir dir;
  const auto path = dir / "token";
  const auto write = [&](const std::string& text) {
    std::ofstream(path) << text;
    chmod(path.c_str(), 0600);
  };
  write(std::string(kSample) + "\n");
  EXPECT_EQ(Token::read_file(path).value().secret(), kSample);
  chmod(path.c_str(), 0640);
  EXPECT_THAT(Token::read_file(path).error().what, HasSubstr("chmod 600"));
  write("two\nlines\n");
  const auto two = Token::read_file(path);
  ASSERT_FALSE(two);
  EXPECT_THAT(two.error().what, Not(HasSubstr("lines")));
  write(std::string(kMaxTokenBytes + 100, 'a'));
  EXPECT_FALSE(Token::read_file(path));
  EXPECT_FALSE(Token::read_file(dir.path()));
  EXPECT_FALSE(Token::read_file(dir / "none"));
}

TEST(TokenTest, TextOfOthersIsClearedOfIt) {
  const auto token = Token::parse(kSample).value();
  const auto text = token.scrub(std::string("no ") + kSample +
                                ", nor 3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru!");
  EXPECT_EQ(text, "no *, nor *!");
}

}  // namespace
}  // namespace meshd::arvados
