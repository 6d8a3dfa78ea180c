#include "meshctl/resolv_conf.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/unique_fd.h"
#include "meshctl/io.h"

namespace meshd::ctl {
namespace {

Status fill(int fd, std::string_view text, const std::string& path) {
  if (auto written = write_all(fd, text); !written) {
    return fail_errno("write " + path, written.error().sys_errno);
  }
  return {};
}

// The kernel refuses to rename over a mount point, so this one file cannot be swapped. It
// is cut to length after the new text stands, so a reader never finds it empty.
Status write_in_place(const std::string& path, std::string_view text) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return fail_errno(path, errno);
  struct stat info{};
  if (fstat(fd.get(), &info) != 0) return fail_errno(path, errno);
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kInvalid, path + ": not a regular file");
  CHECK_OK(fill(fd.get(), text, path));
  if (ftruncate(fd.get(), static_cast<off_t>(text.size())) != 0) {
    return fail_errno("write " + path, errno);
  }
  return {};
}

Status write_new(const std::string& path, std::string_view text) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(path, errno);
  auto status = fill(fd.get(), text, path);
  // The container's user reads it, whatever our umask is.
  if (status && fchmod(fd.get(), 0644) != 0) status = fail_errno("chmod " + path, errno);
  if (!status) unlink(path.c_str());
  return status;
}

}  // namespace

std::string render_resolv_conf(const ResolvConf& conf) {
  std::string text = "# written by meshctl attach\n";
  const auto count = std::min(conf.nameservers.size(), kMaxNameservers);
  for (std::size_t i = 0; i < count; ++i) {
    text += fmt::format("nameserver {}\n", conf.nameservers[i]);
  }
  if (!conf.search.empty()) text += fmt::format("search {}\n", fmt::join(conf.search, " "));
  // ndots:1: names with a dot go out as they are first. The node's resolver is one hop
  // away, so two tries of two seconds are plenty and a dead one is noticed soon.
  text += "options ndots:1 timeout:2 attempts:2\n";
  return text;
}

Status write_resolv_conf(const std::string& path, const ResolvConf& conf) {
  const auto text = render_resolv_conf(conf);
  const auto temporary = fmt::format("{}.meshctl.{}", path, getpid());
  unlink(temporary.c_str());  // of an earlier process with our number that was killed here
  if (auto made = write_new(temporary, text); !made) {
    // A file that is writable in a directory that is not is a mount point as well.
    if (made.error().sys_errno == EROFS) return write_in_place(path, text);
    return made;
  }
  if (rename(temporary.c_str(), path.c_str()) == 0) return {};
  const int error = errno;
  unlink(temporary.c_str());
  if (error == EBUSY) return write_in_place(path, text);
  return fail_errno("replace " + path, error);
}

}  // namespace meshd::ctl
