// The store of a single controller: one SQLite file in a locked directory.
//
// Owns:       the directory's lock and the database connection.
// Invariants: what load() and changes_since() return was written by commit() bit for bit, or
//             they are an error: damage never opens anything.
// Errors:     after one, or a crash at any moment, the file holds a commit whole or not at all;
//             it may be tried again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/state_dir.h"
#include "controller/store.h"

struct sqlite3;
struct sqlite3_stmt;

namespace meshd::controller {

class SqliteStore final : public Store {
 public:
  static constexpr const char* kFile = "controller.db";

  [[nodiscard]] static Result<std::unique_ptr<SqliteStore>> open(const std::string& dir,
                                                                 const StoreOptions& options);

  [[nodiscard]] Result<Snapshot> load() override;
  [[nodiscard]] Result<std::uint64_t> commit(std::uint64_t expected, const Writes& writes) override;
  [[nodiscard]] Result<std::optional<Changes>> changes_since(std::uint64_t revision) override;
  [[nodiscard]] int notify_fd() const override { return -1; }
  bool drain_notifications() override { return false; }
  [[nodiscard]] Status backup(const std::string& path) override;

  // An empty store takes another's objects and revision, and becomes a file without a log
  // beside it.
  [[nodiscard]] Status become(const Snapshot& snapshot);

 private:
  struct Closer {
    void operator()(sqlite3* db) const;
    void operator()(sqlite3_stmt* statement) const;
  };
  using Statement = std::unique_ptr<sqlite3_stmt, Closer>;
  // Table state.
  struct State {
    std::uint64_t revision = 0, trimmed = 0, total = 0;
    std::uint64_t objects = 0;  // sum of their check sums
  };
  struct Statements {
    Statement put, drop, log, trim, oldest_kept, state;
  };

  SqliteStore(StateDir dir, std::unique_ptr<sqlite3, Closer> db, const StoreOptions& options);
  // store_sqlite_file.cc: the file as a whole.
  [[nodiscard]] Status identify();
  [[nodiscard]] Status configure();
  [[nodiscard]] Status check_pages();
  [[nodiscard]] Status migrate();
  [[nodiscard]] Status put_copy_aside(std::int64_t version);
  [[nodiscard]] Status run_steps(std::int64_t from);
  [[nodiscard]] Status copy_into(const std::string& path);

  [[nodiscard]] Status prepare_all();
  [[nodiscard]] Status read_state();
  [[nodiscard]] Status write(const Writes& writes, State& next);
  [[nodiscard]] Status write_object(const Write& write, State& next);
  [[nodiscard]] Status log_change(const Write& write, std::int64_t at, const State& next);
  [[nodiscard]] Status trim(State& next);
  [[nodiscard]] Status write_state(const State& next);
  [[nodiscard]] Status roll_back(Status outcome);

  [[nodiscard]] Result<Statement> prepare(std::string_view sql);
  [[nodiscard]] Status execute(const std::string& sql);
  [[nodiscard]] Result<std::int64_t> number(std::string_view sql);
  [[nodiscard]] std::unexpected<Error> failed(std::string_view what) const;
  [[nodiscard]] std::unexpected<Error> damaged(std::string_view how) const;

  StateDir dir_;
  std::unique_ptr<sqlite3, Closer> db_;
  StoreOptions options_;
  Statements statements_;  // after db_: closed before it
  State state_;
  bool unusable_ = false;  // a transaction could be neither finished nor undone
};

}  // namespace meshd::controller
