#include "meshd/http_probe.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace meshd {
namespace {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

SocketAddress socket_address(const IpAddress& address, std::uint16_t port) {
  SocketAddress result;
  if (address.is_v4()) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(result.storage);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    v4.sin_addr.s_addr = htonl(address.v4_host_order());
    result.length = sizeof v4;
  } else {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(result.storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::ranges::copy(address.bytes(), v6.sin6_addr.s6_addr);
    result.length = sizeof v6;
  }
  return result;
}

std::string host_and_port(const IpAddress& address, std::uint16_t port) {
  return fmt::format(fmt::runtime(address.is_v4() ? "{}:{}" : "[{}]:{}"), address.to_string(),
                     port);
}

bool digit(char c) { return c >= '0' && c <= '9'; }

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

// --- the answer ----------------------------------------------------------------------

std::optional<Result<int>> StatusParser::take_line(std::string_view line) {
  if (in_headers_) {
    if (line.empty()) in_headers_ = false;
    return std::nullopt;
  }
  // "HTTP/1.1 200 OK"; the reason phrase may be missing, with or without its space.
  const bool status_line = line.size() >= 12 && line.starts_with("HTTP/1.") && digit(line[7]) &&
                           line[8] == ' ' && std::ranges::all_of(line.substr(9, 3), digit) &&
                           (line.size() == 12 || line[12] == ' ');
  if (!status_line) return fail(ErrorCode::kInvalid, "the answer is not HTTP/1");
  const int code = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
  if (code == 101 || code < 100 || code > 599) {
    return fail(ErrorCode::kInvalid, fmt::format("status {} makes no sense here", code));
  }
  if (code >= 200) return code;
  in_headers_ = true;
  return std::nullopt;
}

std::optional<Result<int>> StatusParser::feed(std::string_view bytes) {
  for (const char c : bytes) {
    if (++total_ > kMaxProbeBytes) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("no final status within {} bytes", kMaxProbeBytes));
    }
    if (c != '\n') {
      line_ += c;
      continue;
    }
    if (line_.ends_with('\r')) line_.pop_back();
    if (auto outcome = take_line(std::exchange(line_, {}))) return outcome;
  }
  return std::nullopt;
}

Result<int> StatusParser::finish() const {
  return fail(ErrorCode::kInvalid,
              total_ == 0 ? "closed without an answer" : "closed in the middle of the answer");
}

// --- the exchange --------------------------------------------------------------------

HttpProbe::HttpProbe(UniqueFd fd, std::string target, std::string request, TimePoint deadline)
    : fd_(std::move(fd)),
      target_(std::move(target)),
      request_(std::move(request)),
      deadline_(deadline) {}

Result<HttpProbe> HttpProbe::start(const IpAddress& address, std::uint16_t port,
                                   std::string_view path, TimePoint now) {
  const auto fits = [](char c) { return c > ' ' && c < 0x7f; };
  if (port == 0 || !path.starts_with('/') || !std::ranges::all_of(path, fits)) {
    return fail(ErrorCode::kInvalid,
                fmt::format("probe: no target: port {}, path '{}'", port, path));
  }
  const auto host = host_and_port(address, port);
  auto target = host + std::string(path);
  UniqueFd fd(
      socket(address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno("probe " + target + ": socket", errno);
  const auto to = socket_address(address, port);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&to.storage), to.length) != 0 &&
      errno != EINPROGRESS) {
    return fail_errno("probe " + target + ": connect", errno);
  }
  auto request = fmt::format(
      "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: meshd\r\nAccept: */*\r\nConnection: "
      "close\r\n\r\n",
      path, host);
  return HttpProbe(std::move(fd), std::move(target), std::move(request), now + kProbeLimit);
}

std::uint32_t HttpProbe::events() const { return step_ == Step::kReceive ? EPOLLIN : EPOLLOUT; }

Result<int> HttpProbe::failed(std::string_view step, int error) const {
  return fail_errno(fmt::format("probe {}: {}", target_, step), error);
}

std::optional<Result<int>> HttpProbe::check_connected() {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error != 0) return failed("connect", error);
  // No error and no peer: still connecting, and called too early.
  sockaddr_storage peer{};
  socklen_t peer_size = sizeof peer;
  if (getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &peer_size) == 0) {
    step_ = Step::kSend;
  }
  return std::nullopt;
}

std::optional<Result<int>> HttpProbe::send_some() {
  const auto sent = send(fd_.get(), request_.data(), request_.size(), MSG_NOSIGNAL);
  if (sent < 0) {
    if (would_block(errno)) return std::nullopt;
    return failed("send", errno);
  }
  request_.erase(0, static_cast<std::size_t>(sent));
  if (request_.empty()) step_ = Step::kReceive;
  return std::nullopt;
}

std::optional<Result<int>> HttpProbe::receive_some() {
  // One buffer a call: a peer that floods takes its turn like everybody else.
  std::array<char, 2048> buffer;
  const auto got = recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0) {
    if (would_block(errno)) return std::nullopt;
    return failed("receive", errno);
  }
  auto outcome = got == 0 ? std::optional(parser_.finish())
                          : parser_.feed({buffer.data(), static_cast<std::size_t>(got)});
  if (outcome && !*outcome) {
    return std::unexpected(std::move(*outcome).error().in("probe " + target_));
  }
  return outcome;
}

std::optional<Result<int>> HttpProbe::advance(TimePoint now) {
  std::optional<Result<int>> outcome;
  if (step_ == Step::kConnect) outcome = check_connected();
  if (!outcome && step_ == Step::kSend) outcome = send_some();
  if (!outcome && step_ == Step::kReceive) outcome = receive_some();
  // An answer that is there counts, even in the last moment.
  if (!outcome && now >= deadline_) return failed("answer", ETIMEDOUT);
  return outcome;
}

}  // namespace meshd
