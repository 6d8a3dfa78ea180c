#include "engines/docker_api.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <utility>

#include "base/unique_fd.h"
#include "engines/files.h"
#include "engines/limits.h"
#include "engines/unix_socket.h"

namespace meshd::engines {
namespace {

Result<std::string> get(const std::string& socket, const std::string& what, TimePoint by) {
  const auto fd = TRY(connect_unix(socket, "dockerd"));
  // Shorter than any socket's buffer: it is taken at once or not at all.
  const auto request = fmt::format("GET {} HTTP/1.0\r\nHost: docker\r\n\r\n", what);
  if (send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return fail_errno("ask dockerd at " + socket, errno);
  }
  const auto text = read_input(fd.get(), kMaxFileBytes, by);
  if (!text) return std::unexpected(Error(text.error()).in("dockerd's answer at " + socket));
  auto body = parse_http_reply(*text);
  if (!body) return std::unexpected(std::move(body).error().in("dockerd's answer to " + what));
  return body;
}

}  // namespace

Result<std::string> parse_http_reply(std::string_view text) {
  constexpr std::string_view kVersion = "HTTP/1.", kEnd = "\r\n\r\n";
  const auto end = text.find(kEnd);
  int status = 0;
  if (text.starts_with(kVersion) && text.size() > 12 && end != std::string_view::npos) {
    std::from_chars(text.data() + 9, text.data() + 12, status);
  }
  if (status == 404) return fail(ErrorCode::kNotFound, "is that there is none");
  if (status != 200) return fail(ErrorCode::kInvalid, fmt::format("is no answer ({})", status));
  return std::string(text.substr(end + kEnd.size()));
}

Result<Member> find_member(const std::string& socket, const std::string& network,
                           const std::string& endpoint, TimePoint by) {
  return parse_member(TRY(get(socket, "/networks/" + network, by)), endpoint);
}

Result<std::string> find_container_id(const std::string& socket, const std::string& name,
                                      TimePoint by) {
  // {"name":["^/NAME$"]}, where a dot means any letter: the answer is looked through.
  const auto what = fmt::format(
      "/containers/json?all=1&filters=%7B%22name%22%3A%5B%22%5E%2F{}%24%22%5D%7D", name);
  return parse_container_id(TRY(get(socket, what, by)), name);
}

}  // namespace meshd::engines
