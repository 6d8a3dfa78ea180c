// Where a controller keeps the cluster: objects under a kind and a key, and one counter, the
// revision, that rises with every commit. Two kinds of it: one SQLite file for one controller,
// PostgreSQL for several equal ones.
//
// Threads:    one owner. Calls block: on the file's syncs; for PostgreSQL at most
//             StoreOptions::reach a host to connect, then ::patience without an answer. While
//             the database is away calls fail at once, but for one attempt every few seconds;
//             a commit that broke off is settled for up to ::settle first.
// Invariants: a commit is whole or not at all, and durable when it has returned. It is taken
//             only while the revision is still the one that it was decided upon: two controllers
//             never decide on the same state. Revisions become visible in order.
// Errors:     kConflict: the revision is another; read changes_since() and decide anew.
//             kSystem: away or full, nothing changed; try again. kNotInForce: it is not known
//             whether the commit was taken, or that it lasts (the connection broke in it and
//             did not come back in time): read again. kExhausted: past a limit below.
//             kInvalid: damaged, foreign or newer than this program; the text says the mend.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "controller/record.h"

namespace meshd::controller {

// Limits of one commit. The longest key is "WORKFLOW/NAME", 127 bytes.
inline constexpr std::size_t kMaxKeyBytes = 255;
// A declaration is at most 64 KiB (policy/limits.h); with author and reports it stays far below.
inline constexpr std::size_t kMaxValueBytes = 256 * 1024;
// An apply of 1 MiB holds some ten thousand small workloads, with a service for each.
inline constexpr std::size_t kMaxCommitWrites = 65'536;
inline constexpr std::size_t kMaxCommitBytes = 16 * 1024 * 1024;

struct StoreOptions {
  // So much of the past is kept for changes_since(): a controller that was away for longer
  // loads all, which takes a second. In revisions (10 s at the highest rate, hours at a usual
  // one) and in bytes, so that large commits do not fill the disk.
  std::uint64_t kept_revisions = 10'000;
  std::uint64_t kept_bytes = 64 * 1024 * 1024;
  std::span<const std::string_view> steps;  // of the schema; empty: controller/store_schema.h

  std::string vfs;  // SQLite's file layer; empty: its default

  // PostgreSQL. A commit that broke off is looked for on whichever host answers for so long:
  // a fail-over by hand takes longer, one by a program less.
  std::chrono::milliseconds settle{10'000};
  std::chrono::milliseconds patience{5'000};   // with a server from which nothing comes
  std::chrono::milliseconds whole{30'000};     // with one statement, while its answer comes in
  std::chrono::seconds reach{3};               // to connect to one host
  std::chrono::milliseconds retry_first{500};  // between attempts, doubled up to:
  std::chrono::milliseconds retry_last{8'000};
};

class Store {
 public:
  struct Snapshot {
    std::uint64_t revision = 0;
    Writes objects;  // all of them, by kind and key
  };
  struct Changes {
    std::uint64_t revision = 0;  // after them
    Writes writes;               // in the order of their commits
  };

  Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  virtual ~Store() = default;
  [[nodiscard]] virtual Result<Snapshot> load() = 0;
  // Returns the new revision. An empty list changes nothing and returns `expected`. Of several
  // writes to one object the last counts.
  [[nodiscard]] virtual Result<std::uint64_t> commit(std::uint64_t expected,
                                                     const Writes& writes) = 0;
  // What was committed since, by whomever; absent: too long ago, or of another past (a standby
  // that took over had not heard of it): load() again.
  [[nodiscard]] virtual Result<std::optional<Changes>> changes_since(std::uint64_t revision) = 0;
  // A descriptor that becomes readable when somebody else may have committed, and now and then
  // while that cannot be known: drain_notifications(), then changes_since() unless it was only
  // our own commits. It stays the same one over reconnects. -1: nobody else can commit.
  [[nodiscard]] virtual int notify_fd() const = 0;
  // Whether somebody else may have committed.
  virtual bool drain_notifications() = 0;
  // A copy of all of it as of one moment, into a new file: one that open_sqlite_store() takes.
  // A path that exists is refused.
  [[nodiscard]] virtual Status backup(const std::string& path) = 0;
  // What an administrator should know of how it is set up, as of the last call; empty: nothing.
  [[nodiscard]] virtual std::string warning() const { return {}; }
};

// <dir>/controller.db, made where it is missing; the directory is locked (kConflict: another
// controller has it). An older file is brought up to date after a copy was put aside.
[[nodiscard]] Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& dir,
                                                               const StoreOptions& options = {});
// A connection string of libpq, with several hosts where there are standbys; what it leaves out
// is set so that only a primary is taken and a dead one is noticed. The database must be there
// and answer; later it may go away and come back.
[[nodiscard]] Result<std::unique_ptr<Store>> open_postgres_store(const std::string& conninfo,
                                                                 const StoreOptions& options = {});

// The limits above, and keys that every store can hold: printable ASCII without spaces.
[[nodiscard]] Status check_writes(const Writes& writes);
// A new file that holds the snapshot and no past, whole or not at all.
[[nodiscard]] Status write_sqlite_copy(const std::string& path, const Store::Snapshot& snapshot);
// What a commit's changes weigh in StoreOptions::kept_bytes.
[[nodiscard]] std::uint64_t logged_bytes(const Writes& writes);

}  // namespace meshd::controller
