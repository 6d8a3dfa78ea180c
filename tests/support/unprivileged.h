// Programs that a test runs as a user without privileges.
//
// Threads: a program ends with the thread that started it.
// Source:  prctl(2) PR_SET_PDEATHSIG.
#pragma once

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <vector>

namespace meshd {

// A child that gives up root, and ends by `signal` when this process does.
inline pid_t spawn_unprivileged(const std::vector<std::string>& command, int signal,
                                const std::string& output) {
  const auto* const user = geteuid() != 0 ? nullptr : getpwnam("nobody");
  std::vector<char*> arguments;
  for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child != 0) return child;
  if (user != nullptr &&
      (setgroups(0, nullptr) != 0 || setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0)) {
    _exit(126);
  }
  prctl(PR_SET_PDEATHSIG, signal);
  const int log = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (getppid() != parent || log < 0 || chdir("/") != 0) _exit(126);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  setenv("LC_ALL", "C", 1);
  execv(arguments[0], arguments.data());
  _exit(127);
}

inline int exit_of(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace meshd
