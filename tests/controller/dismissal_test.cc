// A node that was dismissed: whose certificates are refused, and who comes in again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/controller/app_bed.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;
using testing::HasSubstr;
using namespace std::chrono_literals;

constexpr auto kNow = pki::kSampleNow;

class DismissalTest : public testing::Test {
 protected:
  Result<pb::Empty> dismiss(const std::string& name) {
    pb::NodeName request;
    request.set_name(name);
    return AppBed::answer_of<pb::Empty>([&](auto reply) {
      bed_.app->dismiss_node(AppBed::peer(pki::Role::kAdmin, "ada"), request, std::move(reply));
    });
  }
  // A certificate of that name, whose key has this digest.
  static pki::Peer peer(const std::string& name, const pki::Sha256& key, pki::UtcTime since) {
    auto peer = AppBed::peer(pki::Role::kNode, name);
    peer.key_digest = key;
    peer.since = since;
    return peer;
  }
  bool is_let_in(const pki::Peer& peer) {
    SilentStream stream;
    bed_.app->opened(stream, peer);
    const bool in = !stream.closed;
    if (!in) {
      EXPECT_EQ(stream.sent.back().farewell().reason(), kDismissed);
    }
    bed_.app->closed(stream);
    return in;
  }
  Result<pb::EnrolReply> renew(const pki::Peer& peer) {
    return AppBed::answer_of<pb::EnrolReply>([&](auto reply) {
      bed_.app->renew(peer, pki::make_csr(pki::new_key()).value(), std::move(reply));
    });
  }

  AppBed bed_{kNow};
  const pki::Sha256 old_key_ = pki::sha256("old");
};

TEST_F(DismissalTest, ItsSessionEndsAndItsCertificateIsRefused) {
  const auto node = peer("n1", old_key_, kNow - 1h);
  SilentStream stream;
  bed_.hello(stream, "n1");
  ASSERT_TRUE(dismiss("n1"));
  EXPECT_TRUE(stream.closed);
  EXPECT_EQ(stream.sent.back().farewell().reason(), kDismissed);
  EXPECT_TRUE(bed_.controller->cluster().nodes().empty());
  bed_.app->closed(stream);
  EXPECT_FALSE(is_let_in(node));
  EXPECT_EQ(renew(node).error().what, kDismissed);
  EXPECT_TRUE(is_let_in(peer("n2", old_key_, kNow - 1h))) << "another node is not concerned";
  EXPECT_EQ(dismiss("n1").error().code, ErrorCode::kNotFound);
}

TEST_F(DismissalTest, WhoEnrolsAnewComesInAndTheOldOneDoesNot) {
  SilentStream stream;
  bed_.hello(stream, "n1");
  ASSERT_TRUE(dismiss("n1"));
  bed_.app->closed(stream);
  const auto reply = bed_.enrol(bed_.token());
  ASSERT_TRUE(reply) << reply.error().what;
  const auto certificate = pki::parse_certificate(reply->certificate()).value();
  const auto again = peer("n1", pki::sha256(certificate.public_der), certificate.not_before);
  EXPECT_LT(certificate.not_before, kNow) << "it looks older than the dismissal";
  EXPECT_TRUE(is_let_in(again));
  EXPECT_TRUE(renew(again));
  EXPECT_FALSE(is_let_in(peer("n1", old_key_, kNow - 1h)));
}

// An authority of the site's own: nobody enrols.
TEST_F(DismissalTest, ACertificateThatWasMadeLaterIsGood) {
  SilentStream stream;
  bed_.hello(stream, "n1");
  ASSERT_TRUE(dismiss("n1"));
  bed_.app->closed(stream);
  EXPECT_FALSE(is_let_in(peer("n1", old_key_, kNow)));
  EXPECT_TRUE(is_let_in(peer("n1", old_key_, kNow + 1s)));
}

TEST_F(DismissalTest, AnotherControllersDismissalEndsTheSessionHere) {
  SilentStream stream;
  bed_.hello(stream, "n1");
  auto other =
      Controller::make(std::make_unique<MemoryStore>(bed_.memory), {.name = "c2"}, bed_.now)
          .value();
  ASSERT_TRUE(other->dismiss("n1", bed_.now));
  bed_.controller->on_store_notified(bed_.now);
  bed_.app->end_expired();
  EXPECT_TRUE(stream.closed);
}

TEST_F(DismissalTest, ItIsKeptOverARestartAndForgottenInTheEnd) {
  SilentStream stream;
  bed_.hello(stream, "n1");
  ASSERT_TRUE(dismiss("n1"));
  const auto next =
      Controller::make(std::make_unique<MemoryStore>(bed_.memory), {.name = "c1"}, bed_.now)
          .value();
  EXPECT_TRUE(is_dismissed(next->cluster(), "n1", key_text(old_key_), kNow - 1h));
  bed_.pass(kDismissalKept);
  next->on_timer(bed_.now);
  EXPECT_TRUE(next->cluster().dismissals().empty());
}

TEST_F(DismissalTest, ExpiredTokensAreForgottenAfterAWhile) {
  pb::TokenRequest hour;
  hour.set_lifetime_s(3600);
  static_cast<void>(bed_.token(hour));
  pb::TokenRequest longer;
  longer.set_lifetime_s(30 * 24 * 3600);
  static_cast<void>(bed_.token(longer));
  bed_.pass(1h + kTokenKept - 1s);
  bed_.controller->on_timer(bed_.now);
  EXPECT_EQ(bed_.controller->cluster().tokens().size(), 2U) << "its user is told that it expired";
  bed_.pass(1s);
  bed_.controller->on_timer(bed_.now);
  EXPECT_EQ(bed_.controller->cluster().tokens().size(), 1U);
}

}  // namespace
}  // namespace meshd::controller
