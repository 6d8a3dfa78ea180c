#include "engines/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "base/unique_fd.h"

namespace meshd::engines {
namespace {

constexpr std::size_t kPieceBytes = 64 << 10;

// Appends what comes next; false at the end.
Result<bool> read_some(int fd, std::string& text, std::size_t most) {
  if (text.size() > most) {
    return fail(ErrorCode::kExhausted, fmt::format("is longer than {} bytes", most));
  }
  const auto size = text.size();
  text.resize(size + kPieceBytes);
  ssize_t got = 0;
  while ((got = read(fd, text.data() + size, kPieceBytes)) < 0 && errno == EINTR) {
  }
  text.resize(size + static_cast<std::size_t>(got > 0 ? got : 0));
  if (got < 0) return fail_errno("read", errno);
  return got > 0;
}

Result<UniqueFd> open_plain(const std::string& path, int flags, struct stat& info) {
  UniqueFd fd(open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd || fstat(fd.get(), &info) != 0) return fail_errno(path, errno);
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kInvalid, path + ": is no plain file");
  return fd;
}

UniqueFd open_folder_below(int root, const std::string& folder) {
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(syscall(SYS_openat2, root, folder.c_str(), &how, sizeof how)));
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t most) {
  struct stat info{};
  const auto fd = TRY(open_plain(path, O_RDONLY, info));
  std::string text;
  while (true) {
    const auto more = read_some(fd.get(), text, most);
    if (!more) return std::unexpected(Error(more.error()).in(path));
    if (!*more) return text;
  }
}

Result<std::string> read_input(int fd, std::size_t most, TimePoint by) {
  std::string text;
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(by - BootClock::now());
    pollfd one{fd, POLLIN, 0};
    const int ready = left.count() > 0 ? poll(&one, 1, static_cast<int>(left.count())) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return fail(ErrorCode::kSystem, "standard input does not end");
    if (!TRY(read_some(fd, text, most))) return text;
  }
}

Status write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto wrote = write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return fail_errno("write", errno);
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return {};
}

Status replace_file(const std::string& path, std::string_view text) {
  struct stat info{};
  [[maybe_unused]] const auto there = TRY(open_plain(path, O_RDONLY, info));
  const auto next = fmt::format("{}.mesh.{}", path, getpid());
  const auto undone = [&](std::unexpected<Error> error) {
    unlink(next.c_str());
    return error;
  };
  unlink(next.c_str());
  const UniqueFd fd(open(next.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(next, errno);
  if (auto written = write_all(fd.get(), text); !written) {
    return undone(std::unexpected(std::move(written).error().in(next)));
  }
  if (fchown(fd.get(), info.st_uid, info.st_gid) != 0 ||
      fchmod(fd.get(), info.st_mode & 07777) != 0 || rename(next.c_str(), path.c_str()) != 0) {
    return undone(fail_errno("replace " + path, errno));
  }
  return {};
}

Status write_in_place(const std::string& path, std::string_view text) {
  struct stat info{};
  const auto fd = TRY(open_plain(path, O_WRONLY, info));
  if (auto written = write_all(fd.get(), text); !written) {
    return std::unexpected(std::move(written).error().in(path));
  }
  // Cut after the new text stands, so that a reader never finds the file empty.
  if (ftruncate(fd.get(), static_cast<off_t>(text.size())) != 0) return fail_errno(path, errno);
  return {};
}

Status put_file_below(const std::string& root, const std::string& folder, const std::string& name,
                      std::string_view text) {
  const auto path = fmt::format("{}/{}", root, folder);
  const UniqueFd top(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!top) return fail_errno(root, errno);
  auto into = open_folder_below(top.get(), folder);
  if (!into && errno == ENOENT && mkdirat(top.get(), folder.c_str(), 0755) == 0) {
    into = open_folder_below(top.get(), folder);
  }
  if (!into) return fail_errno(path, errno);
  const auto next = fmt::format(".{}.mesh", name);
  unlinkat(into.get(), next.c_str(), 0);
  const UniqueFd fd(
      openat(into.get(), next.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(path, errno);
  auto done = write_all(fd.get(), text);
  if (done && (fchmod(fd.get(), 0644) != 0 ||
               renameat(into.get(), next.c_str(), into.get(), name.c_str()) != 0)) {
    done = fail_errno(fmt::format("{}/{}", path, name), errno);
  }
  if (!done) unlinkat(into.get(), next.c_str(), 0);
  return done;
}

Status append_line(const std::string& path, std::string_view line) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(path, errno);
  return write_all(fd.get(), fmt::format("{}\n", line));
}

}  // namespace meshd::engines
