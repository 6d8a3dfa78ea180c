#include "pki/grpc_credentials.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "proto/controller.grpc.pb.h"
#include "tests/support/pki_forger.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tls_client.h"

namespace meshd::pki {
namespace {

namespace pb = mesh::v1;
using namespace std::chrono_literals;
using std::chrono::steady_clock;
using testing::HasSubstr;

// Longer than anything takes on a machine that is busy with other things.
constexpr auto kLimit = 20s;

// Answers who asks, as far as peer_of() knows.
template <class Base>
class WhoAmI : public Base {
 public:
  [[nodiscard]] grpc::Status answer(const grpc::ServerContext* context, pb::EnrolReply* reply) {
    const auto peer = peer_of(*context->auth_context(), "lab", now.load());
    if (!peer) return {grpc::StatusCode::PERMISSION_DENIED, peer.error().what};
    reply->set_certificate(peer->identity.to_string());
    return grpc::Status::OK;
  }
  std::atomic<UtcTime> now = real_now();
};

class ClusterService : public WhoAmI<pb::Cluster::Service> {
  grpc::Status Renew(grpc::ServerContext* context, const pb::RenewRequest* /*request*/,
                     pb::EnrolReply* reply) override {
    return answer(context, reply);
  }
};

class JoinService : public WhoAmI<pb::Join::Service> {
  grpc::Status Enrol(grpc::ServerContext* context, const pb::EnrolRequest* /*request*/,
                     pb::EnrolReply* reply) override {
    return answer(context, reply);
  }
};

class GrpcCredentialsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(require_tls13()); }
  void TearDown() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
  }

  // The port.
  int serve(const Result<std::shared_ptr<grpc::ServerCredentials>>& credentials) {
    EXPECT_TRUE(credentials) << credentials.error().what;
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", *credentials, &port);
    builder.RegisterService(&cluster_service_);
    builder.RegisterService(&join_service_);
    server_ = builder.BuildAndStart();
    EXPECT_NE(port, 0);
    return port;
  }
  int serve_as(const Holder& holder) {
    return serve(make_server_credentials(authority_.write(dir_.path(), holder, real_now())));
  }
  [[nodiscard]] static std::shared_ptr<grpc::Channel> channel(
      int port, const Result<std::shared_ptr<grpc::ChannelCredentials>>& credentials,
      std::string_view cluster = "lab") {
    EXPECT_TRUE(credentials) << credentials.error().what;
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    expect_controller(arguments, cluster);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port), *credentials, arguments);
  }
  // Who the server says that it was, or why not.
  [[nodiscard]] static std::string ask(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLimit);
    pb::EnrolReply reply;
    const auto status = pb::Cluster::NewStub(channel)->Renew(&context, {}, &reply);
    return status.ok() ? reply.certificate() : std::to_string(status.error_code());
  }
  [[nodiscard]] std::string ask_as(int port, const SampleAuthority& by, const Holder& holder,
                                   UtcTime issued) {
    return ask(channel(port, make_channel_credentials(by.write(dir_.path(), holder, issued))));
  }

  TempDir dir_;
  SampleAuthority authority_{real_now()};
  Holder controller_ = holder_of("lab", Role::kController, "c1");
  Holder node_ = holder_of("lab", Role::kNode, "node-7");
  ClusterService cluster_service_;
  JoinService join_service_;

 private:
  std::unique_ptr<grpc::Server> server_;
};

const std::string kUnavailable = std::to_string(grpc::StatusCode::UNAVAILABLE);

TEST_F(GrpcCredentialsTest, AHolderOfTheClusterIsKnownByItsCertificate) {
  const int port = serve_as(controller_);
  EXPECT_EQ(ask_as(port, authority_, node_, real_now()), "mesh://lab/node/node-7");
  EXPECT_EQ(ask_as(port, authority_, holder_of("lab", Role::kAdmin, "ada"), real_now()),
            "mesh://lab/admin/ada");
  EXPECT_EQ(ask_as(port, authority_, holder_of("lab", Role::kController, "c2"), real_now()),
            "mesh://lab/controller/c2");
}

TEST_F(GrpcCredentialsTest, WithoutACertificateNobodyComesIn) {
  const int port = serve_as(controller_);
  const Authorities own{authority_.list(), "lab"};
  EXPECT_EQ(ask(channel(port, make_join_channel_credentials(own))), kUnavailable);
}

TEST_F(GrpcCredentialsTest, ACertificateOfAnotherAuthorityIsRefused) {
  const int port = serve_as(controller_);
  const SampleAuthority other(real_now());
  auto files = other.write(dir_.path(), node_, real_now());
  // It trusts the server; the server must not trust it.
  ASSERT_TRUE(write_authorities(files.authorities, authority_.certificate.to_pem()));
  EXPECT_EQ(ask(channel(port, make_channel_credentials(files))), kUnavailable);
}

TEST_F(GrpcCredentialsTest, ACertificateOutOfItsTimeIsRefused) {
  const SampleAuthority old(real_now() - std::chrono::days(9));
  const auto files = old.write(dir_.path(), controller_, real_now());
  const int port = serve(make_server_credentials(files));
  EXPECT_EQ(ask_as(port, old, node_, real_now() - kNodeLifetime - std::chrono::hours(24)),
            kUnavailable);
  EXPECT_EQ(ask_as(port, old, node_, real_now() + std::chrono::hours(2)), kUnavailable);
  EXPECT_EQ(ask_as(port, old, node_, real_now()), "mesh://lab/node/node-7");
}

TEST_F(GrpcCredentialsTest, ACertificateThatExpiresLaterIsJudgedAgain) {
  const int port = serve_as(controller_);
  const auto open =
      channel(port, make_channel_credentials(authority_.write(dir_.path(), node_, real_now())));
  EXPECT_EQ(ask(open), "mesh://lab/node/node-7");
  cluster_service_.now = real_now() + kNodeLifetime + std::chrono::hours(1);
  EXPECT_EQ(ask(open), std::to_string(grpc::StatusCode::PERMISSION_DENIED));
}

TEST_F(GrpcCredentialsTest, TwoIdentitiesAreNoPeer) {
  const int port = serve_as(controller_);
  const auto files = authority_.write(dir_.path(), node_, real_now());
  const auto stored = read_identity(files).value();
  const auto both = forged(stored.certificate, authority_.key, NID_subject_alt_name,
                           "URI:mesh://lab/node/node-7,URI:mesh://lab/admin/root");
  ASSERT_TRUE(write_identity(files.identity, stored.key, both));
  EXPECT_EQ(ask(channel(port, make_channel_credentials(files))),
            std::to_string(grpc::StatusCode::PERMISSION_DENIED));
}

TEST_F(GrpcCredentialsTest, ANodeIsNoController) {
  const int port = serve_as(holder_of("lab", Role::kNode, "liar"));
  EXPECT_EQ(ask_as(port, authority_, node_, real_now()), kUnavailable);
}

TEST_F(GrpcCredentialsTest, AServerThatIsNoControllersHostIsRefused) {
  const auto files = authority_.write(dir_.path(), controller_, real_now());
  const auto stored = read_identity(files).value();
  const auto named = forged(stored.certificate, authority_.key, NID_subject_alt_name,
                            "URI:mesh://lab/admin/ada,DNS:localhost,IP:127.0.0.1");
  ASSERT_TRUE(write_identity(files.identity, stored.key, named));
  const int port = serve(make_server_credentials(files));
  EXPECT_EQ(ask_as(port, authority_, node_, real_now()), kUnavailable);
}

TEST_F(GrpcCredentialsTest, AServerOfAnotherAuthorityIsRefused) {
  const int port = serve_as(controller_);
  const SampleAuthority other(real_now());
  auto files = authority_.write(dir_.path(), node_, real_now());
  ASSERT_TRUE(write_authorities(files.authorities, other.certificate.to_pem()));
  EXPECT_EQ(ask(channel(port, make_channel_credentials(files))), kUnavailable);
  const auto enrol = channel(port, make_join_channel_credentials({other.list(), "lab"}));
  EXPECT_EQ(ask(enrol), kUnavailable);
}

TEST_F(GrpcCredentialsTest, WhoeverExpectsAnotherClusterIsNotServed) {
  const int port = serve_as(controller_);
  const auto credentials =
      make_channel_credentials(authority_.write(dir_.path(), node_, real_now()));
  EXPECT_EQ(ask(channel(port, credentials, "other")), kUnavailable);
  EXPECT_EQ(ask(channel(port, credentials)), "mesh://lab/node/node-7");
}

TEST_F(GrpcCredentialsTest, JoinIsForThoseWithoutACertificate) {
  const int port =
      serve(make_join_server_credentials(authority_.write(dir_.path(), controller_, real_now())));
  const auto open = channel(port, make_join_channel_credentials({authority_.list(), "lab"}));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kLimit);
  pb::EnrolReply reply;
  const auto status = pb::Join::NewStub(open)->Enrol(&context, {}, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(status.error_message(), "the peer is unknown");
}

TEST_F(GrpcCredentialsTest, Tls12IsRefusedAndTls13Taken) {
  const auto client = authority_.write(dir_.path(), node_, real_now());
  const auto files = authority_.write(dir_.path(), controller_, real_now());
  const int port = serve(make_server_credentials(files));
  EXPECT_FALSE(shake_hands(port, TLS1_2_VERSION, client.identity).done);
  const auto good = shake_hands(port, TLS1_3_VERSION, client.identity);
  EXPECT_TRUE(good.done);
  EXPECT_EQ(good.version, "TLSv1.3");
}

TEST_F(GrpcCredentialsTest, JoinRefusesTls12Too) {
  const auto files = authority_.write(dir_.path(), controller_, real_now());
  const int port = serve(make_join_server_credentials(files));
  EXPECT_FALSE(shake_hands(port, TLS1_2_VERSION, "").done);
  EXPECT_TRUE(shake_hands(port, TLS1_3_VERSION, "").done);
}

TEST_F(GrpcCredentialsTest, ANewCertificateIsServedWithoutARestart) {
  const auto files = authority_.write(dir_.path(), controller_, real_now());
  const int port = serve(make_server_credentials(files));
  const auto before = shake_hands(port, TLS1_3_VERSION, "").fingerprint;
  EXPECT_EQ(before, read_identity(files)->certificate.fingerprint);
  (void)authority_.write(dir_.path(), controller_, real_now());
  const auto renewed = read_identity(files)->certificate.fingerprint;
  ASSERT_NE(before, renewed);
  const auto start = steady_clock::now();
  auto served = before;
  while (served != renewed && steady_clock::now() < start + kLimit) {
    poll(nullptr, 0, 50);
    served = shake_hands(port, TLS1_3_VERSION, "").fingerprint;
    // Whenever it is looked, it is one of the two that are good.
    ASSERT_TRUE(served == before || served == renewed);
  }
  EXPECT_EQ(served, renewed);
  RecordProperty("reload_ms", static_cast<int>((steady_clock::now() - start) / 1ms));
  EXPECT_EQ(ask_as(port, authority_, node_, real_now()), "mesh://lab/node/node-7");
}

TEST_F(GrpcCredentialsTest, AnAuthorityThatWentIsBelievedNoLonger) {
  const auto files = authority_.write(dir_.path(), controller_, real_now());
  const int port = serve(make_server_credentials(files));
  const auto client = authority_.write(dir_.path(), node_, real_now());
  ASSERT_EQ(ask(channel(port, make_channel_credentials(client))), "mesh://lab/node/node-7");
  const SampleAuthority next(real_now());
  ASSERT_TRUE(write_authorities(files.authorities, next.certificate.to_pem()));
  const auto start = steady_clock::now();
  std::string answer;
  while (answer != kUnavailable && steady_clock::now() < start + kLimit) {
    answer = ask(channel(port, make_channel_credentials(client)));
  }
  EXPECT_EQ(answer, kUnavailable);
}

TEST_F(GrpcCredentialsTest, FilesThatCannotServeAreSaidAtOnce) {
  auto files = authority_.write(dir_.path(), controller_, real_now());
  files.authorities = dir_ / "nothing";
  for (const auto& why :
       {error_of(make_server_credentials(files)), error_of(make_join_server_credentials(files)),
        error_of(make_channel_credentials(files))}) {
    EXPECT_THAT(why, HasSubstr("nothing: no such file"));
  }
  EXPECT_FALSE(make_join_channel_credentials({}));
}

TEST_F(GrpcCredentialsTest, WithoutTls13NothingIsMade) {
  const auto files = authority_.write(dir_.path(), controller_, real_now());
  unsetenv("GRPC_SSL_CIPHER_SUITES");
  EXPECT_FALSE(make_server_credentials(files));
  EXPECT_FALSE(make_join_server_credentials(files));
  EXPECT_FALSE(make_channel_credentials(files));
  EXPECT_FALSE(make_join_channel_credentials({authority_.list(), "lab"}));
  EXPECT_TRUE(require_tls13());
}

}  // namespace
}  // namespace meshd::pki
