// A fresh network namespace for one test process, and commands run in it. Each TEST is a
// process of its own under ctest, so entering a namespace needs no way back.
//
// Owns:   nothing that outlives the process: the namespace goes with its last user.
// Errors: PrivateNetns::enter() says why there is none; a test then fails with that reason, as
//         without root where unprivileged user namespaces are switched off.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/result.h"

namespace meshd::test {

struct CommandResult {
  int exit_code = -1;
  std::string output;  // stdout and stderr together
};

// Runs a shell command in the calling thread's namespaces.
inline CommandResult run(const std::string& command) {
  CommandResult result;
  FILE* pipe = popen(("{ " + command + "\n} 2>&1").c_str(), "re");
  if (pipe == nullptr) return result;
  std::array<char, 65536> buffer;
  while (const std::size_t got = fread(buffer.data(), 1, buffer.size(), pipe)) {
    result.output.append(buffer.data(), got);
  }
  const int status = pclose(pipe);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  return result;
}

// Only the output; the command's failure is part of it.
inline std::string output_of(const std::string& command) {
  auto result = run(command);
  if (result.exit_code != 0) result.output += "[exit " + std::to_string(result.exit_code) + "]";
  return result.output;
}

class PrivateNetns {
 public:
  // Moves the calling process into a new network namespace with `lo` up; without root,
  // into a new user namespace first, as root there. Call before any thread is started.
  static Status enter() {
    const uid_t uid = geteuid();
    const gid_t gid = getegid();
    const int flags = CLONE_NEWNET | (uid == 0 ? 0 : CLONE_NEWUSER);
    if (unshare(flags) != 0) return fail_errno("unshare a network namespace", errno);
    if (uid != 0) {
      CHECK_OK(write_file("/proc/self/setgroups", "deny"));
      CHECK_OK(write_file("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1"));
      CHECK_OK(write_file("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1"));
    }
    const auto lo = run("ip link set lo up");
    if (lo.exit_code != 0) return fail(ErrorCode::kSystem, "ip link set lo up: " + lo.output);
    return {};
  }

 private:
  static Status write_file(const char* path, const std::string& text) {
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno(path, errno);
    const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    const int saved = errno;
    close(fd);
    if (!written) return fail_errno(path, saved);
    return {};
  }
};

}  // namespace meshd::test
