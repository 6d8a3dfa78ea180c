// Who comes in, with which certificate, and what the audit log says of it.
#include "controller/app.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "tests/controller/app_bed.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;
using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

constexpr auto kNow = pki::kSampleNow;

class AppTest : public testing::Test {
 protected:
  // What a machine that is refused hears.
  std::string refusal(const std::string& token, const std::string& name = "n1",
                      std::string_view source = "192.0.2.7") {
    const auto reply = bed_.enrol(token, name, source);
    return reply ? "it was let in" : reply.error().what;
  }
  Result<pb::Empty> revoke(const std::string& id) {
    pb::TokenName request;
    request.set_id(id);
    return AppBed::answer_of<pb::Empty>(
        [&](auto reply) { bed_.app->revoke_token(ada_, request, std::move(reply)); });
  }
  Result<pb::TokenList> tokens() {
    return AppBed::answer_of<pb::TokenList>(
        [&](auto reply) { bed_.app->list_tokens(std::move(reply)); });
  }
  Result<pb::EnrolReply> certify(const std::string& role, const std::string& name,
                                 std::uint32_t lifetime_s = 0) {
    pb::CertifyRequest request;
    request.set_csr(pki::make_csr(pki::new_key()).value());
    request.set_role(role);
    request.set_name(name);
    request.set_lifetime_s(lifetime_s);
    return AppBed::answer_of<pb::EnrolReply>(
        [&](auto reply) { bed_.app->certify(ada_, request, std::move(reply)); });
  }
  // Whom a certificate of the cluster's authority is for.
  std::string holder(const Result<pb::EnrolReply>& reply) {
    if (!reply) return reply.error().what;
    const auto certificate = pki::parse_certificate(reply->certificate()).value();
    const auto authorities = pki::parse_authorities(reply->ca()).value();
    const auto identity =
        pki::check_certificate(certificate, authorities.certificates, {"lab", std::nullopt}, now());
    return identity ? identity->to_string() : identity.error().what;
  }
  [[nodiscard]] pki::UtcTime now() const {
    return pki::UtcTime(std::chrono::seconds(bed_.now.wall_ms / 1000));
  }

  AppBed bed_{kNow};
  const pki::Peer ada_ = AppBed::peer(pki::Role::kAdmin, "ada");
};

// The first, because the log writes no more than so many lines a second.
TEST_F(AppTest, TheAuditSaysWhoDidWhatAndHoldsNoSecret) {
  testing::internal::CaptureStderr();
  const auto token = bed_.token();
  static_cast<void>(bed_.enrol(token));
  static_cast<void>(bed_.enrol("x", "n2", "198.51.100.1"));
  const auto log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("audit admin/ada: token create: good for 24 h, id " +
                             token.substr(0, token.find('.')) + ": done"));
  EXPECT_THAT(log, HasSubstr("audit 192.0.2.7: join as n1: done"));
  EXPECT_THAT(log, HasSubstr("audit 198.51.100.1: join as n2: token: not ID.SECRET"));
  EXPECT_THAT(log, Not(HasSubstr(token.substr(token.find('.') + 1))));
}

TEST_F(AppTest, AMachineWithATokenBecomesANode) {
  EXPECT_EQ(holder(bed_.enrol(bed_.token())), "mesh://lab/node/n1");
}

TEST_F(AppTest, AllWhoAreRefusedHearTheSame) {
  pb::TokenRequest once;
  once.set_uses(1);
  once.add_sources("192.0.2.0/24");
  once.set_name_prefix("gpu-");
  const auto token = bed_.token(once);
  auto wrong = token;
  wrong.back() = wrong.back() == '0' ? '1' : '0';
  EXPECT_EQ(refusal(wrong, "gpu-1"), kTokenRefused);
  EXPECT_EQ(refusal("", "gpu-1"), kTokenRefused);
  EXPECT_EQ(refusal(token, "gpu-1", "198.51.100.1"), kTokenRefused);
  EXPECT_EQ(refusal(token, "n1"), kTokenRefused);
  EXPECT_EQ(refusal(token, "GPU_1"), kTokenRefused);
  EXPECT_EQ(holder(bed_.enrol(token, "gpu-1")), "mesh://lab/node/gpu-1");
  EXPECT_EQ(refusal(token, "gpu-2"), kTokenRefused);
}

TEST_F(AppTest, ATokenEndsWithItsTime) {
  pb::TokenRequest hour;
  hour.set_lifetime_s(3600);
  const auto token = bed_.token(hour);
  bed_.pass(3599s);
  EXPECT_EQ(holder(bed_.enrol(token)), "mesh://lab/node/n1");
  bed_.pass(1s);
  EXPECT_EQ(refusal(token, "n2"), kTokenRefused);
}

TEST_F(AppTest, ARequestThatCannotBeGrantedCostsNoUse) {
  pb::TokenRequest once;
  once.set_uses(1);
  pb::EnrolRequest request;
  request.set_token(bed_.token(once));
  request.set_name("n1");
  request.set_csr("no request");
  const auto reply = AppBed::answer_of<pb::EnrolReply>([&](auto answer) {
    bed_.app->enrol(request, IpAddress::parse("192.0.2.7").value(), std::move(answer));
  });
  ASSERT_FALSE(reply);
  EXPECT_EQ(tokens()->tokens(0).uses_left(), 1);
}

TEST_F(AppTest, ARevokedTokenLetsNobodyIn) {
  const auto token = bed_.token();
  ASSERT_TRUE(revoke(token.substr(0, token.find('.'))));
  EXPECT_EQ(refusal(token), kTokenRefused);
  EXPECT_TRUE(tokens()->tokens(0).revoked());
  EXPECT_EQ(revoke("0123").error().code, ErrorCode::kNotFound);
}

TEST_F(AppTest, TheNameOfAConnectedNodeIsTaken) {
  const auto token = bed_.token();
  SilentStream stream;
  bed_.hello(stream, "n1");
  EXPECT_EQ(refusal(token), kTokenRefused);
  bed_.app->closed(stream);
  EXPECT_EQ(holder(bed_.enrol(token)), "mesh://lab/node/n1");
}

TEST_F(AppTest, WhileTheStoreIsAwayATokenThatIsCountedLetsNobodyIn) {
  pb::TokenRequest many;
  many.set_uses(5);
  const auto token = bed_.token(many);
  bed_.store->away = true;
  EXPECT_EQ(refusal(token), "join: the store is away");
}

TEST_F(AppTest, ANodeRenewsForItsOwnNameAndNobodyElseRenews) {
  const auto renew = [&](const pki::Peer& peer) {
    return AppBed::answer_of<pb::EnrolReply>([&](auto reply) {
      bed_.app->renew(peer, pki::make_csr(pki::new_key()).value(), std::move(reply));
    });
  };
  EXPECT_EQ(holder(renew(AppBed::peer(pki::Role::kNode, "n7"))), "mesh://lab/node/n7");
  EXPECT_EQ(renew(ada_).error().what, "renew: for nodes only");
  EXPECT_EQ(renew(AppBed::peer(pki::Role::kController, "c1")).error().code, ErrorCode::kConflict);
}

TEST_F(AppTest, ASessionEndsWithItsCertificate) {
  SilentStream stream;
  auto peer = AppBed::peer(pki::Role::kNode, "n1");
  peer.until = kNow + 10s;
  bed_.app->opened(stream, peer);
  bed_.app->end_expired();
  EXPECT_FALSE(stream.closed);
  bed_.pass(10s);
  bed_.app->end_expired();
  EXPECT_TRUE(stream.closed);
}

TEST_F(AppTest, PeopleAreCertifiedAndNobodyElse) {
  EXPECT_EQ(holder(certify("dispatcher", "slurm")), "mesh://lab/dispatcher/slurm");
  EXPECT_EQ(holder(certify("admin", "bo")), "mesh://lab/admin/bo");
  EXPECT_EQ(holder(certify("reader", "grafana", 3600)), "mesh://lab/reader/grafana");
  for (const std::string role : {"node", "controller", "", "Admin"}) {
    EXPECT_THAT(certify(role, "x").error().what, HasSubstr("none of dispatcher, admin, reader"));
  }
  EXPECT_THAT(certify("reader", "a.b").error().what, HasSubstr("certify: name"));
}

TEST_F(AppTest, ATokensTermsHaveLimits) {
  pb::TokenRequest long_lived;
  long_lived.set_lifetime_s(366 * 24 * 3600);
  EXPECT_THAT(bed_.create(long_lived).error().what, HasSubstr("at most 365 days"));
  pb::TokenRequest odd;
  odd.add_sources("everywhere");
  EXPECT_THAT(bed_.create(odd).error().what, HasSubstr("source everywhere"));
  EXPECT_EQ(tokens()->tokens_size(), 0);
}

// More lines than the log takes of one kind.
TEST_F(AppTest, NoLineOfThoseWithACertificateIsLeftOut) {
  constexpr int kMany = 2 * log::kLinesPerSecond;
  testing::internal::CaptureStderr();
  for (int i = 0; i < kMany; ++i) static_cast<void>(revoke(std::to_string(i)));
  const auto log = testing::internal::GetCapturedStderr();
  for (int i = 0; i < kMany; ++i) {
    EXPECT_THAT(log, HasSubstr("audit admin/ada: token revoke " + std::to_string(i) + ": "));
  }
}

TEST_F(AppTest, ABackupGoesToAnAbsolutePath) {
  const auto backup = [&](const std::string& path) {
    pb::BackupRequest request;
    request.set_path(path);
    return AppBed::answer_of<pb::Empty>(
        [&](auto reply) { bed_.app->backup(ada_, request, std::move(reply)); });
  };
  EXPECT_TRUE(backup("/var/backups/mesh.db"));
  EXPECT_EQ(backup("mesh.db").error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace meshd::controller
