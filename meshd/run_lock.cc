#include "meshd/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string_view>

namespace meshd {
namespace {

// Abstract: without a file, so that no mount namespace comes between two daemons.
constexpr std::string_view kName = "meshd";

struct AbstractName {
  sockaddr_un address{};
  socklen_t size = 0;
  AbstractName() {
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, kName.data(), kName.size());
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + kName.size());
  }
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

Result<UniqueFd> unix_socket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno("make a Unix socket", errno);
  return fd;
}

// Who holds the name: whoever listens under it. Nobody does where it went meanwhile, or
// where somebody took it without listening, which we never do.
Result<std::optional<ucred>> holder() {
  const auto fd = TRY(unix_socket());
  const AbstractName name;
  if (connect(fd.get(), name.get(), name.size) != 0) {
    if (errno == ECONNREFUSED) return std::nullopt;
    // Nobody takes connections from a queue that is full: it is there.
    if (errno == EAGAIN) return ucred{0, geteuid(), getegid()};
    return fail_errno("ask for another meshd", errno);
  }
  ucred who{};
  socklen_t size = sizeof who;
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) {
    return fail_errno("ask for another meshd", errno);
  }
  return who;
}

// Whoever may write to it could put a socket of their own where clients look for ours.
Status check_owned(const std::string& run_dir) {
  const UniqueFd dir(open(run_dir.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!dir && (errno == ELOOP || errno == ENOTDIR)) {
    return fail(ErrorCode::kInvalid, run_dir + ": a link or a file, not a directory");
  }
  struct stat info{};
  if (!dir || fstat(dir.get(), &info) != 0) return fail_errno("look at " + run_dir, errno);
  if (info.st_uid != geteuid()) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: owned by uid {}, not by us (uid {}): chown "
                                                 "it, or name another run_dir",
                                                 run_dir, info.st_uid, geteuid()));
  }
  if ((info.st_mode & 022) != 0) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: others may write to it (mode {:04o}): chmod 755", run_dir,
                            info.st_mode & 07777));
  }
  return {};
}

// Without a descriptor: the name is taken by somebody who is no daemon of ours.
Result<UniqueFd> take_name() {
  auto fd = TRY(unix_socket());
  const AbstractName name;
  if (bind(fd.get(), name.get(), name.size) == 0) {
    if (listen(fd.get(), SOMAXCONN) != 0) return fail_errno("hold the name of meshd", errno);
    return fd;
  }
  if (errno != EADDRINUSE) return fail_errno("hold the name of meshd", errno);
  const auto other = TRY(holder());
  if (!other || other->uid != geteuid()) return UniqueFd();
  return fail(ErrorCode::kConflict,
              fmt::format("another meshd runs in this network namespace (pid {})", other->pid));
}

}  // namespace

Result<std::unique_ptr<RunLock>> RunLock::take(const std::string& run_dir) {
  if (mkdir(run_dir.c_str(), 0755) != 0 && errno != EEXIST) {
    return fail_errno("make " + run_dir, errno);
  }
  CHECK_OK(check_owned(run_dir));
  const auto path = run_dir + "/meshd.lock";
  UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail_errno("open " + path, errno);
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return fail(ErrorCode::kConflict, run_dir + ": another meshd runs there");
    }
    return fail_errno("lock " + path, errno);
  }
  auto name = TRY(take_name());
  return std::unique_ptr<RunLock>(new RunLock(std::move(file), std::move(name)));
}

}  // namespace meshd
