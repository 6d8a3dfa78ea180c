// A controller that serves on loopback, and those who come to it: machines, nodes and people,
// the latter with the programs' own command lines.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "controller/admin_client.h"
#include "controller/server.h"
#include "meshctl/run.h"
#include "pki/grpc_credentials.h"
#include "proto/controller.grpc.pb.h"
#include "tests/controller/app_bed.h"
#include "tests/meshctl/capture.h"
#include "tests/support/temp_dir.h"

namespace meshd::controller {

// Longer than anything takes on a machine that is busy with other things.
inline constexpr auto kServerLimit = std::chrono::seconds(30);

inline std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

class ServerBed : public testing::Test {
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
    const auto output = run_admin(*command, [this] { return time_; });
    if (output) return output->text;
    return std::to_string(output.error().exit) + ": " + output.error().what;
  }

  struct Joined {
    grpc::Status status;
    mesh::v1::EnrolReply reply;
    pki::PrivateKey key = pki::new_key();
  };
  // What a machine does with a ticket; it is not told which port the test has.
  [[nodiscard]] Joined join(const std::string& ticket_text, const std::string& name) const {
    Joined joined;
    const auto ticket = pki::decode_ticket(ticket_text);
    EXPECT_TRUE(ticket) << ticket_text;
    if (!ticket) return joined;
    const auto credentials = pki::make_join_channel_credentials(ticket->authorities);
    const auto stub = mesh::v1::Join::NewStub(
        channel(server_->join_port(), credentials.value(), ticket->authorities.cluster));
    mesh::v1::EnrolRequest request;
    request.set_token(ticket->token);
    request.set_name(name);
    request.set_csr(pki::make_csr(joined.key).value());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kServerLimit);
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
    std::unique_ptr<mesh::v1::Cluster::Stub> stub;
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<mesh::v1::FromNode, mesh::v1::ToNode>> stream;
    ~Session() { context.TryCancel(); }
  };
  [[nodiscard]] std::unique_ptr<Session> open_session(
      const std::string& who, const std::string& underlay = "192.0.2.7") const {
    auto session = std::make_unique<Session>();
    const auto credentials =
        pki::make_channel_credentials({dir_ / (who + ".pem"), dir_ / "authorities.pem"});
    session->stub =
        mesh::v1::Cluster::NewStub(channel(server_->port(), credentials.value(), "lab"));
    session->context.set_deadline(std::chrono::system_clock::now() + kServerLimit);
    session->stream = session->stub->Session(&session->context);
    mesh::v1::FromNode hello;
    hello.mutable_hello()->set_protocol(1);
    hello.mutable_hello()->set_boot_id("boot");
    hello.mutable_hello()->add_underlay(underlay);
    session->stream->Write(hello);
    return session;
  }

  TempDir dir_;
  const pki::UtcTime time_ = pki::real_now();  // which stands still
  AppBed bed_{time_};
  std::unique_ptr<Server> server_;
  std::thread loop_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace meshd::controller
