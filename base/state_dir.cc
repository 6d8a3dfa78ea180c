#include "base/state_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

namespace meshd {
namespace {

constexpr const char* kLockName = "lock";

Status make_directory(const std::string& path) {
  std::error_code error;
  const auto parent = std::filesystem::path(path).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, error);
  if (error) return fail_errno("make " + parent.string(), error.value());
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno("make " + path, errno);
  return {};
}

Status check_directory(const std::string& path, int fd) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return fail_errno("look at " + path, errno);
  if (info.st_uid != geteuid()) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: owned by uid {}, not by us (uid {}): run as "
                                                 "its owner, chown it, or name another state_dir",
                                                 path, info.st_uid, geteuid()));
  }
  if ((info.st_mode & 022) != 0) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: others may write to it (mode {:04o}), so its files may be "
                            "theirs: look at them, then chmod 700",
                            path, info.st_mode & 07777));
  }
  // systemd makes 0755 unless told otherwise, and nothing was lost by that.
  if ((info.st_mode & 077) != 0 && fchmod(fd, 0700) != 0) {
    return fail_errno("close to others: " + path, errno);
  }
  return {};
}

Status check_info(const std::string& path, const struct stat& info) {
  const char* wrong = nullptr;
  if (!S_ISREG(info.st_mode)) {
    wrong = "not a plain file";
  } else if (info.st_uid != geteuid()) {
    wrong = "owned by somebody else";
  } else if (info.st_nlink != 1) {
    wrong = "has a second name (hard link)";
  } else if ((info.st_mode & 022) != 0) {
    wrong = "others may write to it";
  }
  if (wrong == nullptr) return {};
  return fail(ErrorCode::kInvalid,
              fmt::format("{}: {}: remove it after looking what it is", path, wrong));
}

}  // namespace

Result<StateDir> StateDir::open(const std::string& given, std::string_view program) {
  // "dir/" would follow a link that "dir" does not.
  const auto path = given.substr(0, given.find_last_not_of('/') + 1);
  CHECK_OK(make_directory(path));
  // The last component must not be a link: whoever could place one chose the target.
  UniqueFd dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!dir) {
    const bool not_a_directory = errno == ELOOP || errno == ENOTDIR;
    if (!not_a_directory) return fail_errno("open " + path, errno);
    return fail(ErrorCode::kInvalid, path + ": a link or a file, not a directory");
  }
  CHECK_OK(check_directory(path, dir.get()));
  std::error_code error;
  const auto real =
      std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", dir.get()), error);
  if (error) return fail_errno("find the full path of " + path, error.value());
  StateDir result(real.string(), std::move(dir));
  CHECK_OK(result.lock(program));
  return result;
}

Status StateDir::lock(std::string_view program) {
  CHECK_OK(make_file(kLockName));
  lock_.reset(openat(dir_.get(), kLockName, O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!lock_) return fail_errno("open " + file(kLockName), errno);
  std::array<char, 16> pid{};
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail_errno("lock " + file(kLockName), errno);
    const auto size = pread(lock_.get(), pid.data(), pid.size(), 0);
    const std::string_view holder(pid.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
    return fail(ErrorCode::kConflict, fmt::format("{}: another {} uses it (pid {})", path_, program,
                                                  holder.substr(0, holder.find('\n'))));
  }
  // Who holds it, for the message above only: the lock itself decides.
  const auto text = fmt::format("{}\n", getpid());
  if (ftruncate(lock_.get(), 0) != 0 || pwrite(lock_.get(), text.data(), text.size(), 0) < 0) {
    return fail_errno("write " + file(kLockName), errno);
  }
  return {};
}

std::string StateDir::file(std::string_view name) const {
  return fmt::format("{}/{}", path_, name);
}

Status StateDir::check_file(const std::string& name) const {
  struct stat info{};
  if (fstatat(dir_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return {};
    return fail_errno("look at " + file(name), errno);
  }
  return check_info(file(name), info);
}

Status StateDir::make_file(const std::string& name) const {
  const UniqueFd made(
      openat(dir_.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!made) {
    if (errno != EEXIST) return fail_errno("make " + file(name), errno);
    CHECK_OK(check_file(name));
    if (fchmodat(dir_.get(), name.c_str(), 0600, 0) == 0) return {};
    return fail_errno("close to others: " + file(name), errno);
  }
  if (fsync(dir_.get()) != 0) return fail_errno("sync " + path_, errno);
  return {};
}

Status StateDir::remove_file(const std::string& name) const {
  if (unlinkat(dir_.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    return fail_errno("remove " + file(name), errno);
  }
  return {};
}

Status StateDir::sync_file(const std::string& name) const {
  const UniqueFd fd(openat(dir_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno("open " + file(name), errno);
  if (fsync(fd.get()) != 0) return fail_errno("sync " + file(name), errno);
  if (fsync(dir_.get()) != 0) return fail_errno("sync " + path_, errno);
  return {};
}

}  // namespace meshd
