// Who comes to the endpoint by a socket, as nginx does.
#pragma once

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "proxy/request.h"

namespace meshd::proxy {

inline constexpr int kPatienceMs = 20'000;

inline bool is_readable(int fd, int wait_ms = kPatienceMs) {
  pollfd wait{fd, POLLIN, 0};
  return poll(&wait, 1, wait_ms) == 1;
}

// Looks again and again, without a fixed wait, until it is so.
template <class Check>
bool comes_true(Check check) {
  const auto end = BootClock::now() + std::chrono::milliseconds(kPatienceMs);
  while (!check()) {
    if (BootClock::now() > end) return false;
    poll(nullptr, 0, 1);
  }
  return true;
}

struct HttpReply {
  int status = 0;  // 0: the connection ended
  std::multimap<std::string, std::string> headers;
  std::string body;
  [[nodiscard]] std::string header(std::string_view name) const {
    const auto found = headers.find(std::string(name));
    return found == headers.end() ? "" : found->second;
  }
};

// What nginx says of a request.
struct Said {
  std::string host = "db.svc.mesh.example.org", uri = "/", method = "GET", cookie, more;
  std::string client = "198.51.100.3";
  [[nodiscard]] std::string request(std::string_view path) const {
    auto text = fmt::format(
        "GET {} HTTP/1.1\r\nHost: mesh-endpoint\r\nX-Mesh-Host: {}\r\nX-Mesh-Line-Host: {}\r\n"
        "X-Mesh-Uri: {}\r\nX-Mesh-Method: {}\r\nX-Mesh-Client: {}\r\n{}",
        path, host, host, uri, method, client, more);
    if (!cookie.empty()) text += fmt::format("X-Mesh-Cookie: {}\r\n", cookie);
    return text + "\r\n";
  }
};

class HttpClient {
 public:
  explicit HttpClient(UniqueFd fd) : fd_(std::move(fd)) {}
  void send(std::string_view text) const {
    while (!text.empty()) {
      const auto sent = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;  // it was closed, which read() tells
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  [[nodiscard]] HttpReply read() {
    HttpReply reply;
    const auto head_end = wait_for([this] { return got_.find("\r\n\r\n"); });
    if (head_end == std::string::npos) return reply;
    auto head = got_.substr(0, head_end + 2);
    got_.erase(0, head_end + 4);
    reply.status = std::stoi(head.substr(9, 3));
    for (auto at = head.find("\r\n") + 2; at < head.size();) {
      const auto end = head.find("\r\n", at);
      const auto colon = head.find(": ", at);
      reply.headers.emplace(head.substr(at, colon - at), head.substr(colon + 2, end - colon - 2));
      at = end + 2;
    }
    const auto size = std::stoul("0" + reply.header("Content-Length"));
    if (wait_for([&] { return got_.size() >= size ? 0 : std::string::npos; }) != 0) return {};
    reply.body = got_.substr(0, size);
    got_.erase(0, size);
    return reply;
  }
  [[nodiscard]] HttpReply ask(std::string_view path, const Said& said = {}) {
    send(said.request(path));
    return read();
  }
  [[nodiscard]] bool has_more(int wait_ms) const { return is_readable(fd_.get(), wait_ms); }
  void end() const { shutdown(fd_.get(), SHUT_WR); }
  void close() { fd_.reset(); }

 private:
  template <class Find>
  std::size_t wait_for(Find find) {
    for (;;) {
      if (const auto found = find(); found != std::string::npos) return found;
      char bytes[65536];
      if (!is_readable(fd_.get())) return std::string::npos;
      const auto count = recv(fd_.get(), bytes, sizeof bytes, 0);
      if (count <= 0) return std::string::npos;
      got_.append(bytes, static_cast<std::size_t>(count));
    }
  }
  UniqueFd fd_;
  std::string got_;
};

inline UniqueFd connect_unix(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::ranges::copy(path, name.sun_path);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) fd.reset();
  return fd;
}

inline std::string token_cookie(std::string_view token) {
  return fmt::format("{}={}", kTokenCookie, to_base64url(token));
}

}  // namespace meshd::proxy
