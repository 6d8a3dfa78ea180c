#include "meshctl/client.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

#include "base/unique_fd.h"
#include "meshctl/text.h"
#include "pki/controller_channel.h"
#include "proto/node.grpc.pb.h"

namespace meshd::ctl {
namespace {

std::unexpected<Failure> unreachable(const std::string& path, int error) {
  const auto reason = fail_errno("cannot reach meshd at " + path, error).error().what;
  const bool absent = error == ENOENT || error == ECONNREFUSED;
  return fail(Exit::kUnreachable, reason + (absent ? " (is it running?)" : ""));
}

Outcome<UniqueFd> connect_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(Exit::kUsage, fmt::format("--run-dir: {} is longer than the {} bytes that the "
                                          "kernel takes as a socket's path",
                                          path, sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  // Non-blocking, as gRPC wants it; also, a daemon that hangs with a full queue of
  // connections then says EAGAIN where it would block us.
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return unreachable(path, errno);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return unreachable(path, errno);
  }
  return fd;
}

void prepare_grpc() {
  // It writes its own lines to stderr otherwise, beside the one that we promise.
  if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
  // A reference that is never given back, so that gRPC is not shut down before the process
  // ends: after a large write its shutdown was seen to wait for a poller for 10 s (1.51).
  static const bool kKept = (grpc_init(), true);
  static_cast<void>(kKept);
}

struct Connection {
  std::string peer;   // "meshd", "the controller"
  std::string place;  // "meshd at /run/meshd/status.sock"
  Timeouts timeouts;
  std::shared_ptr<grpc::Channel> channel;
};

Outcome<Connection> open_connection(std::string path, const Timeouts& timeouts) {
  auto fd = TRY(connect_socket(path));
  prepare_grpc();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReplyBytes);
  // The channel closes the descriptor; it never connects again by itself.
  auto channel = grpc::CreateCustomInsecureChannelFromFd("localhost", fd.release(), arguments);
  return Connection{"meshd", "meshd at " + path, timeouts, std::move(channel)};
}

Outcome<Connection> open_connection(const Controller& controller, const Timeouts& timeouts) {
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  const auto self = TRY(pki::check_own_identity(controller.files, now));
  prepare_grpc();
  auto opened =
      pki::connect_controller(controller.addresses, controller.files, self.cluster, kMaxReplyBytes);
  if (!opened) {
    const bool away = opened.error().code == ErrorCode::kSystem;
    return fail(away ? Exit::kUnreachable : Exit::kRefused, printable(opened.error().what));
  }
  return Connection{"the controller", "the controller at " + opened->address, timeouts,
                    std::move(opened->channel)};
}

// Whether it matters that a call which got no answer may have been carried out.
enum class Effect { kReads, kChanges };

Failure to_failure(const grpc::Status& status, const Connection& connection, Effect effect,
                   std::chrono::milliseconds timeout) {
  const auto outcome = effect == Effect::kChanges ? "; whether it was done is not known" : "";
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      return {Exit::kUnreachable, fmt::format("lost {}: {}{}", connection.place,
                                              printable(status.error_message()), outcome)};
    case grpc::StatusCode::CANCELLED:
      // By the other side: a call that arrives while it ends.
      return {Exit::kUnreachable,
              fmt::format("lost {}: {} is stopping{}", connection.place, connection.peer, outcome)};
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return {Exit::kUnreachable, fmt::format("no answer from {} within {} ms{}", connection.place,
                                              timeout.count(), outcome)};
    case grpc::StatusCode::UNIMPLEMENTED:
      if (status.error_message().empty()) {
        return {Exit::kRefused,
                fmt::format("{0}: this call is unknown to it; is {0} older than meshctl?",
                            connection.peer)};
      }
      break;
    default:
      break;
  }
  if (status.error_message().empty()) {
    return {Exit::kRefused, fmt::format("{}: refused without a reason, gRPC code {}",
                                        connection.peer, static_cast<int>(status.error_code()))};
  }
  return {Exit::kRefused, printable(status.error_message())};
}

template <class Stub, class Request, class Response>
Outcome<Response> call(const Connection& connection, Stub& stub,
                       grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                    Response*),
                       const Request& request, Effect effect, std::chrono::milliseconds timeout) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  Response response;
  const auto status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return std::unexpected(to_failure(status, connection, effect, timeout));
  return response;
}

// Cancels a stream when `stop_fd` becomes readable. Its thread ends with the object.
class Canceller {
 public:
  Canceller(grpc::ClientContext& context, int stop_fd)
      : done_(eventfd(0, EFD_CLOEXEC)), thread_([this, &context, stop_fd] {
          std::array<pollfd, 2> fds = {{{stop_fd, POLLIN, 0}, {done_.get(), POLLIN, 0}}};
          while (poll(fds.data(), fds.size(), -1) < 0 && errno == EINTR) {
          }
          if (fds[0].revents != 0) context.TryCancel();
        }) {}
  Canceller(const Canceller&) = delete;
  Canceller& operator=(const Canceller&) = delete;
  ~Canceller() {
    eventfd_write(done_.get(), 1);
    thread_.join();
  }

 private:
  UniqueFd done_;
  std::thread thread_;
};

bool readable(int fd) {
  pollfd one{fd, POLLIN, 0};
  return poll(&one, 1, 0) > 0;
}

}  // namespace

struct ControlClient::Impl {
  using Stub = pb::Control::StubInterface;
  Connection connection;
  std::unique_ptr<Stub> stub;

  template <class Method, class Request>
  auto change(Method method, const Request& request) {
    return call(connection, *stub, method, request, Effect::kChanges, connection.timeouts.change);
  }
};

ControlClient::ControlClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlClient::ControlClient(ControlClient&&) noexcept = default;
ControlClient& ControlClient::operator=(ControlClient&&) noexcept = default;
ControlClient::~ControlClient() = default;

Outcome<ControlClient> ControlClient::connect(const std::string& run_dir,
                                              const Timeouts& timeouts) {
  auto connection = TRY(open_connection(run_dir + "/control.sock", timeouts));
  auto stub = pb::Control::NewStub(connection.channel);
  return ControlClient(std::make_unique<Impl>(std::move(connection), std::move(stub)));
}

Outcome<ControlClient> ControlClient::connect(const Controller& controller,
                                              const Timeouts& timeouts) {
  auto connection = TRY(open_connection(controller, timeouts));
  auto stub = pb::Control::NewStub(connection.channel);
  return ControlClient(std::make_unique<Impl>(std::move(connection), std::move(stub)));
}

Outcome<pb::ApplyReply> ControlClient::apply(const pb::ApplyRequest& request) {
  return impl_->change(&Impl::Stub::Apply, request);
}
Outcome<pb::AttachReply> ControlClient::attach(const pb::AttachRequest& request) {
  return impl_->change(&Impl::Stub::Attach, request);
}
Outcome<pb::DetachReply> ControlClient::detach(const pb::DetachRequest& request) {
  return impl_->change(&Impl::Stub::Detach, request);
}
Outcome<pb::Empty> ControlClient::drain(const pb::WorkloadRequest& request) {
  return impl_->change(&Impl::Stub::Drain, request);
}
Outcome<pb::DetachReply> ControlClient::remove(const pb::DeleteRequest& request) {
  return impl_->change(&Impl::Stub::Delete, request);
}
Outcome<pb::Empty> ControlClient::release_name(const pb::NameRequest& request) {
  return impl_->change(&Impl::Stub::ReleaseName, request);
}

struct StatusClient::Impl {
  using Stub = pb::Status::StubInterface;
  Connection connection;
  std::unique_ptr<Stub> stub;

  template <class Method, class Request>
  auto read(Method method, const Request& request) {
    return call(connection, *stub, method, request, Effect::kReads, connection.timeouts.read);
  }
};

StatusClient::StatusClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StatusClient::StatusClient(StatusClient&&) noexcept = default;
StatusClient& StatusClient::operator=(StatusClient&&) noexcept = default;
StatusClient::~StatusClient() = default;

Outcome<StatusClient> StatusClient::connect(const std::string& run_dir, const Timeouts& timeouts) {
  auto connection = TRY(open_connection(run_dir + "/status.sock", timeouts));
  auto stub = pb::Status::NewStub(connection.channel);
  return StatusClient(std::make_unique<Impl>(std::move(connection), std::move(stub)));
}

Outcome<StatusClient> StatusClient::connect(const Controller& controller,
                                            const Timeouts& timeouts) {
  auto connection = TRY(open_connection(controller, timeouts));
  auto stub = pb::Status::NewStub(connection.channel);
  return StatusClient(std::make_unique<Impl>(std::move(connection), std::move(stub)));
}

Outcome<pb::PlanReply> StatusClient::plan(const pb::ApplyRequest& request) {
  return impl_->read(&Impl::Stub::Plan, request);
}
Outcome<pb::WorkloadList> StatusClient::workloads() {
  return impl_->read(&Impl::Stub::ListWorkloads, pb::Empty());
}
Outcome<pb::ServiceList> StatusClient::services() {
  return impl_->read(&Impl::Stub::ListServices, pb::Empty());
}
Outcome<pb::FlowList> StatusClient::flows() {
  return impl_->read(&Impl::Stub::ListFlows, pb::Empty());
}
Outcome<pb::PublishedList> StatusClient::published() {
  return impl_->read(&Impl::Stub::ListPublished, pb::Empty());
}
Outcome<pb::NodeList> StatusClient::nodes() {
  return impl_->read(&Impl::Stub::ListNodes, pb::Empty());
}
Outcome<pb::RefusedList> StatusClient::refused() {
  return impl_->read(&Impl::Stub::ListRefused, pb::Empty());
}
Outcome<pb::ExplainReply> StatusClient::explain(const pb::ExplainRequest& request) {
  return impl_->read(&Impl::Stub::Explain, request);
}
Outcome<pb::ResolveReply> StatusClient::resolve(const pb::ResolveRequest& request) {
  return impl_->read(&Impl::Stub::Resolve, request);
}
Outcome<pb::StatusReply> StatusClient::status() {
  return impl_->read(&Impl::Stub::GetStatus, pb::Empty());
}

Outcome<pb::WaitReply> StatusClient::wait(const pb::WaitRequest& request) {
  const auto timeout =
      std::chrono::milliseconds(request.timeout_ms()) + impl_->connection.timeouts.wait_grace;
  return call(impl_->connection, *impl_->stub, &Impl::Stub::Wait, request, Effect::kReads, timeout);
}

Outcome<void> StatusClient::watch(const pb::WatchRequest& request, int stop_fd,
                                  const OnEvent& on_event) {
  grpc::ClientContext context;
  const auto stream = impl_->stub->Watch(&context, request);
  Outcome<void> outcome;
  grpc::Status status;
  {
    const Canceller canceller(context, stop_fd);
    pb::Event event;
    while (outcome && stream->Read(&event)) outcome = on_event(event);
    // Finish() waits for the rest of the stream, which nobody reads any more.
    if (!outcome) context.TryCancel();
    status = stream->Finish();
  }
  if (!outcome) return outcome;
  if (readable(stop_fd)) return {};
  if (status.ok()) {
    return fail(Exit::kUnreachable,
                fmt::format("lost {}: it ended the stream", impl_->connection.place));
  }
  return std::unexpected(
      to_failure(status, impl_->connection, Effect::kReads, std::chrono::milliseconds(0)));
}

}  // namespace meshd::ctl
