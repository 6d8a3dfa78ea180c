// The store of several equal controllers: three tables of a PostgreSQL database (schema
// meshd_controller), a commit a statement, and NOTIFY to wake the others.
//
// Owns:       two sessions: one that asks and commits, one that listens.
// Invariants: a commit is conditioned on the revision that it follows and bears an id of its
//             own, so that sending it again never applies it twice: after a broken connection
//             it is sent again, to whichever server takes writes by then, until it is clear
//             whether it was taken.
// Errors:     as controller/store.h has them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "controller/store.h"
#include "controller/store_pg.h"

namespace meshd::controller {

class PostgresStore final : public Store {
 public:
  [[nodiscard]] static Result<std::unique_ptr<PostgresStore>> open(const std::string& conninfo,
                                                                   const StoreOptions& options);

  [[nodiscard]] Result<Snapshot> load() override;
  [[nodiscard]] Result<std::uint64_t> commit(std::uint64_t expected, const Writes& writes) override;
  [[nodiscard]] Result<std::optional<Changes>> changes_since(std::uint64_t revision) override;
  [[nodiscard]] int notify_fd() const override { return wake_.get(); }
  bool drain_notifications() override;
  [[nodiscard]] Status backup(const std::string& path) override;
  [[nodiscard]] std::string warning() const override { return warning_; }

 private:
  // The revision that was seen last, and the id of the commit that made it.
  struct Seen {
    std::uint64_t revision = 0;
    Uuid id{};
  };
  // Attempts at something that may be away.
  struct Pace {
    Steady::time_point next{};
    std::chrono::milliseconds wait{};
    void failed(const StoreOptions& options);
  };
  struct Commit {
    std::uint64_t expected = 0;
    Uuid id{};
    std::vector<PgParam> params;
    Steady::time_point deadline;
    bool in_doubt = false;  // an earlier attempt may have been taken, or yet be
  };
  enum class Turn : std::uint8_t { kAgain, kTaken, kBehind };

  PostgresStore(std::string conninfo, const StoreOptions& options);
  [[nodiscard]] Result<PgSession*> session();
  [[nodiscard]] Status connect();
  [[nodiscard]] Status set_up(PgSession& session) const;
  [[nodiscard]] Status look_around(PgSession& session);
  [[nodiscard]] Status migrate(PgSession& session);
  [[nodiscard]] Status run_steps(PgSession& session);
  [[nodiscard]] Status check_tables(PgSession& session);
  [[nodiscard]] Result<PgRows> ask(const std::string& sql, const std::vector<PgParam>& params);
  void listen();
  [[nodiscard]] bool try_listen();
  void arm(std::chrono::milliseconds wait);

  [[nodiscard]] Commit prepared(std::uint64_t expected, const Writes& writes, const Uuid& id) const;
  // One attempt. An error is final.
  [[nodiscard]] Result<Turn> attempt(Commit& commit, std::string& why);
  [[nodiscard]] Result<Turn> look_up(Commit& commit, PgSession& session, std::string& why);

  std::string conninfo_;
  StoreOptions options_;
  PgSession session_, listener_;
  UniqueFd wake_, timer_;  // an epoll of the listener's socket and the timer
  Pace pace_, listen_pace_;
  std::string away_;  // why the last attempt to connect failed
  std::string warning_;
  std::optional<Uuid> identity_;  // of the tables
  std::optional<Seen> seen_;
};

}  // namespace meshd::controller
