// The stand-in of the API (tests/e2e/arvados_api.py) as a program of the test's own: started,
// told what to be, and gone with the test however it ends.
//
// Threads: start it from the main thread: it ends with the thread that started it.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace meshd::arvados {

// The output of a program that ends by itself is not looked at.
inline int run_program(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (freopen("/dev/null", "w", stderr) == nullptr) _exit(126);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// A certificate for `name` that vouches for itself, and its key, in `folder`.
inline void make_certificate(const TempDir& folder, const std::string& file,
                             const std::string& name) {
  ASSERT_EQ(run_program({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                         "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=test",
                         "-addext", "subjectAltName=" + name, "-keyout", folder / (file + ".key"),
                         "-out", folder / (file + ".pem")}),
            0)
      << "openssl (package openssl)";
}

class ApiServer {
 public:
  // `name`: whom its certificate is for.
  explicit ApiServer(const std::string& name = "IP:127.0.0.1") {
    make_certificate(dir_, "api", name);
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) abort();
    const pid_t parent = getpid();
    const auto key = dir_ / "api.key";
    const auto cert = ca_file();
    process_ = fork();
    if (process_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(126);
      dup2(to[0], STDIN_FILENO);
      dup2(from[1], STDOUT_FILENO);
      execlp("python3", "python3", "-B", "tests/e2e/arvados_api.py", "--cert", cert.c_str(),
             "--key", key.c_str(), nullptr);
      _exit(127);
    }
    in_.reset(to[1]);
    out_.reset(from[0]);
    close(to[0]);
    close(from[1]);
    const auto first = line();
    port_ = std::atoi(first.substr(first.find(':') + 1).c_str());
    EXPECT_GT(port_, 0) << first;
  }
  ~ApiServer() {
    kill(process_, SIGKILL);
    while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  [[nodiscard]] std::string host() const { return fmt::format("127.0.0.1:{}", port_); }
  [[nodiscard]] std::string ca_file() const { return dir_ / "api.pem"; }
  [[nodiscard]] const TempDir& dir() const { return dir_; }
  [[nodiscard]] int port() const { return port_; }

  // A command with its arguments as JSON, and what it answers.
  std::string tell(const std::string& command, const std::string& args = "",
                   const std::string& with = "") {
    const auto text =
        fmt::format(R"({{"do":"{}","args":[{}],"with":{{{}}}}})", command, args, with) + "\n";
    EXPECT_EQ(write(in_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    return line();
  }
  // `fields` beside the uuid.
  void put(const std::string& kind, const std::string& uuid, const std::string& fields = "") {
    tell("put", '"' + kind + '"',
         fmt::format(R"("uuid":"{}"{}{})", uuid, fields.empty() ? "" : ",", fields));
  }
  void token(const std::string& token, const std::string& user, const std::string& more = "") {
    tell("token", fmt::format(R"("{}","{}")", token, user), more);
  }
  void permit(const std::string& user, const std::string& target, const std::string& level) {
    tell("permit", fmt::format(R"("{}","{}","{}")", user, target, level));
  }
  void fault(const std::string& kind, const std::string& how = "") {
    tell("fault", '"' + kind + '"', how);
  }
  std::string asked() { return tell("take_asked"); }

 private:
  std::string line() {
    for (;;) {
      if (const auto end = read_.find('\n'); end != std::string::npos) {
        auto text = read_.substr(0, end);
        read_.erase(0, end + 1);
        return text;
      }
      pollfd wait{out_.get(), POLLIN, 0};
      if (poll(&wait, 1, 30'000) <= 0) return "<nothing came>";
      char bytes[65536];
      const auto got = read(out_.get(), bytes, sizeof bytes);
      if (got <= 0) return "<it ended>";
      read_.append(bytes, static_cast<std::size_t>(got));
    }
  }

  TempDir dir_;
  UniqueFd in_, out_;
  std::string read_;
  pid_t process_ = -1;
  int port_ = 0;
};

}  // namespace meshd::arvados
