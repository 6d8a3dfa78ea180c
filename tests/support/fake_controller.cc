#include "tests/support/fake_controller.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <mutex>
#include <thread>

#include "pki/grpc_credentials.h"
#include "proto/controller.grpc.pb.h"

namespace meshd::test {
namespace {

namespace pb = mesh::v1;
using Stream = grpc::ServerReaderWriter<pb::ToNode, pb::FromNode>;
using Part = FakeController::Part;

}  // namespace

struct FakeController::Ports final : pb::Cluster::Service, pb::Join::Service {
  Ports(FakeController& of, const pki::SampleAuthority& by, FakePorts at, std::string cluster)
      : owner(of), authority(by), ports(std::move(at)), cluster_name(std::move(cluster)) {}

  grpc::Status Session(grpc::ServerContext* context, Stream* stream) override {
    ++owner.sessions;
    ++owner.open;
    auto status = play(*context, *stream);
    --owner.open;
    return status;
  }
  grpc::Status Renew(grpc::ServerContext* context, const pb::RenewRequest* request,
                     pb::EnrolReply* reply) override {
    ++owner.renew_tries;
    if (!owner.renews) return {grpc::StatusCode::PERMISSION_DENIED, "no more of these"};
    const auto peer = pki::peer_of(*context->auth_context(), cluster_name, pki::real_now());
    if (!peer) return {grpc::StatusCode::UNAUTHENTICATED, peer.error().what};
    ++owner.renewed;
    return give(request->csr(), peer->identity.name, *reply);
  }
  grpc::Status Enrol(grpc::ServerContext* /*context*/, const pb::EnrolRequest* request,
                     pb::EnrolReply* reply) override {
    if (request->token() != kToken) {
      return {grpc::StatusCode::PERMISSION_DENIED, "the token is not valid"};
    }
    ++owner.enrolled;
    return give(request->csr(), request->name(), *reply);
  }

  grpc::Status give(const std::string& csr, const std::string& name, pb::EnrolReply& reply) {
    auto holder = pki::holder_of(cluster_name, pki::Role::kNode, name);
    holder.lifetime = std::chrono::seconds(owner.lifetime_s);
    const auto given =
        pki::issue(authority.certificate, authority.key, csr, holder, pki::real_now());
    if (!given) return {grpc::StatusCode::INVALID_ARGUMENT, given.error().what};
    reply.set_certificate(given->to_pem());
    reply.set_ca(authority.certificate.to_pem());
    return grpc::Status::OK;
  }

  grpc::Status play(const grpc::ServerContext& context, Stream& stream) {
    pb::FromNode from;
    if (!stream.Read(&from) || !from.has_hello()) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "no Hello"};
    }
    const Part part = owner.part;
    if (part == Part::kMute) return wait(context);
    if (part == Part::kFarewell) return part_from(stream);
    pb::ToNode to;
    to.mutable_welcome()->set_cluster(cluster_name);
    stream.Write(to);
    if (part == Part::kDeaf) return wait(context);
    if (part == Part::kWave) return part_from(stream);
    if (part == Part::kDrop) return grpc::Status::OK;
    while (stream.Read(&from)) {
      {
        const std::lock_guard lock(mutex);
        heard.push_back(from);
      }
      ++owner.received;
      if (!from.has_report()) continue;
      to.mutable_report_taken()->set_number(from.report().number());
      stream.Write(to);
      if (part == Part::kFreeze) raise(SIGSTOP);
    }
    return grpc::Status::OK;
  }
  grpc::Status part_from(Stream& stream) const {
    pb::ToNode to;
    to.mutable_farewell()->set_reason("upgrade");
    to.mutable_farewell()->set_retry_after_ms(owner.retry_after_ms);
    stream.Write(to);
    return grpc::Status::OK;
  }
  static grpc::Status wait(const grpc::ServerContext& context) {
    while (!context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::OK;
  }

  std::unique_ptr<grpc::Server> serve(
      int& port, const Result<std::shared_ptr<grpc::ServerCredentials>>& credentials,
      grpc::Service& service) const {
    EXPECT_TRUE(credentials) << credentials.error().what;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(ports.address + ":" + std::to_string(port), *credentials, &port);
    builder.RegisterService(&service);
    // As controller/server.cc has them.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 3000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 2000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
    auto server = builder.BuildAndStart();
    EXPECT_TRUE(server);
    return server;
  }

  FakeController& owner;
  const pki::SampleAuthority& authority;
  FakePorts ports;
  const std::string cluster_name;
  pki::IdentityFiles files;
  std::mutex mutex;
  std::vector<pb::FromNode> heard;
  std::unique_ptr<grpc::Server> cluster_server, join_server;
};

FakeController::FakeController(const pki::SampleAuthority& authority, const std::string& folder,
                               const FakePorts& ports, const std::string& name,
                               const std::string& cluster)
    : ports_(std::make_unique<Ports>(*this, authority, ports, cluster)) {
  ports_->files = authority.write(folder, pki::holder_of(cluster, pki::Role::kController, name),
                                  pki::real_now());
  start();
}

FakeController::~FakeController() { stop(); }

void FakeController::start() {
  auto& p = *ports_;
  p.cluster_server = p.serve(p.ports.cluster, pki::make_server_credentials(p.files),
                             static_cast<pb::Cluster::Service&>(p));
  p.join_server = p.serve(p.ports.join, pki::make_join_server_credentials(p.files),
                          static_cast<pb::Join::Service&>(p));
}

void FakeController::stop() {
  for (auto* server : {&ports_->cluster_server, &ports_->join_server}) {
    if (*server) (*server)->Shutdown(std::chrono::system_clock::now());
    server->reset();
  }
}

std::string FakeController::address() const {
  return ports_->ports.address + ":" + std::to_string(ports_->ports.cluster);
}

std::string FakeController::join_address() const {
  return ports_->ports.address + ":" + std::to_string(ports_->ports.join);
}

std::vector<mesh::v1::FromNode> FakeController::heard() {
  const std::lock_guard lock(ports_->mutex);
  return ports_->heard;
}

}  // namespace meshd::test
