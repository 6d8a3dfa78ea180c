// Where a controller keeps the cluster: objects under a kind and a key, and one counter, the
// revision, that rises with every commit. Two kinds of it: one SQLite file for one controller,
// PostgreSQL for several equal ones.
//
// Threads:    one owner; a store of several controllers may have a thread of its own inside.
// Invariants: a commit is whole or not at all, and durable when it has returned. It is taken
//             only while the revision is still the one that it was decided upon: two controllers
//             never decide on the same state. Revisions become visible in order.
// Errors:     kConflict: the revision is another; read changes_since() and decide anew.
//             kSystem: away or full, nothing changed as far as is known; kNotInForce: it is not
//             known whether the commit was taken (the connection broke in it): read again.
//             kInvalid: damaged, foreign or newer than this program.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "controller/record.h"

namespace meshd::controller {

class Store {
 public:
  struct Snapshot {
    std::uint64_t revision = 0;
    Writes objects;  // all of them
  };
  struct Changes {
    std::uint64_t revision = 0;  // after them
    Writes writes;               // in the order of their commits
  };

  virtual ~Store() = default;
  [[nodiscard]] virtual Result<Snapshot> load() = 0;
  // Returns the new revision. An empty list changes nothing and returns `expected`.
  [[nodiscard]] virtual Result<std::uint64_t> commit(std::uint64_t expected,
                                                     const Writes& writes) = 0;
  // What others committed since; absent: too long ago, load() again.
  [[nodiscard]] virtual Result<std::optional<Changes>> changes_since(std::uint64_t revision) = 0;
  // A descriptor that becomes readable when somebody else may have committed; -1: nobody can.
  [[nodiscard]] virtual int notify_fd() const = 0;
  virtual void drain_notifications() = 0;
  // A copy of all of it as of one moment, into a new file.
  [[nodiscard]] virtual Status backup(const std::string& path) = 0;
};

// <dir>/controller.db, made where it is missing; the directory is locked.
[[nodiscard]] Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& dir);
// A connection string of libpq; several hosts with target_session_attrs=read-write.
[[nodiscard]] Result<std::unique_ptr<Store>> open_postgres_store(const std::string& conninfo);

}  // namespace meshd::controller
