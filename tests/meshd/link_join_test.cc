// How a node gets its identity, and keeps it: see controller_link_test.cc for sessions.
#include <memory>

#include "meshd/controller_link.h"
#include "tests/meshd/controller_link_fixture.h"

namespace meshd {
namespace {

using namespace std::chrono_literals;
using test::FakeController;
using test::LinkDriver;
using testing::HasSubstr;

class LinkJoinTest : public test::LinkFixture {
 protected:
  // Of the cluster as it was.
  void write_identity() {
    const auto key = pki::new_key();
    ASSERT_TRUE(
        pki::write_identity(files_.identity, key, *authority_.give(key, node_, pki::real_now())));
    ASSERT_TRUE(pki::write_authorities(files_.authorities, authority_.certificate.to_pem()));
  }
};

TEST_F(LinkJoinTest, ANodeWithATicketJoinsAndKeepsItsIdentity) {
  FakeController controller(authority_, dir_.path());
  write_ticket(controller, FakeController::kToken, authority_);
  {
    LinkDriver node(joining());
    ASSERT_TRUE(node.run_until_connected()) << node.problem_now;
    EXPECT_EQ(node.problem_now, "");
  }
  struct stat info{};
  ASSERT_EQ(stat(files_.identity.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600U);
  LinkDriver again(joining());
  ASSERT_TRUE(again.run_until_connected());
  EXPECT_EQ(controller.enrolled, 1);
}

TEST_F(LinkJoinTest, ARefusalSaysWhyAndIsTriedAgain) {
  FakeController controller(authority_, dir_.path());
  write_ticket(controller, "wrong.token", authority_);
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_problem("the token is not valid"));
  EXPECT_THAT(node.problem_now, HasSubstr("joining: " + controller.join_address()));
  write_ticket(controller, FakeController::kToken, authority_);
  EXPECT_TRUE(node.run_until_connected());
  EXPECT_EQ(node.problem_now, "");
}

TEST_F(LinkJoinTest, AControllerOfAnotherAuthorityGetsNoToken) {
  FakeController controller(authority_, dir_.path());
  write_ticket(controller, FakeController::kToken, pki::SampleAuthority(pki::real_now()));
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_problem("joining: "));
  EXPECT_EQ(controller.enrolled, 0);
  EXPECT_EQ(controller.sessions, 0);
}

TEST_F(LinkJoinTest, ATicketThatOthersCanReadIsRefusedUntilMended) {
  FakeController controller(authority_, dir_.path());
  write_ticket(controller, FakeController::kToken, authority_, "lab", 0644);
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_problem("open to others (mode 0644): chmod 600"));
  ASSERT_EQ(chmod(ticket_.c_str(), 0600), 0);
  EXPECT_TRUE(node.run_until_connected());
}

TEST_F(LinkJoinTest, TheFirstControllerThatIsThereLetsItIn) {
  FakeController gone(authority_, dir_.path());
  gone.stop();
  FakeController controller(authority_, dir_.path(), {}, "c2");
  const auto text =
      pki::encode_ticket({.join_addresses = {gone.join_address(), controller.join_address()},
                          .addresses = {gone.address(), controller.address()},
                          .authorities = {authority_.list(), "lab"},
                          .token = FakeController::kToken});
  std::ofstream(ticket_) << *text;
  ASSERT_EQ(chmod(ticket_.c_str(), 0600), 0);
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_connected());
  EXPECT_EQ(node.connections.back(), controller.address());
  EXPECT_EQ(controller.enrolled, 1);
}

TEST_F(LinkJoinTest, AnExpiredCertificateIsReplacedByJoiningAgain) {
  const pki::SampleAuthority old(pki::real_now() - std::chrono::days(9));
  const auto key = pki::new_key();
  ASSERT_TRUE(pki::write_identity(
      files_.identity, key, *old.give(key, node_, pki::real_now() - pki::kNodeLifetime - 24h)));
  ASSERT_TRUE(pki::write_authorities(files_.authorities, old.certificate.to_pem()));
  FakeController controller(old, dir_.path());
  write_ticket(controller, FakeController::kToken, old);
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_connected()) << node.problem_now;
  EXPECT_EQ(controller.enrolled, 1);
  EXPECT_GT(expiry(), pki::real_now());
}

TEST_F(LinkJoinTest, ATicketForAnotherClusterMovesTheNode) {
  write_identity();
  const pki::SampleAuthority other(pki::real_now(), "prod");
  FakeController controller(other, dir_.path(), {}, "c1", "prod");
  write_ticket(controller, FakeController::kToken, other, "prod");
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_connected()) << node.problem_now;
  EXPECT_EQ(pki::read_identity(files_)->authorities.cluster, "prod");
}

TEST_F(LinkJoinTest, ANodeJoinsAClusterThatWasMadeAnewUnderItsName) {
  write_identity();
  const pki::SampleAuthority anew(pki::real_now());
  FakeController controller(anew, dir_.path());
  write_ticket(controller, FakeController::kToken, anew);
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_connected()) << node.problem_now;
  EXPECT_EQ(controller.enrolled, 1);
  EXPECT_THAT(node.problems, testing::Contains(HasSubstr("had been made anew")));
  EXPECT_EQ(node.problem_now, "");
}

TEST_F(LinkJoinTest, ANodeWithContainersStaysInItsClusterAndSaysWhy) {
  write_identity();
  const pki::SampleAuthority anew(pki::real_now());
  FakeController controller(anew, dir_.path());
  write_ticket(controller, FakeController::kToken, anew);
  LinkDriver node(joining());
  node.may = fail(ErrorCode::kConflict, "2 containers are attached");
  ASSERT_TRUE(node.run_until_problem("had been made anew: 2 containers are attached"));
  node.run_for(500ms);
  EXPECT_EQ(controller.enrolled, 0);
  EXPECT_EQ(pki::read_identity(files_)->authorities.certificates.front().fingerprint,
            authority_.certificate.fingerprint);
}

TEST_F(LinkJoinTest, AnOldTicketBesideAGoodIdentityIsNoReasonToMove) {
  write_identity();
  FakeController controller(authority_, dir_.path());
  write_ticket(controller, FakeController::kToken, pki::SampleAuthority(pki::real_now()));
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_connected()) << node.problem_now;
  controller.stop();
  ASSERT_TRUE(node.run_until_problem("had been made anew"));
  controller.start();
  ASSERT_TRUE(node.run_until_connected()) << node.problem_now;
  EXPECT_TRUE(node.run_until([&] { return node.problem_now.empty(); }));
  EXPECT_EQ(controller.enrolled, 0);
}

TEST_F(LinkJoinTest, ASlowClockDoesNotSpendTheToken) {
  const auto key = pki::new_key();
  ASSERT_TRUE(pki::write_identity(files_.identity, key,
                                  *authority_.give(key, node_, pki::real_now() + 1h)));
  ASSERT_TRUE(pki::write_authorities(files_.authorities, authority_.certificate.to_pem()));
  FakeController controller(authority_, dir_.path());
  write_ticket(controller, FakeController::kToken, authority_);
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_problem("its clock is slow"));
  EXPECT_EQ(controller.enrolled, 0);
}

TEST_F(LinkJoinTest, ACertificateIsRenewedInTimeAndTheSessionGoesOn) {
  FakeController controller(authority_, dir_.path());
  controller.lifetime_s = 20;  // due at once, and renewed after a tenth of it
  write_ticket(controller, FakeController::kToken, authority_);
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_connected()) << node.problem_now;
  const auto before = expiry();
  controller.lifetime_s = 24 * 3600;
  ASSERT_TRUE(node.run_until([&] { return expiry() > before + 1h; }));
  EXPECT_EQ(controller.enrolled, 1);
  EXPECT_EQ(controller.renew_tries, 1);
  EXPECT_EQ(controller.sessions, 1);
  EXPECT_TRUE(node.is_connected);
  EXPECT_TRUE(node.problems.empty());
}

TEST_F(LinkJoinTest, ARenewalThatFailsIsAProblemUntilItSucceeds) {
  FakeController controller(authority_, dir_.path());
  controller.lifetime_s = 30;
  controller.renews = false;
  write_ticket(controller, FakeController::kToken, authority_);
  LinkDriver node(joining());
  ASSERT_TRUE(node.run_until_problem("renewing the certificate, which expires in"));
  EXPECT_THAT(node.problem_now, HasSubstr("no more of these"));
  EXPECT_TRUE(node.run_until_connected());
  controller.renews = true;
  controller.lifetime_s = 24 * 3600;
  EXPECT_TRUE(node.run_until([&] { return node.problem_now.empty(); }));
  EXPECT_EQ(controller.renewed, 1);
}

TEST_F(LinkJoinTest, WithoutATicketFilesAreWaitedFor) {
  FakeController controller(authority_, dir_.path());
  auto options = known({controller.address()});
  const auto kept = options.files.identity + ".kept";
  ASSERT_EQ(rename(options.files.identity.c_str(), kept.c_str()), 0);
  LinkDriver node(options);
  ASSERT_TRUE(node.run_until_problem("no such file"));
  ASSERT_EQ(rename(kept.c_str(), options.files.identity.c_str()), 0);
  EXPECT_TRUE(node.run_until_connected());
  EXPECT_EQ(node.problem_now, "");
}

}  // namespace
}  // namespace meshd
