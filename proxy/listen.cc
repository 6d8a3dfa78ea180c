#include "proxy/listen.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <grp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

namespace meshd::proxy {
namespace {

constexpr auto kNoGroup = static_cast<gid_t>(-1);

Result<sockaddr_un> unix_name(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) {
    return fail(ErrorCode::kInvalid, path + ": longer than a socket's path can be");
  }
  std::ranges::copy(path, name.sun_path);
  return name;
}

// What an earlier process left, unless it is no socket or somebody listens on it.
Status remove_stale(const std::string& path, const sockaddr_un& name) {
  struct stat found{};
  if (lstat(path.c_str(), &found) != 0) {
    return errno == ENOENT ? Status() : fail_errno("look at " + path, errno);
  }
  if (!S_ISSOCK(found.st_mode))
    return fail(ErrorCode::kConflict, path + ": is there, and no socket");
  const UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!probe) return fail_errno("socket", errno);
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0 ||
      errno != ECONNREFUSED) {
    return fail(ErrorCode::kConflict, path + ": another process listens there");
  }
  if (unlink(path.c_str()) != 0) return fail_errno("remove " + path, errno);
  return {};
}

Status make_parent(const std::string& path, gid_t group) {
  const auto parent = std::filesystem::path(path).parent_path().string();
  if (mkdir(parent.c_str(), 0750) != 0) {
    return errno == EEXIST ? Status() : fail_errno("make " + parent, errno);
  }
  if (group != kNoGroup && chown(parent.c_str(), static_cast<uid_t>(-1), group) != 0) {
    return fail_errno("give " + parent + " to its group", errno);
  }
  return {};
}

struct Loopback {
  bool v6 = false;
  std::uint16_t port = 0;
};

Result<Loopback> parse_loopback(std::string_view text) {
  const auto colon = text.rfind(':');
  const auto host = text.substr(0, colon == std::string_view::npos ? 0 : colon);
  const auto digits = text.substr(colon == std::string_view::npos ? text.size() : colon + 1);
  Loopback result{host == "[::1]", 0};
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), result.port);
  // On any other address it would hear tokens in clear.
  if ((host != "127.0.0.1" && !result.v6) || digits.empty() || error != std::errc() ||
      end != digits.data() + digits.size()) {
    return fail(
        ErrorCode::kInvalid,
        fmt::format("'{}' is no socket's absolute path, 127.0.0.1:PORT or [::1]:PORT", text));
  }
  return result;
}

}  // namespace

Result<Listener> Listener::open(std::string_view text, gid_t group) {
  if (text.starts_with('/')) return open_unix(std::string(text), group);
  return open_loopback(text);
}

Result<Listener> Listener::open_unix(const std::string& path, gid_t group) {
  const auto name = TRY(unix_name(path));
  CHECK_OK(make_parent(path, group));
  CHECK_OK(remove_stale(path, name));
  Listener result;
  result.fd_ = UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!result.fd_) return fail_errno("socket", errno);
  const int fd = result.fd_.get();
  if (bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
    return fail_errno("bind " + path, errno);
  }
  // From here on the file is ours to remove. Nobody can connect before listen().
  result.path_ = path;
  if (lstat(path.c_str(), &result.file_) != 0) return fail_errno("look at " + path, errno);
  if (group != kNoGroup && lchown(path.c_str(), static_cast<uid_t>(-1), group) != 0) {
    return fail_errno("give " + path + " to its group", errno);
  }
  if (chmod(path.c_str(), 0660) != 0) return fail_errno("chmod " + path, errno);
  if (listen(fd, kListenBacklog) != 0) return fail_errno("listen on " + path, errno);
  return result;
}

Result<Listener> Listener::open_loopback(std::string_view text) {
  const auto where = TRY(parse_loopback(text));
  const auto what = fmt::format("listen on {}", text);
  Listener result;
  result.v6_ = where.v6;
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(where.port);
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(where.port);
  v6.sin6_addr = in6addr_loopback;
  auto* const name = where.v6 ? reinterpret_cast<sockaddr*>(&v6) : reinterpret_cast<sockaddr*>(&v4);
  socklen_t size = where.v6 ? sizeof v6 : sizeof v4;
  result.fd_ = UniqueFd(socket(name->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int fd = result.fd_.get();
  const int on = 1;
  if (!result.fd_) return fail_errno(what, errno);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, name, size) != 0 || listen(fd, kListenBacklog) != 0 ||
      getsockname(fd, name, &size) != 0) {
    return fail_errno(what, errno);
  }
  result.port_ = ntohs(where.v6 ? v6.sin6_port : v4.sin_port);
  return result;
}

Listener::~Listener() {
  if (path_.empty()) return;
  struct stat found{};
  // Somebody else's by now, perhaps.
  if (lstat(path_.c_str(), &found) == 0 && found.st_ino == file_.st_ino &&
      found.st_dev == file_.st_dev) {
    unlink(path_.c_str());
  }
}

Result<gid_t> group_id(const std::string& name) {
  if (name.empty()) return kNoGroup;
  std::vector<char> buffer(64 << 10);
  group entry{};
  group* found = nullptr;
  const int error = getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (error != 0) return fail_errno("look up the group " + name, error);
  if (found == nullptr) return fail(ErrorCode::kInvalid, "there is no group " + name);
  return found->gr_gid;
}

}  // namespace meshd::proxy
