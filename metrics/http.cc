#include "metrics/http.h"

#include <fmt/format.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "base/unique_fd.h"
#include "metrics/text.h"

namespace meshd::metrics {
namespace {

// Turns of the library for one call: it has more to do after an edge that it has not used up.
constexpr int kTurns = 64;

MHD_Result respond(MHD_Connection* connection, unsigned status, std::string_view type,
                   const std::string& body) {
  auto* const response = MHD_create_response_from_buffer(
      body.size(), const_cast<char*>(body.data()), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, std::string(type).c_str());
  if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
  }
  const auto queued = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return queued;
}

MHD_Result answer(void* self, MHD_Connection* connection, const char* url, const char* method,
                  const char*, const char*, std::size_t*, void**) {
  constexpr std::string_view kPlain = "text/plain; charset=utf-8";
  const std::string_view what(method);
  if (what != MHD_HTTP_METHOD_GET && what != MHD_HTTP_METHOD_HEAD) {
    return respond(connection, MHD_HTTP_METHOD_NOT_ALLOWED, kPlain, "GET only\n");
  }
  if (std::string_view(url) != "/metrics") {
    return respond(connection, MHD_HTTP_NOT_FOUND, kPlain, "see /metrics\n");
  }
  return respond(connection, MHD_HTTP_OK, kContentType,
                 static_cast<const Endpoint*>(self)->render());
}

struct SocketName {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

SocketName socket_name(const ListenAddress& listen) {
  SocketName name;
  const auto bytes = listen.address.bytes();
  if (listen.address.is_v4()) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(listen.port);
    std::ranges::copy(bytes, reinterpret_cast<std::uint8_t*>(&v4.sin_addr));
    std::memcpy(&name.storage, &v4, name.size = sizeof v4);
  } else {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(listen.port);
    std::ranges::copy(bytes, reinterpret_cast<std::uint8_t*>(&v6.sin6_addr));
    std::memcpy(&name.storage, &v6, name.size = sizeof v6);
  }
  return name;
}

// The library has no errno to tell: bound here, so that the reason is the kernel's.
Result<UniqueFd> listen_on(const ListenAddress& listen, std::uint16_t& port) {
  const int family = listen.address.is_v4() ? AF_INET : AF_INET6;
  const auto address = listen.address.to_string();
  const auto where =
      fmt::format("metrics: listen on {}:{}",
                  listen.address.is_v4() ? address : "[" + address + "]", listen.port);
  UniqueFd fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(where, errno);
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  auto name = socket_name(listen);
  if (family == AF_INET6) setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&name.storage), name.size) != 0 ||
      ::listen(fd.get(), static_cast<int>(kConnections)) != 0 ||
      getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name.storage), &name.size) != 0) {
    return fail_errno(where, errno);
  }
  // The port stands in the same place for both families.
  port = ntohs(reinterpret_cast<const sockaddr_in*>(&name.storage)->sin_port);
  return fd;
}

}  // namespace

Result<ListenAddress> parse_listen(std::string_view text) {
  const auto wrong = [&] {
    return fail(ErrorCode::kInvalid,
                fmt::format("'{}' is no ADDRESS:PORT such as 127.0.0.1:9470 or [::1]:9470", text));
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return wrong();
  auto host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const auto address = IpAddress::parse(host);
  const auto digits = text.substr(colon + 1);
  ListenAddress listen;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), listen.port);
  if (!address || address->is_v4() == bracketed || digits.empty() || error != std::errc() ||
      end != digits.data() + digits.size()) {
    return wrong();
  }
  listen.address = *address;
  return listen;
}

Result<std::unique_ptr<Endpoint>> Endpoint::open(const ListenAddress& listen, Render render) {
  std::unique_ptr<Endpoint> endpoint(new Endpoint(std::move(render)));
  auto socket = TRY(listen_on(listen, endpoint->port_));
  endpoint->daemon_ = MHD_start_daemon(
      MHD_USE_EPOLL | (listen.address.is_v4() ? 0U : unsigned{MHD_USE_IPv6}), 0, nullptr, nullptr,
      &answer, endpoint.get(), MHD_OPTION_LISTEN_SOCKET, socket.get(), MHD_OPTION_CONNECTION_LIMIT,
      kConnections, MHD_OPTION_CONNECTION_TIMEOUT, static_cast<unsigned>(kIdle.count()),
      MHD_OPTION_END);
  if (endpoint->daemon_ == nullptr) {
    return fail(ErrorCode::kSystem, "metrics: the HTTP library does not start");
  }
  [[maybe_unused]] const int its_own = socket.release();
  const auto* const info = MHD_get_daemon_info(endpoint->daemon_, MHD_DAEMON_INFO_EPOLL_FD);
  if (info == nullptr) return fail(ErrorCode::kSystem, "metrics: no epoll descriptor");
  endpoint->fd_ = info->epoll_fd;
  return endpoint;
}

Endpoint::~Endpoint() {
  if (daemon_ != nullptr) MHD_stop_daemon(daemon_);
}

std::optional<Duration> Endpoint::serve() {
  for (int turn = 0; turn < kTurns; ++turn) {
    MHD_run(daemon_);
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;
    if (MHD_get_timeout(daemon_, &wait_ms) != MHD_YES) return std::nullopt;
    if (wait_ms > 0) return std::chrono::milliseconds(wait_ms);
  }
  return Duration(0);
}

}  // namespace meshd::metrics
