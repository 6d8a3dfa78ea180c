#include "pki/issue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>

#include <set>

#include "tests/support/pki_forger.h"

namespace meshd::pki {
namespace {

using testing::HasSubstr;

const Holder kNode = holder_of("lab", Role::kNode, "node-7");

std::string why_not_csr(const std::string& der) {
  const auto checked = check_csr(der);
  return checked ? "" : checked.error().what;
}

std::string text_of_names(const Certificate& certificate) {
  const auto x509 = x509_of(certificate);
  const BioPtr to(BIO_new(BIO_s_mem()));
  X509_print(to.get(), x509.get());
  return text_of(to.get());
}

TEST(IssueTest, OnlyP256AndEd25519AreCertified) {
  EXPECT_EQ(why_not_csr(make_csr(new_key()).value()), "");
  const KeyPtr ed25519(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  EXPECT_EQ(why_not_csr(request_for(ed25519.get(), nullptr)), "");
  const KeyPtr rsa(EVP_RSA_gen(2048));
  const KeyPtr p384(EVP_EC_gen("P-384"));
  const KeyPtr bitcoins(EVP_EC_gen("secp256k1"));
  for (const auto* key : {&rsa, &p384, &bitcoins}) {
    EXPECT_EQ(why_not_csr(request_for(key->get())),
              "certificate request: neither a P-256 nor an Ed25519 key");
  }
  EXPECT_NE(why_not_csr(request_for(spelled_out_key().get())), "");
}

TEST(IssueTest, ARequestMustBeSignedByItsKey) {
  auto csr = make_csr(new_key()).value();
  csr.back() = static_cast<char>(csr.back() ^ 1);
  EXPECT_EQ(why_not_csr(csr), "certificate request: its signature is broken");
  const SampleAuthority authority;
  EXPECT_FALSE(issue(authority.certificate, authority.key, csr, kNode, kSampleNow));
}

TEST(IssueTest, ARequestIsOneAndNotHuge) {
  const auto csr = make_csr(new_key()).value();
  EXPECT_NE(why_not_csr(csr + '\0'), "");
  EXPECT_NE(why_not_csr(csr.substr(0, csr.size() - 1)), "");
  EXPECT_NE(why_not_csr(""), "");
  EXPECT_THAT(why_not_csr(std::string(kMaxCsrBytes + 1, '\x30')), HasSubstr("more than"));
}

TEST(IssueTest, AnEd25519KeyIsCertifiedAndCertifies) {
  const KeyPtr made(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  const BioPtr to(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(to.get(), made.get(), nullptr, nullptr, 0, nullptr, nullptr);
  const auto key = PrivateKey::parse(text_of(to.get()));
  ASSERT_TRUE(key) << key.error().what;
  const auto authority = make_authority(*key, "lab", kSampleNow).value();
  const auto certificate =
      issue(authority, *key, make_csr(*key).value(), kNode, kSampleNow).value();
  EXPECT_TRUE(certificate.belongs_to(*key));
  EXPECT_TRUE(
      check_certificate(certificate, {&authority, 1}, {.cluster = "lab", .role = {}}, kSampleNow));
}

TEST(IssueTest, AControllersNamesItsHosts) {
  const SampleAuthority authority;
  auto holder = holder_of("lab", Role::kController, "c1");
  holder.hosts = {"c1.example.org"};
  holder.addresses = {IpAddress::parse("192.0.2.7").value(),
                      IpAddress::parse("2001:db8::7").value()};
  const auto certificate = authority.give(new_key(), holder, kSampleNow);
  ASSERT_TRUE(certificate) << certificate.error().what;
  const auto text = text_of_names(*certificate);
  EXPECT_THAT(text, HasSubstr("URI:mesh://lab/controller/c1, DNS:controller.lab.mesh, "
                              "DNS:c1.example.org, IP Address:192.0.2.7, "
                              "IP Address:2001:DB8:0:0:0:0:0:7"));
  EXPECT_THAT(text, HasSubstr("TLS Web Server Authentication, TLS Web Client Authentication"));
  EXPECT_TRUE(check_certificate(*certificate, authority.list(),
                                {.cluster = "lab", .role = Role::kController}, kSampleNow));
}

TEST(IssueTest, NobodyElsesIsGoodForAServer) {
  const SampleAuthority authority;
  for (const auto role : {Role::kNode, Role::kDispatcher, Role::kAdmin, Role::kReader}) {
    const auto text =
        text_of_names(authority.give(new_key(), holder_of("lab", role, "x"), kSampleNow).value());
    EXPECT_THAT(text, HasSubstr("TLS Web Client Authentication"));
    EXPECT_THAT(text, testing::Not(HasSubstr("Server Authentication")));
    EXPECT_THAT(text, testing::Not(HasSubstr("DNS:")));
  }
  auto node = kNode;
  node.hosts = {controller_host("lab")};
  EXPECT_FALSE(authority.give(new_key(), node, kSampleNow));
}

TEST(IssueTest, NoTextBecomesAnotherExtension) {
  const SampleAuthority authority;
  for (const std::string_view host : {"a,URI:mesh://lab/admin/root", "a\nb", "*.example.org", "",
                                      "a..b", "a.", "@section", "A.b"}) {
    auto holder = holder_of("lab", Role::kController, "c1");
    holder.hosts = {std::string(host)};
    EXPECT_FALSE(authority.give(new_key(), holder, kSampleNow)) << host;
  }
  for (const std::string_view name : {"a,DNS:controller.lab.mesh", "a/b", "", "A"}) {
    EXPECT_FALSE(authority.give(new_key(), holder_of("lab", Role::kNode, name), kSampleNow));
    EXPECT_FALSE(make_authority(authority.key, name, kSampleNow));
  }
}

TEST(IssueTest, TermsHaveLimits) {
  const SampleAuthority authority;
  auto holder = kNode;
  for (const auto lifetime : {std::chrono::seconds(0), std::chrono::seconds(-1),
                              kMaxLifetime + std::chrono::seconds(1)}) {
    holder.lifetime = lifetime;
    EXPECT_FALSE(authority.give(new_key(), holder, kSampleNow));
  }
  auto controller = holder_of("lab", Role::kController, "c1");
  controller.hosts.assign(kMaxHosts, std::string(63, 'a') + "." + std::string(63, 'b') + ".x");
  EXPECT_TRUE(authority.give(new_key(), controller, kSampleNow));
  controller.hosts.emplace_back("one-more");
  EXPECT_FALSE(authority.give(new_key(), controller, kSampleNow));
}

TEST(IssueTest, AnAuthorityIssuesForItsOwnClusterWithItsOwnKey) {
  const SampleAuthority authority;
  EXPECT_FALSE(authority.give(new_key(), holder_of("other", Role::kNode, "a"), kSampleNow));
  const auto csr = make_csr(new_key()).value();
  EXPECT_EQ(error_of(issue(authority.certificate, new_key(), csr, kNode, kSampleNow)),
            "the authority's key and certificate do not belong together");
  EXPECT_FALSE(
      issue(authority.certificate, authority.key, csr, kNode, authority.certificate.not_after));
}

TEST(IssueTest, NoSerialNumberComesTwice) {
  const SampleAuthority authority;
  std::set<std::string> seen;
  const auto key = new_key();
  for (int i = 0; i < 20; ++i) {
    const auto certificate = authority.give(key, kNode, kSampleNow).value();
    const auto x509 = x509_of(certificate);
    const BignumPtr number(ASN1_INTEGER_to_BN(X509_get0_serialNumber(x509.get()), nullptr));
    EXPECT_GT(BN_num_bits(number.get()), 96);
    EXPECT_TRUE(seen.insert(certificate.der).second);
  }
}

TEST(IssueTest, AKeyIsReadOnlyWhenItNeedsNoPassword) {
  const auto key = new_key();
  const auto again = PrivateKey::parse(key.to_pem());
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_EQ(again->public_der(), key.public_der());
  const BioPtr to(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(to.get(), key.get(), EVP_aes_128_cbc(), "secret", 6, nullptr,
                                nullptr);
  EXPECT_FALSE(PrivateKey::parse(text_of(to.get())));
  const KeyPtr rsa(EVP_RSA_gen(2048));
  const BioPtr plain(BIO_new(BIO_s_mem()));
  PEM_write_bio_PKCS8PrivateKey(plain.get(), rsa.get(), nullptr, nullptr, 0, nullptr, nullptr);
  EXPECT_EQ(error_of(PrivateKey::parse(text_of(plain.get()))),
            "private key: neither a P-256 nor an Ed25519 key");
}

}  // namespace
}  // namespace meshd::pki
