// PostgreSQL servers of a test's own: made once a process, run as a user without privileges,
// reached by sockets in a directory of theirs, gone with it however the test ends.
//
// Threads: start servers from the main thread: they end with the thread that started them.
// Source:  postgresql.org/docs/15/server-shutdown.html.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <signal.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "controller/store_pg.h"
#include "tests/support/temp_dir.h"
#include "tests/support/unprivileged.h"

namespace meshd {

// The programs of the newest version that is installed; empty: none is.
inline std::string postgres_programs() {
  std::string best;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", error)) {
    const auto bin = entry.path().string() + "/bin/";
    if (access((bin + "initdb").c_str(), X_OK) == 0 && bin > best) best = bin;
  }
  return best;
}

// Where the servers live. A helper waits for the end of this process and clears it away even
// when that was a kill.
class PostgresHome {
 public:
  PostgresHome() {
    const auto* const user = geteuid() != 0 ? nullptr : getpwnam("nobody");
    if (user != nullptr && chown(dir_.path().c_str(), user->pw_uid, user->pw_gid) != 0) abort();
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) abort();
    const pid_t child = fork();
    if (child == 0) {
      close(ends[1]);
      signal(SIGINT, SIG_IGN);
      char byte = 0;
      while (read(ends[0], &byte, 1) > 0) {
      }
      std::error_code error;
      for (int i = 0; i < 50 && std::filesystem::exists(dir_.path(), error); ++i) {
        std::filesystem::remove_all(dir_.path(), error);  // servers may be writing yet
        usleep(100'000);
      }
      _exit(0);
    }
    close(ends[0]);
    alive_.reset(ends[1]);
    made_ = exit_of(spawn_unprivileged(
                {postgres_programs() + "initdb", "-D", dir_ / "new", "-U", "mesh", "-A", "trust",
                 "--no-sync", "--no-locale", "-E", "UTF8", "--wal-segsize=1", "--no-instructions"},
                SIGKILL, dir_ / "log")) == 0;
  }
  // Empty: it could be made; else why not.
  [[nodiscard]] std::string problem() const {
    if (made_) return {};
    std::ifstream log(dir_ / "log");
    return "initdb (package postgresql-15): " +
           std::string(std::istreambuf_iterator<char>(log), {});
  }
  [[nodiscard]] std::string operator/(const std::string& name) const { return dir_ / name; }
  // A server's directory, as initdb leaves it.
  [[nodiscard]] bool make(const std::string& name) const {
    return exit_of(spawn_unprivileged({"/bin/cp", "-a", dir_ / "new", dir_ / name}, SIGKILL,
                                      dir_ / "log")) == 0;
  }

 private:
  TempDir dir_{TempDir::memory()};
  UniqueFd alive_;
  bool made_ = false;
};

class PostgresServer {
 public:
  using Settings = std::map<std::string, std::string>;

  PostgresServer(const PostgresHome& home, const std::string& name, Settings settings = {})
      : programs_(postgres_programs()), dir_(home / name), settings_(std::move(settings)) {
    if (!home.make(name)) abort();
  }
  ~PostgresServer() { kill_hard(); }
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;

  // Follows `primary`, of whose first moment it is a copy.
  void follow(const PostgresServer& primary) {
    settings_["primary_conninfo"] =
        fmt::format("host={} user=mesh application_name=standby", primary.dir_);
    std::ofstream(dir_ + "/standby.signal") << "";
  }
  // True once it answers.
  [[nodiscard]] bool start() {
    std::vector<std::string> command = {programs_ + "postgres", "-D", dir_, "-k", dir_};
    Settings all = {{"listen_addresses", ""},
                    {"dynamic_shared_memory_type", "mmap"},
                    {"shared_buffers", "8MB"},
                    {"port", "5432"},
                    {"unix_socket_permissions", "0777"},
                    {"wal_keep_size", "64"},
                    {"wal_retrieve_retry_interval", "200ms"}};
    for (const auto& [key, value] : settings_) all[key] = value;
    for (const auto& [key, value] : all) command.insert(command.end(), {"-c", key + "=" + value});
    process_ = spawn_unprivileged(command, SIGQUIT, dir_ + "/log");
    for (int i = 0; i < 600; ++i) {
      if (ask("SELECT 1")) return true;
      if (waitpid(process_, nullptr, WNOHANG) == process_) break;
      usleep(50'000);
    }
    return false;
  }
  // kill -9 of all its processes at once, as a machine that dies.
  void kill_hard() {
    if (process_ <= 0) return;
    std::string line;
    std::ifstream pid_file(dir_ + "/postmaster.pid");
    for (int i = 0; i < 7; ++i) std::getline(pid_file, line);  // "KEY SHMID"
    const auto children_of = fmt::format("/proc/{0}/task/{0}/children", static_cast<int>(process_));
    std::ifstream children(children_of);
    std::vector<pid_t> all = {process_};
    for (pid_t child = 0; children >> child;) all.push_back(child);
    for (const auto process : all) kill(process, SIGKILL);
    exit_of(process_);
    process_ = -1;
    const auto space = line.find_last_of(' ');
    if (space != std::string::npos) remove_shared(std::atoi(line.c_str() + space));
  }
  // What an administrator would say to it. The first column of the first row, as it comes.
  [[nodiscard]] Result<std::string> ask(const std::string& sql) const {
    using namespace std::chrono_literals;
    auto session = TRY(
        controller::PgSession::connect(conninfo() + " target_session_attrs=any", {30s, 30s, 30s}));
    const auto rows = TRY(session.run(sql));
    return rows.size() == 0 ? std::string() : std::string(rows.bytes(0, 0));
  }
  [[nodiscard]] std::string conninfo() const { return "dbname=postgres user=mesh host=" + dir_; }
  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] std::string log() const {
    std::ifstream in(dir_ + "/log");
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  // Once nobody is attached: the children end a moment after the kill, and until then no server
  // starts in that directory.
  static void remove_shared(int id) {
    shmid_ds state{};
    for (int i = 0; i < 1000 && shmctl(id, IPC_STAT, &state) == 0 && state.shm_nattch > 0; ++i) {
      usleep(10'000);
    }
    shmctl(id, IPC_RMID, nullptr);
  }

  std::string programs_, dir_;
  Settings settings_;
  pid_t process_ = -1;
};

}  // namespace meshd
