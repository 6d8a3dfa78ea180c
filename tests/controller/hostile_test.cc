// What strangers, faulty nodes and forged messages come to: refused with a reason that the other
// end hears, that the log has and that is counted; nothing stored is another, and an honest node
// does not notice.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <random>
#include <type_traits>

#include "controller/grpc_log.h"
#include "proto/node.grpc.pb.h"
#include "tests/controller/server_bed.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;
using testing::HasSubstr;
using testing::StartsWith;
using Stream = grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;

class HostileTest : public ServerBed {
 protected:
  void SetUp() override {
    ServerBed::SetUp();
    give(pki::Role::kNode, "n1");
    give(pki::Role::kNode, "n2");
    give(pki::Role::kAdmin, "ada");
    std::ofstream(dir_ / "w.yaml") << "workloads: [{id: db, owner: ann, name: db, scope: CLUSTER, "
                                      "serves: [{port: 1}]}]";
    ASSERT_THAT(meshctl("apply -f " + dir_ / "w.yaml", "ada"), HasSubstr("db"));
    honest_ = open_session("n1");
    ASSERT_TRUE(read_until(*honest_, [](const pb::ToNode& m) { return m.has_in_sync(); }));
    report(*honest_, 1, "db", block(0) + ".1");
    ASSERT_EQ(taken(*honest_, 1), "");
    revision_ = on_loop([this] { return bed_.controller->revision(); });
    take_grpc_log();  // which meshctl has silenced
  }
  // The honest node is as it was, and is still heard; nothing has been stored.
  void TearDown() override {
    if (honest_) {
      EXPECT_EQ(on_loop([this] { return bed_.controller->revision(); }), revision_)
          << "something was stored";
      report(*honest_, 2, "db", block(0) + ".1");
      EXPECT_EQ(taken(*honest_, 2), "");
      honest_.reset();
    }
    ServerBed::TearDown();
  }

  template <class F>
  std::invoke_result_t<F> on_loop(F what) {
    std::promise<std::invoke_result_t<F>> promise;
    auto result = promise.get_future();
    EXPECT_TRUE(server_->jobs().post([&](Handler&) { promise.set_value(what()); }));
    return result.get();
  }
  std::string metric(const std::string& name) {
    const auto text = on_loop([this] { return bed_.app->metrics_text(); });
    const auto at = text.find("\n" + name + " ");
    if (at == std::string::npos) return "none";
    const auto begin = at + name.size() + 2;
    return text.substr(begin, text.find('\n', begin) - begin);
  }
  // Of what is counted when the other end has gone already.
  bool comes_to(const std::string& name, const std::string& value) {
    const auto end = std::chrono::steady_clock::now() + kServerLimit;
    while (metric(name) != value) {
      if (std::chrono::steady_clock::now() > end) return false;
    }
    return true;
  }
  // "10.213.0" of the first node's block.
  std::string block(std::size_t index) {
    return on_loop([this, index] {
      const auto& nodes = bed_.controller->cluster().nodes();
      const auto text = std::next(nodes.begin(), static_cast<long>(index))
                            ->second.blocks.front()
                            .address()
                            .to_string();
      return text.substr(0, text.rfind('.'));
    });
  }
  static bool read_until(Session& session, const std::function<bool(const pb::ToNode&)>& is_it) {
    pb::ToNode message;
    while (session.stream->Read(&message)) {
      if (is_it(message)) return true;
      if (!message.has_slice()) continue;
      pb::FromNode answer;
      answer.mutable_applied()->set_revision(message.slice().revision());
      session.stream->Write(answer);
    }
    return false;
  }
  static void report(Session& session, std::uint64_t number, const std::string& id,
                     const std::string& address) {
    pb::FromNode message;
    message.mutable_report()->set_number(number);
    auto& endpoint = *message.mutable_report()->add_endpoints();
    endpoint.set_id(id);
    endpoint.add_addresses(address);
    session.stream->Write(message);
  }
  // What was not believed of that report: "db: WHY".
  static std::string taken(Session& session, std::uint64_t number) {
    std::string refused = "no answer";
    read_until(session, [&](const pb::ToNode& message) {
      if (!message.has_report_taken() || message.report_taken().number() != number) return false;
      refused.clear();
      for (const auto& problem : message.report_taken().refused()) {
        refused += problem.subject() + ": " + problem.detail();
      }
      return true;
    });
    return refused;
  }
  // Why the controller ends the session.
  static std::string farewell(Session& session) {
    std::string why;
    read_until(session, [&](const pb::ToNode& message) {
      if (message.has_farewell()) why = message.farewell().reason();
      return message.has_farewell();
    });
    if (!why.empty()) return why;
    return session.stream->Finish().error_message();
  }
  std::unique_ptr<Session> second() {
    auto session = open_session("n2", "192.0.2.8");
    EXPECT_TRUE(read_until(*session, [](const pb::ToNode& m) { return m.has_in_sync(); }));
    // Its block is stored: by an honest hello.
    revision_ = on_loop([this] { return bed_.controller->revision(); });
    return session;
  }
  // A session of n2 whose first message is these bytes; how it ends.
  std::string say(const std::string& bytes) {
    const auto credentials =
        pki::make_channel_credentials({dir_ / "n2.pem", dir_ / "authorities.pem"});
    const auto to = channel(server_->port(), credentials.value(), "lab");
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kServerLimit);
    const grpc::internal::RpcMethod method("/mesh.v1.Cluster/Session", nullptr,
                                           grpc::internal::RpcMethod::BIDI_STREAMING, to);
    const std::unique_ptr<Stream> stream(
        grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
            to.get(), method, &context));
    const grpc::Slice slice(bytes);
    stream->Write(grpc::ByteBuffer(&slice, 1));
    grpc::ByteBuffer answer;
    while (stream->Read(&answer)) {
      pb::ToNode message;
      std::vector<grpc::Slice> slices;
      EXPECT_TRUE(answer.Dump(&slices).ok());
      std::string text;
      for (const auto& part : slices) text.append(part.begin(), part.end());
      EXPECT_TRUE(message.ParseFromString(text));
      if (message.has_farewell()) return message.farewell().reason();
      if (message.has_in_sync()) return "in sync";
    }
    return stream->Finish().error_message();
  }

  std::unique_ptr<Session> honest_;
  std::uint64_t revision_ = 0;
};

// --- who they are --------------------------------------------------------------------

TEST_F(HostileTest, StrangersAreRefusedInTheHandshake) {
  const auto now = pki::real_now();
  const auto key = pki::new_key();
  const pki::SampleAuthority other(now);
  const auto holder = pki::holder_of("lab", pki::Role::kAdmin, "mallory");
  const auto of_ours = [&](pki::UtcTime from) {
    return pki::issue(bed_.authority.certificate, bed_.authority.key, pki::make_csr(key).value(),
                      holder, from)
        .value();
  };
  const std::pair<const char*, pki::Certificate> cases[] = {
      {"another authority of the same name", other.give(key, holder, now).value()},
      {"expired", of_ours(now - 2 * pki::kNodeLifetime)},
      {"not yet valid", of_ours(now + std::chrono::days(3))},
  };
  for (const auto& [what, certificate] : cases) {
    SCOPED_TRACE(what);
    const auto before = refused_handshakes();
    testing::internal::CaptureStderr();
    const auto credentials = grpc::SslCredentials(
        {bed_.authority.certificate.to_pem(), key.to_pem(), certificate.to_pem()});
    const auto stub = pb::Status::NewStub(channel(server_->port(), credentials, "lab"));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kServerLimit);
    pb::StatusReply reply;
    EXPECT_EQ(stub->GetStatus(&context, {}, &reply).error_code(), grpc::StatusCode::UNAVAILABLE);
    const auto log = testing::internal::GetCapturedStderr();
    EXPECT_GT(refused_handshakes(), before);
    EXPECT_THAT(log, HasSubstr("handshake refused: "));
    EXPECT_THAT(log, HasSubstr("certificate verify failed"));
    EXPECT_EQ(metric("mesh_controller_handshakes_refused_total"),
              std::to_string(refused_handshakes()));
  }
}

TEST_F(HostileTest, AnotherRoleIsNoNode) {
  const auto session = open_session("ada");
  EXPECT_EQ(farewell(*session), "sessions are for nodes");
  EXPECT_EQ(metric("mesh_controller_turned_away_total{reason=\"role\"}"), "1");
}

TEST_F(HostileTest, TwoNodesOfOneName) {
  const auto session = open_session("n1");
  EXPECT_EQ(farewell(*session), "a node of this name is connected already");
  EXPECT_EQ(metric("mesh_controller_sessions_ended_total{reason=\"name_taken\"}"), "1");
  EXPECT_EQ(metric("mesh_controller_nodes{state=\"connected\"}"), "1");
}

// --- what they say -------------------------------------------------------------------

TEST_F(HostileTest, WhatIsAnothersIsNotBelieved) {
  const auto session = second();
  report(*session, 1, "db", block(1) + ".1");
  EXPECT_EQ(taken(*session, 1), "db: is attached to node n1");
  report(*session, 2, "nobody", block(1) + ".1");
  EXPECT_EQ(taken(*session, 2), "nobody: is not declared");
  EXPECT_EQ(metric("mesh_controller_refused_total{what=\"endpoint\"}"), "2");
}

TEST_F(HostileTest, AnAddressOfAnothersBlockIsNotBelieved) {
  std::ofstream(dir_ / "v.yaml") << "workloads: [{id: web, owner: ann}]";
  ASSERT_THAT(meshctl("apply -f " + dir_ / "v.yaml", "ada"), HasSubstr("web"));
  const auto session = second();
  report(*session, 1, "web", block(0) + ".9");
  EXPECT_EQ(taken(*session, 1), "web: " + block(0) + ".9 is not of node n2's block");
  report(*session, 2, "web", "10.214.0.1");
  EXPECT_EQ(taken(*session, 2), "web: 10.214.0.1 is not of node n2's block");
}

TEST_F(HostileTest, AClusterNameIsItsOwners) {
  std::ofstream(dir_ / "v.yaml") << "workloads: [{id: x, owner: bob, name: db, scope: CLUSTER, "
                                    "serves: [{port: 1}]}]";
  EXPECT_THAT(meshctl("apply -f " + dir_ / "v.yaml", "ada"), StartsWith("1: workload x: "));
  EXPECT_EQ(metric("mesh_controller_commands_total{command=\"apply\",outcome=\"conflict\"}"), "1");
}

TEST_F(HostileTest, NodesDoNotDeclareWhereTheyMayNot) {
  const auto session = second();
  pb::FromNode message;
  message.mutable_declare()->set_call(7);
  message.mutable_declare()->set_forget("db");
  session->stream->Write(message);
  std::string why;
  read_until(*session, [&](const pb::ToNode& m) {
    if (m.has_declare()) why = m.declare().error();
    return m.has_declare();
  });
  EXPECT_EQ(why, "workload db: declared by admin/ada, not node/n2's to say");
  EXPECT_EQ(metric("mesh_controller_refused_total{what=\"declaration\"}"), "1");
}

TEST_F(HostileTest, ReplayedAndReorderedNumbersEndTheSession) {
  auto session = second();
  report(*session, 5, "nobody", block(1) + ".1");
  EXPECT_EQ(taken(*session, 5), "nobody: is not declared");
  report(*session, 5, "nobody", block(1) + ".1");
  EXPECT_EQ(farewell(*session), "report 5 after 5");
  session = second();
  pb::FromNode applied;
  applied.mutable_applied()->set_revision(99);
  session->stream->Write(applied);
  EXPECT_EQ(farewell(*session), "answers revision 99, which is not on its way");
  session = second();
  pb::FromNode again;
  again.mutable_hello()->set_protocol(1);
  again.mutable_hello()->set_boot_id("boot");
  session->stream->Write(again);
  EXPECT_EQ(farewell(*session), "hello said twice");
  EXPECT_EQ(metric("mesh_controller_sessions_ended_total{reason=\"order\"}"), "2");
  EXPECT_EQ(metric("mesh_controller_sessions_ended_total{reason=\"revision\"}"), "1");
}

TEST_F(HostileTest, WhatIsNoMessageEndsTheSession) {
  EXPECT_EQ(say("\xff\xff\xff\xff"), "a message that cannot be read");
  EXPECT_TRUE(comes_to("mesh_controller_turned_away_total{reason=\"unreadable\"}", "1"));
  pb::FromNode hello;
  hello.mutable_hello()->set_protocol(1);
  hello.mutable_hello()->set_boot_id("boot");
  auto newer = hello;
  newer.mutable_hello()->set_protocol(2);
  EXPECT_EQ(say(newer.SerializeAsString()), "protocol 2 is not spoken here");
  auto underlay = hello;
  underlay.mutable_hello()->add_underlay("everywhere");
  EXPECT_THAT(say(underlay.SerializeAsString()), HasSubstr("everywhere"));
  hello.mutable_hello()->set_boot_id(std::string(65, 'b'));
  EXPECT_EQ(say(hello.SerializeAsString()), "boot_id: 1 to 64 bytes");
}

TEST_F(HostileTest, WhatIsTooLargeEndsTheSession) {
  auto session = second();
  pb::FromNode message;
  message.mutable_report()->set_number(1);
  message.mutable_report()->add_gone(std::string(std::size_t{9} << 20, 'x'));
  session->stream->Write(message);
  EXPECT_EQ(farewell(*session), "a message that is too large");
  EXPECT_EQ(metric("mesh_controller_turned_away_total{reason=\"oversized\"}"), "1");
  session = second();
  message.mutable_report()->set_gone(0, std::string(std::size_t{40} << 20, 'x'));
  session->stream->Write(message);
  EXPECT_THAT(farewell(*session), HasSubstr("larger than max"));
}

// Seeded: whatever one flipped bit makes of a message, it is an answer or an end with a reason.
TEST_F(HostileTest, FlippedBitsHarmNobody) {
  pb::FromNode hello;
  hello.mutable_hello()->set_protocol(1);
  hello.mutable_hello()->set_version("0.1.0");
  hello.mutable_hello()->set_boot_id("boot");
  hello.mutable_hello()->set_revision(7);
  hello.mutable_hello()->add_underlay("192.0.2.8");
  const auto bytes = hello.SerializeAsString();
  std::mt19937 random(20260131);
  for (int i = 0; i < 60; ++i) {
    auto flipped = bytes;
    flipped[random() % flipped.size()] ^= static_cast<char>(1U << (random() % 8));
    EXPECT_NE(say(flipped), "") << i;
  }
  // Those that still were a hello have joined, with blocks: stored, and by rights.
  revision_ = on_loop([this] { return bed_.controller->revision(); });
}

TEST_F(HostileTest, TenThousandServicesInOneMessage) {
  std::ofstream file(dir_ / "many.yaml");
  file << "workloads:\n";
  for (int i = 0; i < 10'000; ++i) {
    file << fmt::format(
        "- {{id: s{0}, owner: ann, name: n{0}, scope: CLUSTER, serves: [{{port: "
        "1}}], admit: NOBODY}}\n",
        i);
  }
  file.close();
  EXPECT_THAT(meshctl("apply -f " + dir_ / "many.yaml", "ada"), StartsWith("1: "));
}

}  // namespace
}  // namespace meshd::controller
