#include "controller/token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/pki_samples.h"

namespace meshd::controller {
namespace {

using std::chrono::hours;
using testing::HasSubstr;
using testing::Not;

constexpr auto kNow = pki::kSampleNow;

TokenRandomness randomness(std::uint8_t seed) {
  TokenRandomness bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(seed + i * 3);
  return bytes;
}

TokenTerms terms() {
  return {
      .expires_at = kNow + hours(1),
      .sources = {Prefix::parse("192.0.2.0/24").value(), Prefix::parse("2001:db8::/64").value()},
      .uses_left = 2,
      .name_prefix = "gpu-"};
}

class TokenTest : public testing::Test {
 protected:
  // Why a node is refused; empty when it is not.
  [[nodiscard]] std::string refusal(std::string_view source = "192.0.2.7",
                                    std::string_view name = "gpu-1",
                                    pki::UtcTime now = kNow) const {
    const auto refused = check_token(&made_.token, parse_token(made_.text).value(),
                                     IpAddress::parse(source).value(), name, now);
    if (!refused) return "";
    EXPECT_EQ(refused->for_peer, "the token is not valid");
    EXPECT_THAT(refused->for_log.what, HasSubstr(made_.token.id));
    EXPECT_THAT(refused->for_log.what, Not(HasSubstr(made_.text.substr(17))));
    return refused->for_log.what.substr(std::string("token : ").size() + made_.token.id.size());
  }

  MadeToken made_ = make_token(terms(), randomness(1)).value();
};

TEST_F(TokenTest, LetsANodeIn) {
  EXPECT_EQ(made_.text.size(), 81);
  EXPECT_EQ(refusal(), "");
  EXPECT_EQ(refusal("2001:db8::9"), "");
}

TEST_F(TokenTest, KeepsNoSecret) {
  const auto secret = made_.text.substr(made_.text.find('.') + 1);
  EXPECT_NE(pki::to_hex(made_.token.secret_hash), secret);
  EXPECT_EQ(parse_token(made_.text)->secret_hash, made_.token.secret_hash);
}

TEST_F(TokenTest, FromElsewhereItIsNotGood) {
  EXPECT_EQ(refusal("198.51.100.1"), "used from 198.51.100.1, where it is not good");
  EXPECT_EQ(refusal("2001:db8:0:1::9"), "used from 2001:db8:0:1::9, where it is not good");
}

TEST_F(TokenTest, AnIpv4AddressOnAnIpv6SocketIsThatAddress) {
  EXPECT_EQ(refusal("::ffff:192.0.2.7"), "");
  EXPECT_EQ(refusal("::ffff:198.51.100.1"), "used from 198.51.100.1, where it is not good");
}

TEST_F(TokenTest, EndsWhenItShould) {
  EXPECT_EQ(refusal("192.0.2.7", "gpu-1", kNow + hours(1) - std::chrono::seconds(1)), "");
  EXPECT_EQ(refusal("192.0.2.7", "gpu-1", kNow + hours(1)), "expired 0 s ago");
  EXPECT_EQ(refusal("192.0.2.7", "gpu-1", kNow + hours(4)), "expired 3 h ago");
}

TEST_F(TokenTest, CanBeRevoked) {
  made_.token.revoked = true;
  EXPECT_EQ(refusal(), "revoked");
}

TEST_F(TokenTest, IsUsedUp) {
  made_.token = spent(spent(made_.token));
  EXPECT_EQ(made_.token.terms.uses_left, 0U);
  EXPECT_EQ(refusal(), "used up");
  EXPECT_EQ(spent(made_.token).terms.uses_left, 0U);
  made_.token.terms.uses_left.reset();
  made_.token = spent(made_.token);
  EXPECT_EQ(refusal(), "");
}

TEST_F(TokenTest, IsForNamesThatBeginSo) {
  EXPECT_EQ(refusal("192.0.2.7", "cpu-1"), "used for another name than gpu-...");
  made_.token.terms.name_prefix.clear();
  EXPECT_EQ(refusal("192.0.2.7", "cpu-1"), "");
}

TEST_F(TokenTest, AWrongSecretIsToldBeforeAnythingElse) {
  made_.token.revoked = true;
  auto other = make_token(terms(), randomness(1)).value();
  other.text.back() = other.text.back() == '0' ? '1' : '0';
  const auto refused = check_token(&made_.token, parse_token(other.text).value(),
                                   IpAddress::parse("192.0.2.7").value(), "gpu-1", kNow);
  ASSERT_TRUE(refused);
  EXPECT_THAT(refused->for_log.what, HasSubstr("its secret is another"));
}

TEST_F(TokenTest, AnUnknownOneIsRefusedAlike) {
  const auto refused = check_token(nullptr, parse_token(made_.text).value(),
                                   IpAddress::parse("192.0.2.7").value(), "gpu-1", kNow);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->for_peer, kTokenRefused);
  EXPECT_THAT(refused->for_log.what, HasSubstr("there is none of that id"));
}

TEST_F(TokenTest, TheSecretOfAnotherTokenIsNotItsOwn) {
  const auto second = make_token(terms(), randomness(9)).value();
  const auto mixed = made_.token.id + second.text.substr(16);
  EXPECT_TRUE(check_token(&made_.token, parse_token(mixed).value(),
                          IpAddress::parse("192.0.2.7").value(), "gpu-1", kNow));
  EXPECT_TRUE(check_token(&second.token, parse_token(mixed).value(),
                          IpAddress::parse("192.0.2.7").value(), "gpu-1", kNow));
}

TEST_F(TokenTest, TextIsTakenExactly) {
  for (const auto& text : {std::string(), std::string("."), made_.text + "\n", " " + made_.text,
                           made_.text.substr(1), made_.text + "0", made_.text.substr(0, 80) + "G",
                           made_.text.substr(0, 16) + ":" + made_.text.substr(17),
                           std::string(81, 'A'), std::string(1 << 20, '0')}) {
    const auto read = parse_token(text);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().what, "token: not ID.SECRET");
  }
}

TEST_F(TokenTest, TermsHaveLimits) {
  auto many = terms();
  many.sources.resize(kMaxTokenSources + 1);
  EXPECT_FALSE(make_token(many, randomness(1)));
  auto odd = terms();
  for (const std::string_view prefix : {"-a", "A", "a.b", "a b"}) {
    odd.name_prefix = prefix;
    EXPECT_FALSE(make_token(odd, randomness(1))) << prefix;
  }
}

}  // namespace
}  // namespace meshd::controller
