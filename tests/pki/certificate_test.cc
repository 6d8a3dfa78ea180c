#include "pki/certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/support/pki_forger.h"

namespace meshd::pki {
namespace {

using std::chrono::days;
using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::HasSubstr;

class CertificateTest : public testing::Test {
 protected:
  [[nodiscard]] std::string why_not(const Certificate& certificate, const Expected& expected,
                                    UtcTime now = kSampleNow) const {
    const auto checked = check_certificate(certificate, authority_.list(), expected, now);
    return checked ? "" : checked.error().what;
  }
  [[nodiscard]] Certificate node(std::string_view name = "node-7") const {
    return authority_.give(key_, holder_of("lab", Role::kNode, name), kSampleNow).value();
  }

  SampleAuthority authority_;
  PrivateKey key_ = new_key();
  Expected any_node_{.cluster = "lab", .role = Role::kNode};
};

TEST_F(CertificateTest, SaysWhatWasIssued) {
  const auto certificate = node();
  EXPECT_EQ(certificate.identity().value(), (Identity{"lab", Role::kNode, "node-7"}));
  EXPECT_EQ(certificate.not_before, kSampleNow - minutes(5));
  EXPECT_EQ(certificate.not_after, kSampleNow + kNodeLifetime);
  EXPECT_FALSE(certificate.is_authority);
  EXPECT_EQ(certificate.fingerprint, sha256(certificate.der));
  const auto again = parse_certificate(certificate.to_pem());
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_EQ(again->der, certificate.der);
}

TEST_F(CertificateTest, IsBelievedByItsAuthority) {
  EXPECT_EQ(why_not(node(), any_node_), "");
  EXPECT_EQ(why_not(node(), {.cluster = "lab", .role = Role::kNode, .name = "node-7"}), "");
  EXPECT_EQ(why_not(node(), {.cluster = "lab", .role = std::nullopt}), "");
}

TEST_F(CertificateTest, AnotherAuthorityOfTheSameNameDoesNotBelieveIt) {
  const SampleAuthority other;
  const auto strange = other.give(key_, holder_of("lab", Role::kNode, "node-7"), kSampleNow);
  EXPECT_EQ(why_not(*strange, any_node_), "certificate of node-7: signed by another authority");
  // Its key identifier copied, so that it looks like one of ours.
  const auto forged_one = forged(node(), other.key, NID_netscape_comment, "x");
  EXPECT_EQ(why_not(forged_one, any_node_), "certificate of node-7: its signature is broken");
}

TEST_F(CertificateTest, SignedByItselfItIsNotBelieved) {
  EXPECT_EQ(why_not(forged(node(), key_, NID_netscape_comment, "x"), any_node_),
            "certificate of node-7: its signature is broken");
}

TEST_F(CertificateTest, TimeIsJudgedAsGiven) {
  EXPECT_EQ(why_not(node(), any_node_, kSampleNow + kNodeLifetime + hours(2)),
            "certificate of node-7: expired 2 h ago");
  EXPECT_EQ(why_not(node(), any_node_, kSampleNow + kNodeLifetime - seconds(1)), "");
  EXPECT_EQ(why_not(node(), any_node_, kSampleNow - minutes(4)), "");
  EXPECT_EQ(why_not(node(), any_node_, kSampleNow - minutes(15)),
            "certificate of node-7: valid in 10 min only: is the clock right?");
}

TEST_F(CertificateTest, AnAuthorityThatExpiredBelievesNobody) {
  EXPECT_EQ(why_not(authority_.certificate, any_node_, kSampleNow),
            "certificate: made for another use");
  const auto late = kSampleNow + days(3652) - hours(1);
  const auto certificate =
      authority_.give(key_, holder_of("lab", Role::kNode, "node-7"), late).value();
  EXPECT_EQ(certificate.not_after, authority_.certificate.not_after);
  EXPECT_THAT(why_not(certificate, any_node_, late + hours(2)), HasSubstr("expired 60 min ago"));
}

TEST_F(CertificateTest, AnotherHolderThanExpectedIsNamed) {
  EXPECT_EQ(why_not(node(), {.cluster = "lab", .role = Role::kNode, .name = "node-8"}),
            "certificate of node-7: not that of node-8");
  EXPECT_EQ(why_not(node(), {.cluster = "lab", .role = Role::kAdmin}),
            "certificate of node-7: of role node, not admin");
  EXPECT_EQ(why_not(node(), {.cluster = "lab", .role = Role::kController}),
            "certificate of node-7: of role node, not controller");
  EXPECT_EQ(why_not(node(), {.cluster = "other", .role = Role::kNode}),
            "certificate of node-7: of cluster lab, not other");
}

TEST_F(CertificateTest, TwoIdentitiesAreNone) {
  const auto both = forged(node(), authority_.key, NID_subject_alt_name,
                           "URI:mesh://lab/node/node-7,URI:mesh://lab/admin/root");
  EXPECT_EQ(why_not(both, any_node_), "certificate: names 2 identities, not one");
  const auto none = forged(node(), authority_.key, NID_subject_alt_name, "");
  EXPECT_EQ(why_not(none, any_node_), "certificate: names 0 identities, not one");
}

TEST_F(CertificateTest, AControllersMustBeMadeForServers) {
  const auto client = forged(node(), authority_.key, NID_subject_alt_name,
                             "URI:mesh://lab/controller/c1,DNS:controller.lab.mesh");
  EXPECT_EQ(why_not(client, {.cluster = "lab", .role = Role::kController}),
            "certificate of c1: made for another use");
}

TEST_F(CertificateTest, AHolderSignsNobody) {
  const auto holder = node();
  const auto csr = make_csr(new_key()).value();
  EXPECT_FALSE(issue(holder, key_, csr, holder_of("lab", Role::kNode, "b"), kSampleNow));
  // Even one that the authority made an authority: it may sign holders only.
  auto second = forged(holder, authority_.key, NID_basic_constraints, "critical,CA:TRUE");
  second = forged(second, authority_.key, NID_key_usage, "critical,keyCertSign");
  second.uris = {"mesh://lab"};
  const auto below = issue(second, key_, csr, holder_of("lab", Role::kNode, "b"), kSampleNow);
  ASSERT_TRUE(below) << below.error().what;
  EXPECT_NE(why_not(*below, any_node_), "");
  const std::vector both{authority_.certificate, second};
  EXPECT_FALSE(check_certificate(*below, both, any_node_, kSampleNow));
}

TEST_F(CertificateTest, NoBitOfItMayFlip) {
  const auto certificate = node();
  std::mt19937 random(1);  // NOLINT: the same flips every time
  for (int i = 0; i < 1000; ++i) {
    auto der = certificate.der;
    const auto bit = std::uniform_int_distribution<std::size_t>(0, der.size() * 8 - 1)(random);
    der[bit / 8] = static_cast<char>(der[bit / 8] ^ (1 << (bit % 8)));
    const auto read = parse_der(der);
    EXPECT_FALSE(read && why_not(*read, any_node_).empty()) << "bit " << bit;
  }
}

TEST_F(CertificateTest, KeyAndCertificateBelongTogether) {
  EXPECT_TRUE(node().belongs_to(key_));
  EXPECT_FALSE(node().belongs_to(new_key()));
  EXPECT_FALSE(Certificate().belongs_to(key_));
}

TEST_F(CertificateTest, WhatIsHugeIsRefusedBeforeItIsRead) {
  EXPECT_FALSE(parse_der(std::string(kMaxCertificateBytes + 1, '\x30')));
  EXPECT_FALSE(parse_certificate(std::string(kMaxPemBytes + 1, '\n')));
  EXPECT_FALSE(PrivateKey::parse(std::string(kMaxKeyBytes + 1, '-')));
  std::string many;
  for (std::size_t i = 0; i <= kMaxAuthorities; ++i) many += authority_.certificate.to_pem();
  EXPECT_EQ(error_of(parse_authorities(many)), "more than 8 certificates");
}

TEST_F(CertificateTest, WhatFollowsACertificateIsRefused) {
  EXPECT_EQ(error_of(parse_der(node().der + '\0')), "certificate: something follows it");
  EXPECT_FALSE(parse_certificate(node().to_pem() + node().to_pem()));
  EXPECT_FALSE(parse_der(""));
  EXPECT_FALSE(parse_certificate(""));
  EXPECT_FALSE(parse_certificate("-----BEGIN CERTIFICATE-----\nAAAA\n"));
  EXPECT_FALSE(parse_certificate("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"));
}

TEST_F(CertificateTest, HasOneEncoding) {
  // The outermost length, 30 82 xx xx, in three bytes in place of two.
  auto longer = node().der;
  ASSERT_EQ(longer.substr(0, 2), "\x30\x82");
  longer[1] = '\x83';
  longer.insert(2, 1, '\0');
  EXPECT_EQ(error_of(parse_der(longer)), "certificate: not in its one encoding");
}

TEST_F(CertificateTest, AuthoritiesAreOfOneCluster) {
  const SampleAuthority next;
  const SampleAuthority elsewhere(kSampleNow, "other");
  const auto pem = authority_.certificate.to_pem();
  const auto read = parse_authorities("old and new\n" + pem + next.certificate.to_pem());
  ASSERT_TRUE(read) << read.error().what;
  EXPECT_EQ(read->cluster, "lab");
  EXPECT_EQ(read->certificates.size(), 2);
  EXPECT_EQ(error_of(parse_authorities(pem + elsewhere.certificate.to_pem())),
            "authorities of two clusters, lab and other");
  EXPECT_EQ(error_of(parse_authorities(node().to_pem())), "not an authority's certificate");
  // While both are there, both are believed.
  const auto certificate = next.give(key_, holder_of("lab", Role::kNode, "n"), kSampleNow).value();
  EXPECT_TRUE(check_certificate(certificate, read->certificates, any_node_, kSampleNow));
}

TEST_F(CertificateTest, IsRenewedAfterTwoThirdsAtTheLatest) {
  const auto certificate = node();
  const auto life = certificate.not_after - certificate.not_before;
  EXPECT_EQ(renew_at(certificate, 0), certificate.not_before + life * 2 / 3);
  EXPECT_EQ(renew_at(certificate, 1), certificate.not_before + life * 2 / 3 - life / 10);
  EXPECT_EQ(renew_at(certificate, 7), renew_at(certificate, 1));
  EXPECT_GT(certificate.not_after - renew_at(certificate, 0), hours(24))
      << "a day without controllers, begun when it was due";
}

TEST_F(CertificateTest, FailuresLeaveNothingForOthersToRead) {
  (void)parse_der("nonsense");
  (void)parse_certificate("nonsense");
  (void)PrivateKey::parse("nonsense");
  (void)check_csr("nonsense");
  (void)why_not(node(), any_node_, kSampleNow + days(99));
  EXPECT_EQ(ERR_peek_error(), 0);
}

}  // namespace
}  // namespace meshd::pki
