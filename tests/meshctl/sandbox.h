// A directory in which a test may mount: a tmpfs in a mount namespace that only this
// process has. Each TEST is a process of its own under ctest, so there is no way back; in
// one process all tests share the namespace, which does no harm.
//
// Owns:   the tmpfs; the destructor detaches it with all that was mounted in it.
// Errors: make() says why there is none, such as no user namespaces for this user.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace meshd::ctl {

class MountSandbox {
 public:
  [[nodiscard]] static Result<std::unique_ptr<MountSandbox>> make() {
    CHECK_OK(enter());
    std::unique_ptr<MountSandbox> sandbox(new MountSandbox);
    if (mount("none", sandbox->path().c_str(), "tmpfs", 0, nullptr) != 0) {
      return fail_errno("mount a tmpfs", errno);
    }
    return sandbox;
  }
  MountSandbox(const MountSandbox&) = delete;
  MountSandbox& operator=(const MountSandbox&) = delete;
  ~MountSandbox() { umount2(path().c_str(), MNT_DETACH); }

  [[nodiscard]] const std::string& path() const { return dir_.path(); }
  [[nodiscard]] std::string operator/(std::string_view name) const { return dir_ / name; }

 private:
  MountSandbox() = default;

  static Status enter() {
    const auto uid = std::to_string(geteuid());
    const auto gid = std::to_string(getegid());
    const bool root = geteuid() == 0;
    if (unshare(CLONE_NEWNS | (root ? 0 : CLONE_NEWUSER)) != 0) {
      return fail_errno("unshare a mount namespace", errno);
    }
    if (!root) {
      CHECK_OK(put("/proc/self/setgroups", "deny"));
      CHECK_OK(put("/proc/self/uid_map", "0 " + uid + " 1"));
      CHECK_OK(put("/proc/self/gid_map", "0 " + gid + " 1"));
    }
    if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      return fail_errno("make mounts private", errno);
    }
    return {};
  }

  static Status put(const char* path, const std::string& text) {
    const UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
    if (!fd || write(fd.get(), text.data(), text.size()) < 0) return fail_errno(path, errno);
    return {};
  }

  TempDir dir_;
};

}  // namespace meshd::ctl
