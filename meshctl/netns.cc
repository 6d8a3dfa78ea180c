#include "meshctl/netns.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>

namespace meshd::ctl {
namespace {

// Two `prepare` at the same time take turns for as long as a mount takes; anybody may hold
// a lock on a readable directory, so we do not wait longer than this for it.
constexpr int kLockTries = 50;
constexpr auto kLockPause = std::chrono::milliseconds(10);

// Only looks: a path that is a FIFO or a device must not be opened to find that out.
Result<bool> is_nsfs(int path_fd, const std::string& path) {
  struct statfs info{};
  if (fstatfs(path_fd, &info) != 0) return fail_errno(path, errno);
  return static_cast<std::uint64_t>(info.f_type) == NSFS_MAGIC;
}

Result<Netns> open_checked(const std::string& path) {
  const UniqueFd look(open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!look) return fail_errno(path, errno);
  if (!TRY(is_nsfs(look.get(), path))) {
    return fail(ErrorCode::kInvalid, path + ": not a network namespace");
  }
  Netns netns;
  const auto again = fmt::format("/proc/self/fd/{}", look.get());
  netns.fd.reset(open(again.c_str(), O_RDONLY | O_CLOEXEC));
  if (!netns.fd) return fail_errno(path, errno);
  const int type = ioctl(netns.fd.get(), NS_GET_NSTYPE);
  if (type < 0) return fail_errno(path, errno);
  if (type != CLONE_NEWNET) {
    return fail(ErrorCode::kInvalid, path + ": a namespace, but not a network namespace");
  }
  struct stat info{};
  if (fstat(netns.fd.get(), &info) != 0) return fail_errno(path, errno);
  netns.dev = info.st_dev;
  netns.ino = info.st_ino;
  netns.path = path;
  return netns;
}

// Mounts made inside of `dir` shall be seen by containers' mount namespaces that were
// copied before, and vanish from them when we unmount: it must be a shared mount.
Status make_shared(const std::string& dir) {
  const char* path = dir.c_str();
  if (mount("", path, "none", MS_SHARED | MS_REC, nullptr) == 0) return {};
  // EINVAL: not a mount point yet.
  if (errno != EINVAL) return fail_errno("mount --make-shared " + dir, errno);
  if (mount(path, path, "none", MS_BIND | MS_REC, nullptr) != 0) {
    return fail_errno("mount --bind " + dir, errno);
  }
  if (mount("", path, "none", MS_SHARED | MS_REC, nullptr) != 0) {
    return fail_errno("mount --make-shared " + dir, errno);
  }
  return {};
}

Status ensure_dir(const std::string& dir) {
  if (mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(dir, errno);
  const UniqueFd lock(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock) return fail_errno(dir, errno);
  // ip-netns takes the same lock. Without it the directory is mounted over itself twice,
  // which is ugly and harmless; so a lock that somebody sits on does not stop us.
  for (int i = 0; i < kLockTries && flock(lock.get(), LOCK_EX | LOCK_NB) != 0; ++i) {
    std::this_thread::sleep_for(kLockPause);
  }
  return make_shared(dir);
}

// In a thread that ends afterwards: unshare() moves the whole thread for good, and this
// process has to stay where meshd's socket is.
Status bind_fresh_netns(const std::string& path) {
  Status status;
  std::thread([&] {
    if (unshare(CLONE_NEWNET) != 0) {
      status = fail_errno("unshare: a new network namespace", errno);
    } else if (mount("/proc/thread-self/ns/net", path.c_str(), "none", MS_BIND, nullptr) != 0) {
      status = fail_errno("mount " + path, errno);
    }
  }).join();
  return status;
}

}  // namespace

Result<Netns> open_netns(const std::string& path) {
  std::error_code code;
  const auto absolute = std::filesystem::absolute(path, code);
  if (path.empty() || code) return fail(ErrorCode::kInvalid, "an empty path is no namespace");
  auto netns = open_checked(absolute.string());
  if (!netns && netns.error().sys_errno == ENOENT && !path.contains('/')) {
    // People who think in `ip netns` names meet this first.
    return fail(ErrorCode::kNotFound, fmt::format("{}: no such file; a namespace of `ip netns` is "
                                                  "named by its path, {}/{}",
                                                  path, kNetnsDir, path));
  }
  return netns;
}

Result<Netns> open_netns_of(pid_t pid) {
  auto netns = open_checked(fmt::format("/proc/{}/ns/net", pid));
  if (netns) return netns;
  const int error = netns.error().sys_errno;
  // A process that has ended and waits for its parent has no namespaces any more.
  if (error == ENOENT || error == ESRCH) {
    return fail(ErrorCode::kNotFound, fmt::format("no process {}, or it has ended", pid));
  }
  return netns;
}

Result<std::string> named_netns_path(std::string_view dir, std::string_view name) {
  // Stricter than the file system: exactly the characters of a DNS label.
  const bool label = !name.empty() && name.size() <= 63 && name.front() != '-' &&
                     std::ranges::all_of(name, [](char c) {
                       return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
                     });
  if (!label) {
    return fail(ErrorCode::kInvalid,
                fmt::format("'{}' is no id: 1-63 of [a-z0-9-], not '-' first", name));
  }
  return fmt::format("{}/{}", dir, name);
}

Status create_named_netns(const std::string& path) {
  CHECK_OK(ensure_dir(std::filesystem::path(path).parent_path().string()));
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0));
  if (!file && errno == EEXIST) return fail(ErrorCode::kConflict, path + ": exists already");
  if (!file) return fail_errno(path, errno);
  auto status = bind_fresh_netns(path);
  if (!status) unlink(path.c_str());
  return status;
}

Result<bool> remove_named_netns(const std::string& path, std::uint64_t dev, std::uint64_t ino) {
  struct stat info{};
  {
    const UniqueFd look(open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!look && errno == ENOENT) return true;
    if (!look || fstat(look.get(), &info) != 0) return fail_errno(path, errno);
    if (!TRY(is_nsfs(look.get(), path)) && S_ISREG(info.st_mode) && info.st_size == 0) {
      if (unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno("remove " + path, errno);
      return true;
    }
  }
  if (info.st_dev != dev || info.st_ino != ino) return false;
  CHECK_OK(remove_named_netns(path));
  return true;
}

Status remove_named_netns(const std::string& path) {
  {
    const UniqueFd look(open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!look && errno == ENOENT) return {};
    if (!look) return fail_errno(path, errno);
    if (!TRY(is_nsfs(look.get(), path))) {
      return fail(ErrorCode::kInvalid, path + ": not bound to a network namespace, left alone");
    }
  }
  // Detached: the name goes at once even where a process still has the file open.
  if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
    return fail_errno("umount " + path, errno);
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno("remove " + path, errno);
  return {};
}

}  // namespace meshd::ctl
