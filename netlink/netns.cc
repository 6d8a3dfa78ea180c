#include "netlink/netns.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace meshd::netlink {
namespace {

// open(2) can be interrupted where the file system is slow.
int open_retrying(const char* path, int flags, mode_t mode = 0) {
  int fd;
  do {
    fd = ::open(path, flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

std::string self_fd_path(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

bool is_nsfs(int fd) {
  struct statfs where{};
  return ::fstatfs(fd, &where) == 0 && where.f_type == NSFS_MAGIC;
}

bool plain_component(std::string_view name) {
  return !name.empty() && name.size() <= NAME_MAX && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

struct Task {
  const std::function<void()>* work = nullptr;
  int netns_fd = -1;  // negative: a new namespace
  int error = 0;
};

void* run_task(void* argument) {
  Task& task = *static_cast<Task*>(argument);
  const int entered =
      task.netns_fd < 0 ? ::unshare(CLONE_NEWNET) : ::setns(task.netns_fd, CLONE_NEWNET);
  if (entered != 0) {
    task.error = errno;
  } else {
    (*task.work)();
  }
  return nullptr;
}

Status run_in_thread(int netns_fd, const std::function<void()>& work) {
  Task task{.work = &work, .netns_fd = netns_fd};
  const char* const what = netns_fd < 0 ? "make a network namespace" : "enter network namespace";
  pthread_t thread;
  // Not std::thread, whose constructor throws when there is no room for one more.
  if (const int error = ::pthread_create(&thread, nullptr, run_task, &task); error != 0) {
    return fail_errno(std::string(what) + ": start thread", error);
  }
  ::pthread_join(thread, nullptr);
  if (task.error != 0) return fail_errno(what, task.error);
  return {};
}

// Opens without touching what lies there (a device or a pipe would react to open(2)), then
// opens again what proved to be a namespace.
Result<UniqueFd> open_nsfs(const std::string& path) {
  const UniqueFd found(open_retrying(path.c_str(), O_PATH));
  if (!found) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR || error == ESRCH) {
      return fail(ErrorCode::kNotFound, path + ": no such network namespace");
    }
    return fail_errno("open network namespace " + path, error);
  }
  if (!is_nsfs(found.get())) {
    return fail(ErrorCode::kInvalid, path + ": not a network namespace");
  }
  UniqueFd fd(open_retrying(self_fd_path(found.get()).c_str(), O_RDONLY));
  if (!fd) return fail_errno("open network namespace " + path, errno);
  return fd;
}

// As ip(8) prepares its directory: a shared mount, so that names made here are seen in
// every mount namespace that has it, and their removal too.
Status prepare_directory(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
    return fail_errno("make " + directory, errno);
  }
  const char* const path = directory.c_str();
  if (::mount("", path, "none", MS_SHARED | MS_REC, nullptr) == 0) return {};
  if (errno != EINVAL) return fail_errno("share " + directory, errno);
  // EINVAL: it is no mount point yet.
  if (::mount(path, path, "none", MS_BIND | MS_REC, nullptr) != 0) {
    return fail_errno("bind " + directory, errno);
  }
  if (::mount("", path, "none", MS_SHARED | MS_REC, nullptr) != 0) {
    return fail_errno("share " + directory, errno);
  }
  return {};
}

Result<std::string> sysctl_path(std::string_view key) {
  const auto bad = [key] {
    return fail(ErrorCode::kInvalid, "sysctl " + std::string(key) + ": not a path below net/");
  };
  if (!key.starts_with("net/")) return bad();
  for (std::size_t start = 0; start <= key.size();) {
    const std::size_t end = std::min(key.find('/', start), key.size());
    if (!plain_component(key.substr(start, end - start))) return bad();
    start = end + 1;
  }
  return "/proc/sys/" + std::string(key);
}

std::unexpected<Error> sysctl_failure(std::string_view verb, std::string_view key, int error) {
  const std::string what = std::string(verb) + " sysctl " + std::string(key);
  if (error == ENOENT) return fail(ErrorCode::kNotFound, what + ": no such setting");
  return fail_errno(what, error);
}

}  // namespace

std::string NetnsId::to_string() const { return "net:[" + std::to_string(ino) + "]"; }

Result<Netns> Netns::adopt(UniqueFd fd, std::string_view what) {
  const std::string name(what);
  if (!is_nsfs(fd.get()) || ::ioctl(fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    return fail(ErrorCode::kInvalid, name + ": not a network namespace");
  }
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(name, errno);
  return Netns(std::move(fd), NetnsId{.dev = status.st_dev, .ino = status.st_ino});
}

Result<Netns> Netns::open(const std::string& path) {
  UniqueFd fd = TRY(open_nsfs(path));
  return adopt(std::move(fd), path);
}

Result<Netns> Netns::open_handed_over(pid_t pid, int fd, std::uint64_t ino) {
  if (pid <= 0 || fd < 0) {
    return fail(ErrorCode::kInvalid, "network namespace: bad process id or descriptor");
  }
  const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
  Netns netns = TRY(open(path));
  if (netns.id().ino != ino) {
    return fail(ErrorCode::kInvalid, path + ": is " + netns.id().to_string() + ", expected inode " +
                                         std::to_string(ino));
  }
  return netns;
}

Result<std::uint64_t> netns_cookie(int socket) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  if (getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) != 0) {
    return fail_errno("ask for the cookie of a network namespace", errno);
  }
  return cookie;
}

Result<Netns> Netns::own() { return open("/proc/thread-self/ns/net"); }

Status run_in_netns(int netns_fd, const std::function<void()>& work) {
  if (netns_fd < 0) return fail(ErrorCode::kInvalid, "enter network namespace: no descriptor");
  return run_in_thread(netns_fd, work);
}

Result<Channel> open_channel_in(int netns_fd, Channel::Protocol protocol) {
  return call_in_netns(netns_fd, [protocol] { return Channel::open(protocol); });
}

Result<Netns> create_named_netns(const std::string& name, const std::string& directory) {
  if (!plain_component(name)) {
    return fail(ErrorCode::kInvalid, "network namespace name '" + name + "'");
  }
  CHECK_OK(prepare_directory(directory));
  const std::string path = directory + "/" + name;
  // The empty file is the mount point; O_EXCL makes the name ours alone.
  const UniqueFd place(open_retrying(path.c_str(), O_RDONLY | O_CREAT | O_EXCL, 0444));
  if (!place) {
    const int error = errno;
    if (error == EEXIST) return fail(ErrorCode::kConflict, path + ": exists already");
    return fail_errno("make " + path, error);
  }
  Result<Netns> made = fail(ErrorCode::kInternal, path);
  Status status = run_in_thread(-1, [&made] { made = Netns::own(); });
  if (status && !made) status = std::unexpected(made.error());
  if (status &&
      ::mount(self_fd_path(made->fd()).c_str(), path.c_str(), "none", MS_BIND, nullptr) != 0) {
    status = fail_errno("bind network namespace to " + path, errno);
  }
  if (!status) {
    ::unlink(path.c_str());
    return std::unexpected(std::move(status).error());
  }
  return made;
}

Result<bool> remove_named_netns(const std::string& name, const std::string& directory) {
  if (!plain_component(name)) {
    return fail(ErrorCode::kInvalid, "network namespace name '" + name + "'");
  }
  const std::string path = directory + "/" + name;
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return fail_errno("remove " + path, errno);
  }
  const UniqueFd found(open_retrying(path.c_str(), O_PATH | O_NOFOLLOW));
  const bool bound = found && is_nsfs(found.get());
  // An empty file is what a crash between creating and binding leaves.
  if (!bound && !(S_ISREG(status.st_mode) && status.st_size == 0)) {
    return fail(ErrorCode::kInvalid, path + ": not a name of a network namespace");
  }
  if (bound && ::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
    return fail_errno("unbind " + path, errno);
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno("remove " + path, errno);
  return true;
}

Result<std::string> read_sysctl(std::string_view key) {
  const std::string path = TRY(sysctl_path(key));
  const UniqueFd fd(open_retrying(path.c_str(), O_RDONLY));
  if (!fd) return sysctl_failure("read", key, errno);
  char buffer[256];  // numbers and short lists
  ssize_t got;
  do {
    got = ::read(fd.get(), buffer, sizeof buffer);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return sysctl_failure("read", key, errno);
  std::string value(buffer, static_cast<std::size_t>(got));
  while (!value.empty() && value.back() == '\n') value.pop_back();
  return value;
}

Status write_sysctl(std::string_view key, std::string_view value) {
  const std::string path = TRY(sysctl_path(key));
  const UniqueFd fd(open_retrying(path.c_str(), O_WRONLY));
  if (!fd) return sysctl_failure("write", key, errno);
  ssize_t put;
  do {
    put = ::write(fd.get(), value.data(), value.size());
  } while (put < 0 && errno == EINTR);
  if (put < 0) return sysctl_failure("write", key, errno);
  return {};
}

Result<SysctlChange> ensure_sysctl(std::string_view key, std::string_view value) {
  SysctlChange change{.before = TRY(read_sysctl(key))};
  if (change.before == value) return change;
  CHECK_OK(write_sysctl(key, value));
  change.changed = true;
  return change;
}

}  // namespace meshd::netlink
