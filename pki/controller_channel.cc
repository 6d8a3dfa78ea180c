#include "pki/controller_channel.h"

#include <fmt/format.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <filesystem>
#include <optional>

#include "pki/grpc_credentials.h"
#include "pki/join_ticket.h"

namespace meshd::pki {
namespace {

// What no server has: every controller answers it alike, and to nobody whom TLS refuses. In TLS
// 1.3 a client has finished before the server looks at its certificate, so that a connection
// alone says nothing.
constexpr const char* kProbe = "/mesh.v1.Nothing/Nothing";

grpc::Status probe(const std::shared_ptr<grpc::Channel>& channel,
                   std::chrono::milliseconds timeout) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  const auto call = stub.PrepareUnaryCall(&context, kProbe, grpc::ByteBuffer(), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status;
}

// A host may be called like one of gRPC's schemes; a bracket is no character of a URI's path.
std::string target_of(const std::string& address) {
  return address.starts_with('[') ? address : "dns:///" + address;
}

// Absent: it answers.
std::optional<Error> trouble(const grpc::Status& status, const std::string& address,
                             std::chrono::milliseconds timeout) {
  const auto& why = status.error_message();
  const auto says = [&](std::string_view text) { return why.find(text) != std::string::npos; };
  const auto refused = [&](std::string_view reason) {
    return Error{ErrorCode::kConflict, fmt::format("controller at {}: {}", address, reason), 0};
  };
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return Error{ErrorCode::kSystem,
                   fmt::format("cannot reach the controller at {}: no answer within {} ms", address,
                               timeout.count()),
                   0};
    case grpc::StatusCode::UNAVAILABLE:
      break;
    default:
      return std::nullopt;
  }
  // gRPC keeps OpenSSL's reason to itself. Our end of the handshake fails for the controller's
  // certificate; a controller that does not take ours hangs up after it.
  if (says("andshake failed") || says("Hostname Verification Check failed")) {
    return refused("TLS: it is no controller by our authorities");
  }
  if (says("Socket closed") || says("Connection reset") || says("Broken pipe") ||
      says("Handshake read failed")) {
    return refused("it hangs up: it does not take our certificate, or is no controller");
  }
  // gRPC's account of it ends in the system's reason.
  const auto reason = why.substr(why.rfind(": ") == std::string::npos ? 0 : why.rfind(": ") + 2);
  return Error{ErrorCode::kSystem,
               fmt::format("cannot reach the controller at {}: {}", address, reason), 0};
}

}  // namespace

Result<Identity> check_own_identity(const IdentityFiles& files, UtcTime now) {
  const auto stored = TRY(read_identity(files));
  const auto& authorities = stored.authorities;
  auto identity = check_certificate(stored.certificate, authorities.certificates,
                                    {authorities.cluster, std::nullopt}, now);
  if (!identity) return std::unexpected(std::move(identity).error().in(files.identity));
  return identity;
}

Result<ControllerChannel> connect_controller(const std::vector<std::string>& addresses,
                                             const IdentityFiles& files, std::string_view cluster,
                                             int max_reply_bytes,
                                             std::chrono::milliseconds timeout) {
  const auto credentials = TRY(make_channel_credentials(files));
  std::optional<Error> first;
  for (const auto& address : addresses) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(max_reply_bytes);
    // A site's proxy for the web is none for this, and would only add its own errors.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    expect_controller(arguments, cluster);
    auto channel = grpc::CreateCustomChannel(target_of(address), credentials, arguments);
    auto error = trouble(probe(channel, timeout), address, timeout);
    if (!error) return ControllerChannel{std::move(channel), address};
    // Of several, one that speaks and disagrees says more than one that is away.
    if (!first || (first->code == ErrorCode::kSystem && error->code != ErrorCode::kSystem)) {
      first = std::move(error);
    }
  }
  if (first) return std::unexpected(*std::move(first));
  return fail(ErrorCode::kInvalid, "no controller is named");
}

Result<std::vector<std::string>> parse_controllers(std::string_view text) {
  std::vector<std::string> addresses;
  while (true) {
    const auto comma = text.find(',');
    const auto one = text.substr(0, comma);
    if (const auto why = endpoint_problem(one); !why.empty()) {
      return fail(ErrorCode::kInvalid, fmt::format("'{}' {}", one, why));
    }
    addresses.emplace_back(one);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  if (addresses.size() > kMaxTicketAddresses) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{} controllers, at most {}", addresses.size(), kMaxTicketAddresses));
  }
  return addresses;
}

std::string authorities_beside(const std::string& identity) {
  return (std::filesystem::path(identity).parent_path() / "authorities.pem").string();
}

}  // namespace meshd::pki
