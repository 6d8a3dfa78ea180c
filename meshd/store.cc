#include "meshd/store.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/random.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <fstream>
#include <utility>

#include "meshd/schema.h"
#include "meshd/store_rows.h"

namespace meshd {
namespace {

constexpr const char* kFile = "meshd.db";
// The write-ahead log is cut back to this after a checkpoint; one of SQLite's default
// 1000 pages is as large.
constexpr int kWalBytes = 4 * 1024 * 1024;

Result<std::string> this_boot() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  if (!(file >> id)) return fail_errno("read the kernel's boot id", errno != 0 ? errno : EIO);
  return id;
}

// RFC 4193 section 3.2.2 asks for 40 random bits; the kernel's generator is the best source.
Result<Prefix> draw_ula() {
  std::array<std::uint8_t, 16> bytes{};
  bytes[0] = 0xfd;
  const auto got = getrandom(bytes.data() + 1, 5, 0);
  if (got != 5) return fail_errno("draw a ULA prefix", got < 0 ? errno : EIO);
  return Prefix::of(IpAddress::v6(bytes), 48);
}

int bind_row(sqlite3_stmt* statement, const Row& row) {
  int error = SQLITE_OK;
  for (std::size_t i = 0; i < row.size() && error == SQLITE_OK; ++i) {
    const int at = static_cast<int>(i) + 1;
    const auto& value = row[i];
    // SQLITE_STATIC: the row outlives the step that reads it.
    if (const auto* n = std::get_if<std::int64_t>(&value)) {
      error = sqlite3_bind_int64(statement, at, *n);
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      error = sqlite3_bind_text64(statement, at, text->data(), text->size(), SQLITE_STATIC,
                                  SQLITE_UTF8);
    } else if (const auto* blob = std::get_if<Blob>(&value)) {
      error =
          sqlite3_bind_blob64(statement, at, blob->bytes.data(), blob->bytes.size(), SQLITE_STATIC);
    } else {
      error = sqlite3_bind_null(statement, at);
    }
  }
  return error;
}

Value column(sqlite3_stmt* statement, int at) {
  const auto size = [&] { return static_cast<std::size_t>(sqlite3_column_bytes(statement, at)); };
  switch (sqlite3_column_type(statement, at)) {
    case SQLITE_INTEGER:
      return std::int64_t{sqlite3_column_int64(statement, at)};
    case SQLITE_TEXT: {
      const auto* const data = reinterpret_cast<const char*>(sqlite3_column_text(statement, at));
      return data == nullptr ? std::string() : std::string(data, size());
    }
    case SQLITE_BLOB: {
      const auto* const data = static_cast<const char*>(sqlite3_column_blob(statement, at));
      return data == nullptr ? Blob{} : Blob{std::string(data, size())};
    }
    default:
      return std::monostate{};
  }
}

Row columns(sqlite3_stmt* statement) {
  Row row;
  const int count = sqlite3_column_count(statement);
  for (int i = 0; i < count; ++i) row.push_back(column(statement, i));
  return row;
}

// Splits the check sum off; -1, which is none, when a damaged file holds something else.
std::int64_t take_sum(Row& row) {
  const auto* const sum = std::get_if<std::int64_t>(&row.back());
  const std::int64_t result = sum == nullptr ? -1 : *sum;
  row.pop_back();
  return result;
}

// Ends a cached statement's run whatever became of it, so that it holds nothing.
class Run {
 public:
  explicit Run(sqlite3_stmt* statement) : statement_(statement) {}
  ~Run() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  int step() { return sqlite3_step(statement_); }

 private:
  sqlite3_stmt* statement_;
};

// SQLITE_DONE, or the error. The sums of what went leave the total.
int drop_rows(sqlite3_stmt* statement, const Row& key, std::int64_t& total) {
  Run run(statement);
  int step = bind_row(statement, key);
  if (step != SQLITE_OK) return step;
  while ((step = run.step()) == SQLITE_ROW) total -= sqlite3_column_int64(statement, 0);
  return step;
}

std::string put_sql(const schema::TableInfo& table) {
  std::string marks;
  for (const char c : table.columns) marks += c == ',' ? "?," : "";
  return fmt::format("INSERT INTO {}({},sum) VALUES({}?,?)", table.name, table.columns, marks);
}

// Drops what agrees in the first `keys` columns.
std::string drop_sql(const schema::TableInfo& table, std::size_t keys) {
  std::string where;
  std::string_view rest = table.columns;
  for (std::size_t i = 0; i < keys; ++i) {
    const auto end = rest.find(',');
    where += fmt::format("{}{}=?", i == 0 ? "" : " AND ", rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return fmt::format("DELETE FROM {} WHERE {} RETURNING sum", table.name, where);
}

Row node_row(std::uint64_t generation, const Prefix& ula, const std::string& boot_id,
             std::int64_t total) {
  const auto bytes = ula.address().bytes();
  return {static_cast<std::int64_t>(generation), Blob{{bytes.begin(), bytes.end()}}, boot_id,
          total};
}

}  // namespace

// --- SQLite --------------------------------------------------------------------------

void Store::Closer::operator()(sqlite3* db) const { sqlite3_close_v2(db); }
void Store::Closer::operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }

std::unexpected<Error> Store::damaged(std::string_view how) const {
  return fail(ErrorCode::kInvalid,
              fmt::format("{0} is damaged: {1}. Put a copy back, or move {0} and {0}-wal away: "
                          "the node then starts empty, and what ran on it must be declared and "
                          "attached again",
                          dir_.file(kFile), how));
}

std::unexpected<Error> Store::failed(std::string_view what) const {
  const int code = sqlite3_errcode(db_.get()) & 0xff;  // without the extended part
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return damaged(sqlite3_errmsg(db_.get()));
  auto text = fmt::format("{}: {}: {}", dir_.file(kFile), what, sqlite3_errmsg(db_.get()));
  // Only these say that a system call failed; with others the errno is an old one.
  if (code != SQLITE_IOERR && code != SQLITE_FULL && code != SQLITE_CANTOPEN) {
    return fail(ErrorCode::kInternal, std::move(text));
  }
  const int sys_errno = sqlite3_system_errno(db_.get());
  if (sys_errno != 0) return fail_errno(std::move(text), sys_errno);
  return fail_errno(std::move(text), code == SQLITE_FULL ? ENOSPC : EIO);
}

Status Store::execute(const std::string& sql) {
  if (sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    return failed(sql.substr(0, sql.find_first_of("\n(")));
  }
  return {};
}

Result<Store::Statement> Store::prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const int error = sqlite3_prepare_v3(db_.get(), sql.c_str(), static_cast<int>(sql.size()),
                                       SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  // Our SQL is constant: what it names can only be missing from a damaged file.
  if (error == SQLITE_ERROR) return damaged(sqlite3_errmsg(db_.get()));
  if (error != SQLITE_OK) return failed("prepare");
  return Statement(statement);
}

Result<std::int64_t> Store::number(const std::string& sql) {
  const auto statement = TRY(prepare(sql));
  if (sqlite3_step(statement.get()) != SQLITE_ROW) return failed(sql);
  return sqlite3_column_int64(statement.get(), 0);
}

// --- opening -------------------------------------------------------------------------

Store::Store(StateDir dir, std::unique_ptr<sqlite3, Closer> db)
    : dir_(std::move(dir)), db_(std::move(db)) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&& other) noexcept {
  writes_ = std::move(other.writes_);  // ours are closed before our connection
  db_ = std::move(other.db_);
  dir_ = std::move(other.dir_);
  generation_ = other.generation_;
  total_ = other.total_;
  boot_id_ = std::move(other.boot_id_);
  ula_ = other.ula_;
  unusable_ = other.unusable_;
  return *this;
}
Store::~Store() = default;

Result<Store> Store::open(const std::string& path, const StoreOptions& options) {
  StoreOptions chosen = options;
  if (chosen.boot_id.empty()) chosen.boot_id = TRY(this_boot());
  if (chosen.steps.empty()) chosen.steps = schema::kSteps;
  auto dir = TRY(StateDir::open(path, "meshd"));
  CHECK_OK(dir.make_file(kFile));
  for (const auto* suffix : {"-wal", "-shm", "-journal"}) {
    CHECK_OK(dir.check_file(std::string(kFile) + suffix));
  }
  const auto file = dir.file(kFile);
  sqlite3* raw = nullptr;
  const int error = sqlite3_open_v2(
      file.c_str(), &raw,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
      chosen.vfs.empty() ? nullptr : chosen.vfs.c_str());
  Store store(std::move(dir), std::unique_ptr<sqlite3, Closer>(raw));
  if (error != SQLITE_OK) return store.failed("open");
  store.boot_id_ = chosen.boot_id;
  CHECK_OK(store.configure());
  CHECK_OK(store.check_pages());
  CHECK_OK(store.migrate(chosen.steps));
  CHECK_OK(store.prepare_writes());
  CHECK_OK(store.read_node());
  CHECK_OK(store.adopt_boot(chosen));
  return store;
}

Status Store::configure() {
  // Exclusive before the first access: the log's index is then kept in memory, without a
  // mapped file that a full disk could turn into SIGBUS.
  CHECK_OK(execute("PRAGMA locking_mode=EXCLUSIVE"));
  sqlite3_db_config(db_.get(), SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  CHECK_OK(execute("PRAGMA trusted_schema=OFF"));
  CHECK_OK(execute("PRAGMA cell_size_check=ON"));
  CHECK_OK(execute("PRAGMA journal_mode=WAL"));
  // FULL: one sync a commit, so that what was acknowledged survives a power loss.
  CHECK_OK(execute("PRAGMA synchronous=FULL"));
  CHECK_OK(execute("PRAGMA foreign_keys=ON"));
  return execute(fmt::format("PRAGMA journal_size_limit={}", kWalBytes));
}

Status Store::migrate(std::span<const std::string_view> steps) {
  const auto version = TRY(number("PRAGMA user_version"));
  const auto application = TRY(number("PRAGMA application_id"));
  const auto known = static_cast<std::int64_t>(steps.size());
  const bool fresh = TRY(number("SELECT count(*) FROM sqlite_schema")) == 0;
  if (!fresh && application != schema::kApplicationId) {
    return fail(ErrorCode::kInvalid,
                dir_.file(kFile) + ": another program's database: name another state_dir");
  }
  if (version > known) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{0}: written by a newer meshd (schema {1}, this one knows {2}): "
                            "install that again, or go back to the state of before: 'mv "
                            "{0}.schema-{2} {0}' if that copy is there",
                            dir_.file(kFile), version, known));
  }
  if (version == known) return {};
  if (!fresh) CHECK_OK(put_copy_aside(version));
  return run_steps(steps.subspan(static_cast<std::size_t>(version)), version);
}

// The way back after an upgrade: an older meshd refuses the new file, and takes this one.
Status Store::put_copy_aside(std::int64_t version) {
  const auto name = fmt::format("{}.schema-{}", kFile, version);
  CHECK_OK(dir_.remove_file(name));
  CHECK_OK(dir_.make_file(name));  // SQLite fills an empty file and leaves its mode alone
  auto sql = TRY(prepare("VACUUM INTO ?"));
  const Row target{dir_.file(name)};
  if (bind_row(sql.get(), target) != SQLITE_OK) return failed("bind");
  if (sqlite3_step(sql.get()) != SQLITE_DONE) return failed("copy to " + name);
  return dir_.sync_file(name);
}

Status Store::run_steps(std::span<const std::string_view> steps, std::int64_t from) {
  CHECK_OK(execute("BEGIN IMMEDIATE"));
  const auto all = [&]() -> Status {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const auto number = from + static_cast<std::int64_t>(i) + 1;
      auto status = execute(std::string(steps[i]));
      if (!status) {
        return std::unexpected(std::move(status).error().in(fmt::format("schema step {}", number)));
      }
    }
    if (from == 0) CHECK_OK(first_node_row());
    CHECK_OK(execute(fmt::format("PRAGMA application_id={}", schema::kApplicationId)));
    CHECK_OK(execute(
        fmt::format("PRAGMA user_version={}", from + static_cast<std::int64_t>(steps.size()))));
    return execute("COMMIT");
  };
  return roll_back(all());
}

Status Store::first_node_row() {
  ula_ = TRY(draw_ula());
  auto row = node_row(0, ula_, boot_id_, 0);
  row.emplace_back(std::int64_t{row_sum("node", row)});
  const auto sql =
      TRY(prepare("INSERT INTO node(only,generation,ula,boot_id,total,sum) VALUES(1,?,?,?,?,?)"));
  if (bind_row(sql.get(), row) != SQLITE_OK) return failed("bind");
  if (sqlite3_step(sql.get()) != SQLITE_DONE) return failed("first row");
  return {};
}

Status Store::check_pages() {
  const auto sql = TRY(prepare("PRAGMA quick_check(1)"));
  if (sqlite3_step(sql.get()) != SQLITE_ROW) return failed("check");
  const Value found = column(sql.get(), 0);
  const auto* const text = std::get_if<std::string>(&found);
  if (text == nullptr || *text != "ok") return damaged(text == nullptr ? "no answer" : *text);
  return {};
}

Status Store::prepare_writes() {
  for (const auto& table : schema::kTables) {
    writes_.push_back({TRY(prepare(put_sql(table))), TRY(prepare(drop_sql(table, table.keys))),
                       TRY(prepare(drop_sql(table, 1)))});
  }
  return {};
}

Status Store::read_node() {
  const auto sql = TRY(prepare("SELECT generation,ula,boot_id,total,sum FROM node"));
  if (sqlite3_step(sql.get()) != SQLITE_ROW) {
    if (sqlite3_errcode(db_.get()) == SQLITE_DONE) return damaged("table node is empty");
    return failed("read table node");
  }
  auto row = columns(sql.get());
  const auto sum = take_sum(row);
  if (sum != row_sum("node", row)) return damaged("table node: wrong check sum");
  const auto* const generation = std::get_if<std::int64_t>(row.data());
  const auto* const ula = std::get_if<Blob>(&row[1]);
  const auto* const boot_id = std::get_if<std::string>(&row[2]);
  const auto* const total = std::get_if<std::int64_t>(&row[3]);
  if (!generation || !ula || ula->bytes.size() != 16 || !boot_id || !total) {
    return damaged("table node: wrong types");
  }
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(ula->bytes.data());
  generation_ = static_cast<std::uint64_t>(*generation);
  ula_ = Prefix::of(IpAddress::v6(std::span<const std::uint8_t, 16>(bytes, 16)), 48);
  boot_id_ = *boot_id;
  total_ = *total;
  return {};
}

// After a reboot no namespace of the last boot exists and its times mean nothing. What was
// resting, and what was in use, rests from now on.
Status Store::adopt_boot(const StoreOptions& options) {
  const auto state = TRY(load());
  std::vector<StoreChange> changes;
  const bool rebooted = boot_id_ != options.boot_id;
  const auto rest = [&](const IpAddress& address) {
    changes.push_back(PutQuarantine{address, options.now + options.rest_after_boot});
  };
  for (const auto& [address, until] : state.quarantine) {
    if (rebooted) {
      rest(address);
    } else if (until <= options.now) {
      changes.push_back(DropQuarantine{address});
    }
  }
  if (rebooted) {
    for (const auto& [id, workload] : state.workloads) {
      if (!workload.attachment) continue;
      changes.push_back(DropAttachment{id});
      for (const auto family : kFamilies) {
        if (const auto& address = workload.attachment->address(family)) rest(*address);
      }
    }
    for (const auto& [id, left] : state.left_netns) changes.push_back(DropLeftNetns{id});
    // The kernel began with its own values again.
    for (const auto& [key, value] : state.sysctls) changes.push_back(DropSysctl{key});
    for (auto [key, service] : state.services) {
      service.declared_at = service.endpoint_lost_at = {};
      changes.push_back(PutService{key, service});
    }
  }
  if (changes.empty() && !rebooted) return {};
  // A generation of its own only where something that is compiled has changed.
  const auto generation = rebooted ? generation_ + 1 : generation_;
  CHECK_OK(roll_back(write(changes, generation, options.boot_id)));
  boot_id_ = options.boot_id;
  generation_ = generation;
  return {};
}

// --- reading and writing -------------------------------------------------------------

Result<StoredState> Store::load() {
  StoredState state;
  state.generation = generation_;
  std::int64_t total = 0;
  for (const auto& table : schema::kTables) {
    const auto sql = TRY(prepare(fmt::format("SELECT {},sum FROM {}", table.columns, table.name)));
    int step = SQLITE_ROW;
    while ((step = sqlite3_step(sql.get())) == SQLITE_ROW) {
      auto row = columns(sql.get());
      const auto sum = take_sum(row);
      if (sum != row_sum(table.name, row)) {
        return damaged(fmt::format("table {}: wrong check sum", table.name));
      }
      if (const auto status = read_row(table.table, row, state); !status) {
        return damaged(fmt::format("table {}: {}", table.name, status.error().what));
      }
      total += sum;
    }
    if (step != SQLITE_DONE) return failed(fmt::format("read table {}", table.name));
  }
  if (total != total_) return damaged("rows are missing or too many");
  return state;
}

Status Store::apply(std::span<const StoreChange> changes, std::uint64_t generation) {
  if (generation <= generation_) {
    return fail(ErrorCode::kInternal,
                fmt::format("store generation {}: {} is stored", generation, generation_));
  }
  auto status = roll_back(write(changes, generation, boot_id_));
  if (!status) {
    return std::unexpected(
        std::move(status).error().in(fmt::format("store generation {}", generation)));
  }
  generation_ = generation;
  return {};
}

Status Store::amend(std::span<const StoreChange> changes) {
  auto status = roll_back(write(changes, generation_, boot_id_));
  if (status) return status;
  return std::unexpected(
      std::move(status).error().in(fmt::format("store generation {}", generation_)));
}

Status Store::write(std::span<const StoreChange> changes, std::uint64_t generation,
                    const std::string& boot_id) {
  if (unusable_) {
    return fail(ErrorCode::kInternal, dir_.file(kFile) +
                                          ": unusable since an earlier error: "
                                          "restart meshd");
  }
  CHECK_OK(execute("BEGIN IMMEDIATE"));
  auto total = total_;
  for (const auto& change : changes) CHECK_OK(write_one(change, total));
  auto row = node_row(generation, ula_, boot_id, total);
  row.emplace_back(std::int64_t{row_sum("node", row)});
  const auto sql = TRY(prepare("UPDATE node SET generation=?,ula=?,boot_id=?,total=?,sum=?"));
  if (bind_row(sql.get(), row) != SQLITE_OK) return failed("bind");
  if (sqlite3_step(sql.get()) != SQLITE_DONE) return failed("write");
  CHECK_OK(execute("COMMIT"));
  total_ = total;
  return {};
}

Status Store::write_one(const StoreChange& change, std::int64_t& total) {
  for (auto& [table, action, row] : rows_of(change, std::time(nullptr))) {
    const auto& info = schema::kTables[std::to_underlying(table)];
    const auto& statements = writes_[std::to_underlying(table)];
    if (action == RowAction::kDropAll) {
      if (drop_rows(statements.drop_all.get(), row, total) != SQLITE_DONE) return failed("write");
      continue;
    }
    // A row is replaced by dropping it first: that tells the sum which leaves the total.
    const Row key(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(info.keys));
    if (drop_rows(statements.drop.get(), key, total) != SQLITE_DONE) return failed("write");
    if (action == RowAction::kDrop) continue;
    const std::int64_t sum = row_sum(info.name, row);
    row.emplace_back(sum);
    Run run(statements.put.get());
    if (bind_row(statements.put.get(), row) != SQLITE_OK) return failed("bind");
    if (run.step() != SQLITE_DONE) return failed("write");
    total += sum;
  }
  return {};
}

// Passes a transaction's outcome on; of a failed one nothing stays behind.
Status Store::roll_back(Status outcome) {
  if (outcome || sqlite3_get_autocommit(db_.get()) != 0) return outcome;
  // SQLite has rolled back by itself after most I/O errors; what is left open is ended here.
  if (!execute("ROLLBACK") || sqlite3_get_autocommit(db_.get()) == 0) unusable_ = true;
  return outcome;
}

}  // namespace meshd
