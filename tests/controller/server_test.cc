// A controller that serves on loopback, and those who come to it: machines, nodes and people,
// the latter with the programs' own command lines.
#include "controller/server.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <fstream>
#include <sstream>
#include <thread>

#include "controller/admin_client.h"
#include "meshctl/run.h"
#include "pki/grpc_credentials.h"
#include "proto/controller.grpc.pb.h"
#include "tests/controller/app_bed.h"
#include "tests/meshctl/capture.h"
#include "tests/support/temp_dir.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;
using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

// Longer than anything takes on a machine that is busy with other things.
constexpr auto kLimit = 30s;

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

class ServerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(pki::require_tls13()); }
  void SetUp() override {
    give(pki::Role::kController, "c1");
    auto made = Server::make(
        {"127.0.0.1:0", "127.0.0.1:0", {dir_ / "c1.pem", dir_ / "authorities.pem"}, "lab"});
    ASSERT_TRUE(made) << made.error().what;
    server_ = *std::move(made);
    loop_ = std::thread([this] {
      while (!stopping_) {
        pollfd wait{server_->jobs().fd(), POLLIN, 0};
        poll(&wait, 1, 20);
        for (auto& job : server_->jobs().drain()) job(*bed_.app);
      }
      server_->shutdown(*bed_.app);
    });
  }
  void TearDown() override {
    stopping_ = true;
    if (loop_.joinable()) loop_.join();
  }

  // NAME.pem and authorities.pem, by the cluster's authority.
  void give(pki::Role role, const std::string& name, pki::UtcTime from = pki::real_now()) {
    const auto key = pki::new_key();
    const auto certificate =
        pki::issue(bed_.authority.certificate, bed_.authority.key, pki::make_csr(key).value(),
                   {.identity = {"lab", role, name}}, from);
    ASSERT_TRUE(certificate) << certificate.error().what;
    ASSERT_TRUE(pki::write_identity(dir_ / (name + ".pem"), key, *certificate));
    ASSERT_TRUE(
        pki::write_authorities(dir_ / "authorities.pem", bed_.authority.certificate.to_pem()));
  }
  [[nodiscard]] std::string address() const {
    return "127.0.0.1:" + std::to_string(server_->port());
  }

  // What meshctl prints, or how it fails: "1: WHY".
  std::string meshctl(const std::string& line, const std::string& who,
                      const std::string& controllers = "") {
    const auto args =
        words_of(line + " --controller " + (controllers.empty() ? address() : controllers) +
                 " --identity " + (who.starts_with('/') ? who : dir_ / (who + ".pem")));
    const ctl::Capture out;
    ctl::Environment environment;
    environment.out = out.fd();
    const auto outcome = [&]() -> ctl::Outcome<ctl::Exit> {
      return ctl::run(TRY(ctl::parse(args, {})), environment);
    }();
    if (outcome) return out.text();
    return std::to_string(std::to_underlying(outcome.error().exit)) + ": " + outcome.error().what;
  }
  // The same of mesh-controller's commands.
  std::string administrate(const std::string& line, const std::string& who = "ada") {
    const auto command = parse_admin(
        words_of(line + " --controller " + address() + " --identity " + dir_ / (who + ".pem")));
    if (!command) return "2: " + command.error().what;
    const auto output = run_admin(*command);
    if (output) return output->text;
    return std::to_string(output.error().exit) + ": " + output.error().what;
  }

  struct Joined {
    grpc::Status status;
    pb::EnrolReply reply;
    pki::PrivateKey key = pki::new_key();
  };
  // What a machine does with a ticket; it is not told which port the test has.
  [[nodiscard]] Joined join(const std::string& ticket_text, const std::string& name) const {
    Joined joined;
    const auto ticket = pki::decode_ticket(ticket_text);
    EXPECT_TRUE(ticket) << ticket_text;
    if (!ticket) return joined;
    const auto credentials = pki::make_join_channel_credentials(ticket->authorities);
    const auto stub = pb::Join::NewStub(
        channel(server_->join_port(), credentials.value(), ticket->authorities.cluster));
    pb::EnrolRequest request;
    request.set_token(ticket->token);
    request.set_name(name);
    request.set_csr(pki::make_csr(joined.key).value());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLimit);
    joined.status = stub->Enrol(&context, request, &joined.reply);
    return joined;
  }
  [[nodiscard]] static std::shared_ptr<grpc::Channel> channel(
      int port, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
      std::string_view cluster) {
    grpc::ChannelArguments arguments;
    pki::expect_controller(arguments, cluster);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port), credentials, arguments);
  }

  struct Session {
    std::unique_ptr<pb::Cluster::Stub> stub;
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<pb::FromNode, pb::ToNode>> stream;
    ~Session() { context.TryCancel(); }
  };
  [[nodiscard]] std::unique_ptr<Session> open_session(const std::string& who) const {
    auto session = std::make_unique<Session>();
    const auto credentials =
        pki::make_channel_credentials({dir_ / (who + ".pem"), dir_ / "authorities.pem"});
    session->stub = pb::Cluster::NewStub(channel(server_->port(), credentials.value(), "lab"));
    session->context.set_deadline(std::chrono::system_clock::now() + kLimit);
    session->stream = session->stub->Session(&session->context);
    pb::FromNode hello;
    hello.mutable_hello()->set_protocol(1);
    hello.mutable_hello()->set_boot_id("boot");
    hello.mutable_hello()->add_underlay("192.0.2.7");
    session->stream->Write(hello);
    return session;
  }

  TempDir dir_;
  AppBed bed_{pki::real_now()};
  std::unique_ptr<Server> server_;
  std::thread loop_;
  std::atomic<bool> stopping_ = false;
};

TEST_F(ServerTest, AMachineJoinsWithATicketAndIsWelcomed) {
  give(pki::Role::kAdmin, "ada");
  const auto ticket = administrate("token create --uses 2");
  const auto joined = join(ticket, "n1");
  ASSERT_TRUE(joined.status.ok()) << joined.status.error_message();
  const auto certificate = pki::parse_certificate(joined.reply.certificate()).value();
  ASSERT_TRUE(pki::write_identity(dir_ / "n1.pem", joined.key, certificate));

  const auto session = open_session("n1");
  pb::ToNode answer;
  ASSERT_TRUE(session->stream->Read(&answer));
  EXPECT_EQ(answer.welcome().cluster(), "lab");
  EXPECT_EQ(answer.welcome().controller(), "c1");
  EXPECT_THAT(answer.welcome().block4(), HasSubstr("/24"));

  give(pki::Role::kReader, "eve");
  EXPECT_THAT(meshctl("list nodes", "eve"), HasSubstr("connected"));
  // Under the name of a node that is there, nobody else comes in, whatever they have.
  EXPECT_EQ(join(ticket, "n1").status.error_message(), kTokenRefused);
  EXPECT_TRUE(join(ticket, "n2").status.ok());
  EXPECT_EQ(join(ticket, "n3").status.error_message(), kTokenRefused) << "used up";
}

TEST_F(ServerTest, ARevokedTicketLetsNobodyIn) {
  give(pki::Role::kAdmin, "ada");
  const auto ticket = administrate("token create");
  const auto token = pki::decode_ticket(ticket).value().token;
  const auto id = token.substr(0, token.find('.'));
  EXPECT_THAT(administrate("token list"), HasSubstr(id + "  good"));
  EXPECT_EQ(administrate("token revoke " + id), id + ": revoked\n");
  EXPECT_EQ(join(ticket, "n1").status.error_message(), kTokenRefused);
  EXPECT_THAT(administrate("token list"), HasSubstr(id + "  revoked"));
  EXPECT_EQ(administrate("token revoke 77"), "1: token revoke: there is none of that id");
}

TEST_F(ServerTest, EachRoleMayDoItsOwn) {
  std::ofstream(dir_ / "w.yaml") << "workloads: [{id: db, owner: ann, serves: [{port: 1}]}]";
  const auto apply = "apply -f " + dir_ / "w.yaml";
  give(pki::Role::kReader, "eve");
  give(pki::Role::kNode, "n1");
  give(pki::Role::kDispatcher, "slurm");
  EXPECT_EQ(meshctl(apply, "eve"), "1: mesh://lab/reader/eve may not do that");
  EXPECT_EQ(meshctl(apply, "n1"), "1: mesh://lab/node/n1 may not do that");
  EXPECT_EQ(meshctl("list workloads", "n1"), "1: mesh://lab/node/n1 may not do that");
  EXPECT_THAT(meshctl(apply, "slurm"), HasSubstr("db"));
  EXPECT_THAT(meshctl("list workloads", "eve"), HasSubstr("DECLARED"));
  EXPECT_EQ(administrate("token create", "slurm"),
            "1: mesh://lab/dispatcher/slurm may not do that");
  EXPECT_EQ(administrate("token list", "eve"), "1: mesh://lab/reader/eve may not do that");
  EXPECT_EQ(meshctl("delete db", "slurm"), "db: deleted\n");
  EXPECT_EQ(bed_.controller->cluster().declaration("db"), nullptr);
}

TEST_F(ServerTest, StatusIsThatOfAController) {
  give(pki::Role::kReader, "eve");
  EXPECT_THAT(meshctl("status", "eve"), HasSubstr("controller c1: healthy\n"));
  EXPECT_THAT(meshctl("status -o json", "eve"), HasSubstr("\"controller\": \"c1\""));
}

TEST_F(ServerTest, OnesOwnFilesAreCheckedFirst) {
  give(pki::Role::kReader, "old", pki::real_now() - pki::kNodeLifetime - std::chrono::days(2));
  EXPECT_THAT(meshctl("status", "old"), HasSubstr("1: " + dir_ / "old.pem: certificate of old: "
                                                                 "expired"));
  EXPECT_EQ(meshctl("status", "nobody"), "1: " + dir_ / "nobody.pem: no such file");
  const pki::SampleAuthority other(pki::real_now());
  const auto files = other.write(dir_.path(), pki::holder_of("lab", pki::Role::kReader, "mallory"),
                                 pki::real_now());
  EXPECT_THAT(meshctl("status", "mallory"), HasSubstr("1: " + files.identity + ": "));
}

TEST_F(ServerTest, AClusterOfTheSameNameByAnotherAuthorityIsAnother) {
  const pki::SampleAuthority other(pki::real_now());
  const auto files = other.write(dir_.path(), pki::holder_of("lab", pki::Role::kAdmin, "mallory"),
                                 pki::real_now());
  EXPECT_EQ(meshctl("status --authorities " + files.authorities, "mallory"),
            "1: controller at " + address() + ": TLS: it is no controller by our authorities");
  // And where we trust it, it does not trust us.
  const auto both = other.certificate.to_pem() + bed_.authority.certificate.to_pem();
  ASSERT_TRUE(pki::write_authorities(files.authorities, both));
  EXPECT_THAT(meshctl("status --authorities " + files.authorities, "mallory"),
              HasSubstr("it hangs up: it does not take our certificate"));
}

TEST_F(ServerTest, TheNextControllerIsAskedWhenOneIsAway) {
  give(pki::Role::kReader, "eve");
  // Nobody can listen on port 1 of this machine but root, who does not.
  EXPECT_THAT(meshctl("status", "eve", "127.0.0.1:1," + address()), HasSubstr("controller c1"));
  EXPECT_EQ(meshctl("status", "eve", "127.0.0.1:1"),
            "3: cannot reach the controller at 127.0.0.1:1: Connection refused");
}

TEST_F(ServerTest, WhomAnAdministratorCertifiesMayComeIn) {
  give(pki::Role::kAdmin, "ada");
  std::filesystem::create_directory(dir_ / "home");
  const auto made = administrate("certify reader grafana --days 30 -o " + dir_ / "home/g.pem");
  EXPECT_THAT(made, HasSubstr("home/g.pem: reader grafana of cluster lab, good for "));
  EXPECT_THAT(made, testing::AnyOf(HasSubstr("29 d"), HasSubstr("30 d")));
  EXPECT_THAT(meshctl("status", dir_ / "home/g.pem"), HasSubstr("healthy"));
  EXPECT_EQ(administrate("certify reader grafana -o " + dir_ / "home/g.pem"),
            "1: " + dir_ / "home/g.pem: there already");
  EXPECT_THAT(administrate("node dismiss n9"), HasSubstr("1: node dismiss: no node n9"));
}

}  // namespace
}  // namespace meshd::controller
