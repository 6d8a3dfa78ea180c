// The file of a SQLite store as a whole: opening, versions, copies.
#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/unique_fd.h"
#include "controller/store_schema.h"
#include "controller/store_sqlite.h"

namespace meshd::controller {
namespace {

// The write-ahead log is cut back to this after a checkpoint; one of SQLite's default
// 1000 pages is as large.
constexpr int kWalBytes = 4 * 1024 * 1024;

Status sync(const std::string& path, int flags) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags));
  if (!fd) return fail_errno("open " + path, errno);
  if (fsync(fd.get()) != 0) return fail_errno("sync " + path, errno);
  return {};
}

// A directory beside the file to come: what is made in it appears under its own name only when
// it is whole and on disk, and goes when it never is.
class Draft {
 public:
  static Result<Draft> make(const std::string& path) {
    struct stat info{};
    if (lstat(path.c_str(), &info) == 0) {
      return fail(ErrorCode::kConflict, path + ": exists: name a new file");
    }
    auto dir = path + ".part-XXXXXX";
    if (mkdtemp(dir.data()) == nullptr) return fail_errno("make " + dir, errno);
    return Draft(path, std::move(dir));
  }
  Draft(Draft&& other) noexcept
      : path_(std::move(other.path_)), dir_(std::exchange(other.dir_, {})) {}
  Draft& operator=(Draft&&) = delete;
  ~Draft() {
    if (dir_.empty()) return;
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
  }
  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] std::string file() const { return dir_ + "/" + SqliteStore::kFile; }
  [[nodiscard]] Status publish() const {
    CHECK_OK(sync(file(), 0));
    // Not over a file that came up meanwhile.
    if (renameat2(AT_FDCWD, file().c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) != 0) {
      if (errno == EEXIST) return fail(ErrorCode::kConflict, path_ + ": exists: name a new file");
      return fail_errno("rename to " + path_, errno);
    }
    const auto parent = std::filesystem::path(path_).parent_path().string();
    return sync(parent.empty() ? "." : parent, O_DIRECTORY);
  }

 private:
  Draft(std::string path, std::string dir) : path_(std::move(path)), dir_(std::move(dir)) {}
  std::string path_, dir_;
};

}  // namespace

SqliteStore::SqliteStore(StateDir dir, std::unique_ptr<sqlite3, Closer> db,
                         const StoreOptions& options)
    : dir_(std::move(dir)), db_(std::move(db)), options_(options) {
  if (options_.steps.empty()) options_.steps = schema::kSqliteSteps;
}

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const std::string& path,
                                                       const StoreOptions& options) {
  auto dir = TRY(StateDir::open(path, "mesh-controller"));
  CHECK_OK(dir.make_file(kFile));
  for (const auto* suffix : {"-wal", "-shm", "-journal"}) {
    CHECK_OK(dir.check_file(std::string(kFile) + suffix));
  }
  const auto file = dir.file(kFile);
  sqlite3* raw = nullptr;
  const int error = sqlite3_open_v2(
      file.c_str(), &raw,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
      options.vfs.empty() ? nullptr : options.vfs.c_str());
  std::unique_ptr<SqliteStore> store(
      new SqliteStore(std::move(dir), std::unique_ptr<sqlite3, Closer>(raw), options));
  if (error != SQLITE_OK) return store->failed("open");
  CHECK_OK(store->identify());
  CHECK_OK(store->configure());
  CHECK_OK(store->check_pages());
  CHECK_OK(store->migrate());
  CHECK_OK(store->prepare_all());
  CHECK_OK(store->read_state());
  // Reads all, and so checks all.
  CHECK_OK(store->load());
  CHECK_OK(store->changes_since(store->state_.trimmed));
  return store;
}

// Before anything is written: another's file and a newer one stay as they are.
Status SqliteStore::identify() {
  // Exclusive before the first access: the log's index is then kept in memory, without a
  // mapped file that a full disk could turn into SIGBUS.
  CHECK_OK(execute("PRAGMA locking_mode=EXCLUSIVE"));
  sqlite3_db_config(db_.get(), SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  CHECK_OK(execute("PRAGMA trusted_schema=OFF"));
  CHECK_OK(execute("PRAGMA cell_size_check=ON"));
  const auto version = TRY(number("PRAGMA user_version"));
  const auto application = TRY(number("PRAGMA application_id"));
  const bool fresh = TRY(number("SELECT count(*) FROM sqlite_schema")) == 0;
  if (!fresh && application != schema::kApplicationId) {
    return fail(ErrorCode::kInvalid,
                dir_.file(kFile) + ": another program's database: name another directory");
  }
  const auto known = static_cast<std::int64_t>(options_.steps.size());
  if (version > known) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{0}: written by a newer mesh-controller (schema {1}, this one knows "
                            "{2}): install that again, or go back to the state of before: 'mv "
                            "{0}.schema-{2} {0}' if that copy is there",
                            dir_.file(kFile), version, known));
  }
  return {};
}

Status SqliteStore::configure() {
  CHECK_OK(execute("PRAGMA journal_mode=WAL"));
  // FULL: one sync a commit, so that what was acknowledged survives a power loss.
  CHECK_OK(execute("PRAGMA synchronous=FULL"));
  return execute(fmt::format("PRAGMA journal_size_limit={}", kWalBytes));
}

Status SqliteStore::check_pages() {
  const auto sql = TRY(prepare("PRAGMA quick_check(1)"));
  if (sqlite3_step(sql.get()) != SQLITE_ROW) return failed("check");
  const auto* const text = reinterpret_cast<const char*>(sqlite3_column_text(sql.get(), 0));
  const std::string found = text == nullptr ? "no answer" : text;
  if (found != "ok") return damaged(found);
  return {};
}

Status SqliteStore::migrate() {
  const auto version = TRY(number("PRAGMA user_version"));
  if (version == static_cast<std::int64_t>(options_.steps.size())) return {};
  if (version != 0) CHECK_OK(put_copy_aside(version));
  return run_steps(version);
}

// The way back after an upgrade: an older controller refuses the new file, and takes this one.
Status SqliteStore::put_copy_aside(std::int64_t version) {
  const auto name = fmt::format("{}.schema-{}", kFile, version);
  CHECK_OK(dir_.remove_file(name));
  CHECK_OK(dir_.make_file(name));  // SQLite fills an empty file and leaves its mode alone
  CHECK_OK(copy_into(dir_.file(name)));
  return dir_.sync_file(name);
}

Status SqliteStore::run_steps(std::int64_t from) {
  const auto all = [&]() -> Status {
    CHECK_OK(execute("BEGIN IMMEDIATE"));
    const auto steps = options_.steps.subspan(static_cast<std::size_t>(from));
    auto version = from;
    for (const auto step : steps) {
      ++version;
      if (auto status = execute(std::string(step)); !status) {
        return std::unexpected(
            std::move(status).error().in(fmt::format("schema step {}", version)));
      }
    }
    if (from == 0) {
      CHECK_OK(execute("INSERT INTO state VALUES(1,0,0,0,0,0)"));
      CHECK_OK(prepare_all());
      CHECK_OK(write_state({}));
    }
    CHECK_OK(execute(fmt::format("PRAGMA application_id={}", schema::kApplicationId)));
    CHECK_OK(execute(fmt::format("PRAGMA user_version={}", version)));
    return execute("COMMIT");
  };
  return roll_back(all());
}

// --- copies --------------------------------------------------------------------------

// Into an empty file, by SQLite's own way of copying a database that is open.
Status SqliteStore::copy_into(const std::string& path) {
  sqlite3* raw = nullptr;
  const int error = sqlite3_open_v2(
      path.c_str(), &raw,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_NOMUTEX,
      options_.vfs.empty() ? nullptr : options_.vfs.c_str());
  const std::unique_ptr<sqlite3, Closer> target(raw);
  const auto wrong = [&](int code) {
    const bool full = code == SQLITE_FULL;
    const int sys_errno = full ? ENOSPC : sqlite3_system_errno(raw);
    return fail_errno(fmt::format("copy to {}: {}", path, sqlite3_errstr(code)),
                      sys_errno != 0 ? sys_errno : EIO);
  };
  if (error != SQLITE_OK) return wrong(error);
  auto* const copy = sqlite3_backup_init(raw, "main", db_.get(), "main");
  if (copy == nullptr) return wrong(sqlite3_errcode(raw));
  sqlite3_backup_step(copy, -1);
  const int done = sqlite3_backup_finish(copy);
  if (done != SQLITE_OK) return wrong(done);
  // One file, without a log beside it that could be left behind.
  for (const auto* sql : {"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=DELETE"}) {
    const int set = sqlite3_exec(raw, sql, nullptr, nullptr, nullptr);
    if (set != SQLITE_OK) return wrong(set);
  }
  return {};
}

Status SqliteStore::backup(const std::string& path) {
  const auto draft = TRY(Draft::make(path));
  const UniqueFd made(
      ::open(draft.file().c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!made) return fail_errno("make " + draft.file(), errno);
  CHECK_OK(copy_into(draft.file()));
  return draft.publish();
}

Status write_sqlite_copy(const std::string& path, const Store::Snapshot& snapshot) {
  const auto draft = TRY(Draft::make(path));
  {
    auto store = TRY(SqliteStore::open(draft.dir(), {}));
    CHECK_OK(store->become(snapshot));
  }
  return draft.publish();
}

Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& dir,
                                                 const StoreOptions& options) {
  return TRY(SqliteStore::open(dir, options));
}

}  // namespace meshd::controller
