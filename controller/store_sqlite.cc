#include "controller/store_sqlite.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <cerrno>
#include <utility>

namespace meshd::controller {
namespace {

// FNV-1a: any single changed byte changes it. Not against malice: who can write the file may
// write the sums as well.
class Sum {
 public:
  explicit Sum(std::string_view table) { add(table); }
  Sum& add(std::uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) byte(static_cast<std::uint8_t>(number >> shift));
    return *this;
  }
  Sum& add(std::string_view bytes) {
    add(bytes.size());  // so that two fields do not run into one another
    for (const char c : bytes) byte(static_cast<std::uint8_t>(c));
    return *this;
  }
  Sum& add(const Write& write) {
    add(static_cast<std::uint64_t>(write.kind)).add(write.key);
    return write.value ? add(1).add(*write.value) : add(std::uint64_t{0});
  }
  [[nodiscard]] std::uint64_t value() const { return sum_; }

 private:
  void byte(std::uint8_t value) { sum_ = (sum_ ^ value) * 0x100000001b3; }
  std::uint64_t sum_ = 0xcbf29ce484222325;
};

std::uint64_t object_sum(std::uint64_t revision, const Write& write) {
  return Sum("objects").add(revision).add(write).value();
}
std::uint64_t change_sum(std::uint64_t revision, std::int64_t at, std::uint64_t total,
                         const Write& write) {
  return Sum("changes")
      .add(revision)
      .add(static_cast<std::uint64_t>(at))
      .add(total)
      .add(write)
      .value();
}

// One run of a cached statement; at its end the statement holds nothing, whatever became of it.
class Run {
 public:
  explicit Run(sqlite3_stmt* statement) : statement_(statement) {}
  ~Run() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  Run& bind(std::uint64_t number) {
    return note(sqlite3_bind_int64(statement_, ++at_, static_cast<std::int64_t>(number)));
  }
  // The write outlives the step that reads it: SQLITE_STATIC.
  Run& bind(const Write& write) {
    bind(static_cast<std::uint64_t>(write.kind));
    return note(sqlite3_bind_text64(statement_, ++at_, write.key.data(), write.key.size(),
                                    SQLITE_STATIC, SQLITE_UTF8));
  }
  Run& bind(const std::optional<std::string>& value) {
    if (!value) return note(sqlite3_bind_null(statement_, ++at_));
    return note(
        sqlite3_bind_blob64(statement_, ++at_, value->data(), value->size(), SQLITE_STATIC));
  }
  int step() { return error_ != SQLITE_OK ? error_ : sqlite3_step(statement_); }

 private:
  Run& note(int error) {
    if (error_ == SQLITE_OK) error_ = error;
    return *this;
  }
  sqlite3_stmt* statement_;
  int at_ = 0;
  int error_ = SQLITE_OK;
};

std::uint64_t number_at(sqlite3_stmt* statement, int column) {
  return static_cast<std::uint64_t>(sqlite3_column_int64(statement, column));
}

// Columns kind, key and value, from `first` on.
Write write_at(sqlite3_stmt* statement, int first) {
  const auto bytes = [&](int column) {
    const auto* const data = static_cast<const char*>(sqlite3_column_blob(statement, column));
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement, column));
    return data == nullptr ? std::string() : std::string(data, size);
  };
  Write write{static_cast<Kind>(sqlite3_column_int(statement, first)), bytes(first + 1), {}};
  if (sqlite3_column_type(statement, first + 2) != SQLITE_NULL) write.value = bytes(first + 2);
  return write;
}

}  // namespace

// --- SQLite --------------------------------------------------------------------------

void SqliteStore::Closer::operator()(sqlite3* db) const { sqlite3_close_v2(db); }
void SqliteStore::Closer::operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }

std::unexpected<Error> SqliteStore::damaged(std::string_view how) const {
  return fail(ErrorCode::kInvalid,
              fmt::format("{0} is damaged: {1}. Put a backup back in its place, with {0}-wal moved "
                          "away: what nodes run is then as they report it",
                          dir_.file(kFile), how));
}

std::unexpected<Error> SqliteStore::failed(std::string_view what) const {
  const int code = sqlite3_errcode(db_.get()) & 0xff;  // without the extended part
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return damaged(sqlite3_errmsg(db_.get()));
  auto text = fmt::format("{}: {}: {}", dir_.file(kFile), what, sqlite3_errmsg(db_.get()));
  if (code == SQLITE_READONLY) return fail_errno(std::move(text), EROFS);
  // Only these say that a system call failed; with others the errno is an old one.
  if (code != SQLITE_IOERR && code != SQLITE_FULL && code != SQLITE_CANTOPEN) {
    return fail(ErrorCode::kInternal, std::move(text));
  }
  const int sys_errno = sqlite3_system_errno(db_.get());
  if (sys_errno != 0) return fail_errno(std::move(text), sys_errno);
  return fail_errno(std::move(text), code == SQLITE_FULL ? ENOSPC : EIO);
}

Status SqliteStore::execute(const std::string& sql) {
  if (sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    return failed(sql.substr(0, sql.find_first_of("\n(")));
  }
  return {};
}

Result<SqliteStore::Statement> SqliteStore::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int error = sqlite3_prepare_v3(db_.get(), sql.data(), static_cast<int>(sql.size()),
                                       SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  // Our SQL is constant: what it names can only be missing from a damaged file.
  if (error == SQLITE_ERROR) return damaged(sqlite3_errmsg(db_.get()));
  if (error != SQLITE_OK) return failed("prepare");
  return Statement(statement);
}

Result<std::int64_t> SqliteStore::number(std::string_view sql) {
  const auto statement = TRY(prepare(sql));
  if (sqlite3_step(statement.get()) != SQLITE_ROW) return failed(sql);
  return sqlite3_column_int64(statement.get(), 0);
}

Status SqliteStore::prepare_all() {
  statements_.put =
      TRY(prepare("INSERT INTO objects(revision,sum,kind,key,value) VALUES(?,?,?,?,?)"));
  statements_.drop = TRY(prepare("DELETE FROM objects WHERE kind=? AND key=? RETURNING sum"));
  statements_.log = TRY(
      prepare("INSERT INTO changes(revision,at,total,sum,kind,key,value) VALUES(?,?,?,?,?,?,?)"));
  statements_.oldest_kept =
      TRY(prepare("SELECT revision FROM changes WHERE total<=? ORDER BY total DESC LIMIT 1"));
  statements_.trim = TRY(prepare("DELETE FROM changes WHERE revision<=?"));
  statements_.state = TRY(prepare("UPDATE state SET revision=?,trimmed=?,total=?,objects=?,sum=?"));
  return {};
}

// --- reading -------------------------------------------------------------------------

Status SqliteStore::read_state() {
  const auto sql = TRY(prepare("SELECT revision,trimmed,total,objects,sum FROM state"));
  if (sqlite3_step(sql.get()) != SQLITE_ROW) {
    if (sqlite3_errcode(db_.get()) == SQLITE_DONE) return damaged("table state is empty");
    return failed("read table state");
  }
  const auto at = [&](int column) { return number_at(sql.get(), column); };
  state_ = {at(0), at(1), at(2), at(3)};
  const auto sum = Sum("state").add(at(0)).add(at(1)).add(at(2)).add(at(3)).value();
  if (sum != at(4)) return damaged("table state: wrong check sum");
  return {};
}

Result<Store::Snapshot> SqliteStore::load() {
  Snapshot snapshot{state_.revision, {}};
  const auto sql =
      TRY(prepare("SELECT revision,sum,kind,key,value FROM objects ORDER BY kind,key"));
  std::uint64_t total = 0;
  int step = SQLITE_ROW;
  while ((step = sqlite3_step(sql.get())) == SQLITE_ROW) {
    auto object = write_at(sql.get(), 2);
    const auto sum = object_sum(number_at(sql.get(), 0), object);
    if (!object.value || sum != number_at(sql.get(), 1)) {
      return damaged("table objects: wrong check sum");
    }
    total += sum;
    snapshot.objects.push_back(std::move(object));
  }
  if (step != SQLITE_DONE) return failed("read table objects");
  if (total != state_.objects) return damaged("objects are missing or too many");
  return snapshot;
}

Result<std::optional<Store::Changes>> SqliteStore::changes_since(std::uint64_t revision) {
  if (revision < state_.trimmed || revision > state_.revision) return std::nullopt;
  Changes changes{state_.revision, {}};
  const auto sql =
      TRY(prepare("SELECT revision,at,total,sum,kind,key,value FROM changes WHERE revision>? "
                  "ORDER BY revision,at"));
  Run run(sql.get());
  run.bind(revision);
  std::uint64_t last = revision;
  int step = SQLITE_ROW;
  while ((step = run.step()) == SQLITE_ROW) {
    auto write = write_at(sql.get(), 4);
    const auto at = number_at(sql.get(), 0);
    const auto sum =
        change_sum(at, sqlite3_column_int64(sql.get(), 1), number_at(sql.get(), 2), write);
    if (sum != number_at(sql.get(), 3)) return damaged("table changes: wrong check sum");
    if (at > last + 1) return damaged(fmt::format("the changes of revision {} are gone", last + 1));
    last = at;
    changes.writes.push_back(std::move(write));
  }
  if (step != SQLITE_DONE) return failed("read table changes");
  if (last != state_.revision) return damaged(fmt::format("no changes after revision {}", last));
  return changes;
}

// --- writing -------------------------------------------------------------------------

Result<std::uint64_t> SqliteStore::commit(std::uint64_t expected, const Writes& writes) {
  if (writes.empty()) return expected;
  CHECK_OK(check_writes(writes));
  if (expected != state_.revision) {
    return fail(ErrorCode::kConflict,
                fmt::format("store: revision {} is behind {}", expected, state_.revision));
  }
  if (unusable_) {
    return fail(ErrorCode::kInternal,
                dir_.file(kFile) + ": unusable since an earlier error: restart mesh-controller");
  }
  State next = state_;
  ++next.revision;
  next.total += logged_bytes(writes);
  auto status = roll_back(write(writes, next));
  if (!status) {
    return std::unexpected(
        std::move(status).error().in(fmt::format("store revision {}", next.revision)));
  }
  state_ = next;
  return next.revision;
}

Status SqliteStore::write(const Writes& writes, State& next) {
  CHECK_OK(execute("BEGIN IMMEDIATE"));
  std::int64_t at = 0;
  for (const auto& write : writes) {
    CHECK_OK(write_object(write, next));
    CHECK_OK(log_change(write, at++, next));
  }
  CHECK_OK(trim(next));
  CHECK_OK(write_state(next));
  return execute("COMMIT");
}

Status SqliteStore::write_object(const Write& write, State& next) {
  // A row is replaced by dropping it first: that tells the sum which leaves the total.
  {
    Run run(statements_.drop.get());
    run.bind(write);
    int step = SQLITE_ROW;
    while ((step = run.step()) == SQLITE_ROW) next.objects -= number_at(statements_.drop.get(), 0);
    if (step != SQLITE_DONE) return failed("write");
  }
  if (!write.value) return {};
  const auto sum = object_sum(next.revision, write);
  Run run(statements_.put.get());
  if (run.bind(next.revision).bind(sum).bind(write).bind(write.value).step() != SQLITE_DONE) {
    return failed("write");
  }
  next.objects += sum;
  return {};
}

Status SqliteStore::log_change(const Write& write, std::int64_t at, const State& next) {
  Run run(statements_.log.get());
  run.bind(next.revision).bind(static_cast<std::uint64_t>(at)).bind(next.total);
  run.bind(change_sum(next.revision, at, next.total, write)).bind(write).bind(write.value);
  if (run.step() != SQLITE_DONE) return failed("write");
  return {};
}

// The last commit's changes always stay.
Status SqliteStore::trim(State& next) {
  auto upto = next.trimmed;
  if (next.revision > options_.kept_revisions) {
    upto = std::max(upto, next.revision - options_.kept_revisions);
  }
  if (next.total > options_.kept_bytes) {
    Run run(statements_.oldest_kept.get());
    const int step = run.bind(next.total - options_.kept_bytes).step();
    if (step == SQLITE_ROW) upto = std::max(upto, number_at(statements_.oldest_kept.get(), 0));
    if (step != SQLITE_ROW && step != SQLITE_DONE) return failed("read table changes");
  }
  if (upto == next.trimmed) return {};
  next.trimmed = upto;
  Run run(statements_.trim.get());
  if (run.bind(upto).step() != SQLITE_DONE) return failed("write");
  return {};
}

Status SqliteStore::write_state(const State& next) {
  Run run(statements_.state.get());
  Sum sum("state");
  for (const auto number : {next.revision, next.trimmed, next.total, next.objects}) {
    run.bind(number);
    sum.add(number);
  }
  if (run.bind(sum.value()).step() != SQLITE_DONE) return failed("write");
  return {};
}

Status SqliteStore::become(const Snapshot& snapshot) {
  State next;
  next.revision = next.trimmed = snapshot.revision;
  const auto all = [&]() -> Status {
    CHECK_OK(execute("BEGIN IMMEDIATE"));
    for (const auto& object : snapshot.objects) CHECK_OK(write_object(object, next));
    CHECK_OK(write_state(next));
    return execute("COMMIT");
  };
  CHECK_OK(roll_back(all()));
  state_ = next;
  return execute("PRAGMA journal_mode=DELETE");
}

// Passes a transaction's outcome on; of a failed one nothing stays behind.
Status SqliteStore::roll_back(Status outcome) {
  if (outcome || sqlite3_get_autocommit(db_.get()) != 0) return outcome;
  // SQLite has rolled back by itself after most I/O errors; what is left open is ended here.
  if (!execute("ROLLBACK") || sqlite3_get_autocommit(db_.get()) == 0) unusable_ = true;
  return outcome;
}

}  // namespace meshd::controller
