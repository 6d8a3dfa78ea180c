#include "engines/client.h"

#include <fmt/format.h>
#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <thread>
#include <utility>

#include "base/unique_fd.h"
#include "engines/unix_socket.h"
#include "proto/node.grpc.pb.h"

namespace meshd::engines {
namespace {

// The daemon's answer to a call that arrives as late as can be still reaches us.
constexpr auto kLeastTime = std::chrono::milliseconds(50);
constexpr auto kTryAgain = std::chrono::milliseconds(50);
// 1,000 workloads of 64 KiB.
constexpr int kMaxReplyBytes = 64 << 20;

bool is_away(int error) { return error == ENOENT || error == ECONNREFUSED || error == EAGAIN; }

Result<UniqueFd> connect_patiently(const std::string& path, Duration patience, TimePoint by) {
  const auto end = std::min<TimePoint>(BootClock::now() + patience, by);
  while (true) {
    auto fd = connect_unix(path, "meshd");
    if (fd || !is_away(fd.error().sys_errno) || BootClock::now() >= end) return fd;
    std::this_thread::sleep_for(kTryAgain);
  }
}

struct Connection {
  std::string path;
  TimePoint by;
  std::shared_ptr<grpc::Channel> channel;
};

Result<Connection> open_connection(std::string path, TimePoint by, Duration patience) {
  auto fd = TRY(connect_patiently(path, patience, by));
  // What gRPC writes to stderr by itself would be part of the engine's error.
  if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
  // Never given back: after a large write its shutdown was seen to wait for 10 s (1.51).
  static const bool kKept = (grpc_init(), true);
  static_cast<void>(kKept);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReplyBytes);
  auto channel = grpc::CreateCustomInsecureChannelFromFd("localhost", fd.release(), arguments);
  return Connection{std::move(path), by, std::move(channel)};
}

Error to_error(const grpc::Status& status, const std::string& path) {
  using grpc::StatusCode;
  switch (status.error_code()) {
    case StatusCode::UNAVAILABLE:
    case StatusCode::CANCELLED:
      return {ErrorCode::kSystem, fmt::format("lost meshd at {}: it ends or has ended", path),
              ECONNRESET};
    case StatusCode::DEADLINE_EXCEEDED:
      return {ErrorCode::kSystem, fmt::format("meshd at {} does not answer in time", path),
              ETIMEDOUT};
    case StatusCode::NOT_FOUND:
      return {ErrorCode::kNotFound, status.error_message()};
    case StatusCode::ABORTED:
      return {ErrorCode::kNotInForce, status.error_message()};
    case StatusCode::INVALID_ARGUMENT:
      return {ErrorCode::kInvalid, status.error_message()};
    case StatusCode::UNIMPLEMENTED:
      return {ErrorCode::kUnsupported, "meshd is older than this program"};
    default:
      return {ErrorCode::kConflict, status.error_message()};
  }
}

template <class Stub, class Request, class Response>
Result<Response> call(const Connection& connection, Stub& stub,
                      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                      const Request& request) {
  const auto left = std::max<Duration>(connection.by - BootClock::now(), kLeastTime);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
  Response response;
  const auto status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return std::unexpected(to_error(status, connection.path));
  return response;
}

}  // namespace

struct Client::Impl {
  using Stub = pb::Control::StubInterface;
  Connection connection;
  std::unique_ptr<Stub> stub;
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

Result<Client> Client::connect(const std::string& run_dir, TimePoint by, Duration patience) {
  auto connection = TRY(open_connection(run_dir + "/control.sock", by, patience));
  auto stub = pb::Control::NewStub(connection.channel);
  return Client(std::make_unique<Impl>(std::move(connection), std::move(stub)));
}

Result<pb::ApplyReply> Client::apply(const pb::ApplyRequest& request) {
  return call(impl_->connection, *impl_->stub, &Impl::Stub::Apply, request);
}
Result<pb::AttachReply> Client::attach(const pb::AttachRequest& request) {
  return call(impl_->connection, *impl_->stub, &Impl::Stub::Attach, request);
}
Result<pb::DetachReply> Client::detach(const pb::DetachRequest& request) {
  return call(impl_->connection, *impl_->stub, &Impl::Stub::Detach, request);
}

Status ask_whether_alive(const std::string& run_dir, TimePoint by, Duration patience) {
  const auto connection = TRY(open_connection(run_dir + "/status.sock", by, patience));
  const std::unique_ptr<pb::Status::StubInterface> stub = pb::Status::NewStub(connection.channel);
  const auto reply = call(connection, *stub, &pb::Status::StubInterface::GetStatus, pb::Empty());
  if (!reply) return std::unexpected(reply.error());
  return {};
}

Result<pb::WorkloadList> list_workloads(const std::string& run_dir, TimePoint by) {
  const auto connection = TRY(open_connection(run_dir + "/status.sock", by, {}));
  const std::unique_ptr<pb::Status::StubInterface> stub = pb::Status::NewStub(connection.channel);
  return call(connection, *stub, &pb::Status::StubInterface::ListWorkloads, pb::Empty());
}

}  // namespace meshd::engines
