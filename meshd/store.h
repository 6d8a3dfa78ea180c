// The node's memory: what was declared, attached and given out, in one SQLite file that
// survives kill -9 and power loss. The daemon's only state on disk.
//
// Threads:    the main loop only.
// Owns:       the state directory's lock and the database connection.
// Invariants: one apply() is one transaction; after an error, or a crash at any moment, the
//             file holds either all of it or nothing. What load() returns was written by
//             apply() bit for bit, or load() is an error: damage never opens anything.
// Errors:     kConflict: another daemon has the directory. kSystem: disk full or I/O, with
//             SQLite's own text; state unchanged, apply() may be tried again. kInvalid:
//             damaged, foreign or newer file; the text says the mend.
// Units:      times as base/clock.h counts them. They mean nothing after a reboot, so
//             open() then drops attachments (their namespaces are gone) and lets addresses
//             rest anew.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/state_dir.h"
#include "meshd/store_changes.h"

struct sqlite3;
struct sqlite3_stmt;

namespace meshd {

// What a start depends on besides the directory.
struct StoreOptions {
  std::string boot_id;  // empty: the kernel's
  TimePoint now = BootClock::now();
  // How long addresses rest after a reboot: other nodes and clients may remember them.
  Duration rest_after_boot = std::chrono::seconds(60);
  std::string vfs;                          // SQLite's file layer; empty: its default
  std::span<const std::string_view> steps;  // empty: schema::kSteps
};

class Store {
 public:
  // Makes the directory and the file where they are missing, brings an older file up to
  // date after a copy of it was put aside ("meshd.db.schema-N": to go back to the older
  // meshd, stop the daemon and move that copy over meshd.db), refuses a newer one.
  [[nodiscard]] static Result<Store> open(const std::string& dir, const StoreOptions& options = {});
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();

  [[nodiscard]] Result<StoredState> load();
  // `generation` is higher than the stored one.
  [[nodiscard]] Status apply(std::span<const StoreChange> changes, std::uint64_t generation);
  // Stores what nothing is compiled from: the generation stays as it is.
  [[nodiscard]] Status amend(std::span<const StoreChange> changes);
  [[nodiscard]] std::uint64_t generation() const { return generation_; }
  [[nodiscard]] const std::string& boot_id() const { return boot_id_; }
  // The node's own /48 of fd00::/8, drawn once (RFC 4193 section 3.2.2).
  [[nodiscard]] const Prefix& ula() const { return ula_; }

 private:
  struct Closer {
    void operator()(sqlite3* db) const;
    void operator()(sqlite3_stmt* statement) const;
  };
  using Statement = std::unique_ptr<sqlite3_stmt, Closer>;
  struct Writes {  // of one table
    Statement put, drop, drop_all;
  };

  Store(StateDir dir, std::unique_ptr<sqlite3, Closer> db);
  [[nodiscard]] Status configure();
  [[nodiscard]] Status migrate(std::span<const std::string_view> steps);
  [[nodiscard]] Status run_steps(std::span<const std::string_view> steps, std::int64_t from);
  [[nodiscard]] Status put_copy_aside(std::int64_t version);
  [[nodiscard]] Status first_node_row();
  [[nodiscard]] Status check_pages();
  [[nodiscard]] Status prepare_writes();
  [[nodiscard]] Status read_node();
  [[nodiscard]] Status adopt_boot(const StoreOptions& options);
  [[nodiscard]] Status write(std::span<const StoreChange> changes, std::uint64_t generation,
                             const std::string& boot_id);
  [[nodiscard]] Status write_one(const StoreChange& change, std::int64_t& total);
  [[nodiscard]] Status roll_back(Status outcome);

  [[nodiscard]] Result<Statement> prepare(const std::string& sql);
  [[nodiscard]] Status execute(const std::string& sql);
  [[nodiscard]] Result<std::int64_t> number(const std::string& sql);
  [[nodiscard]] std::unexpected<Error> failed(std::string_view what) const;
  [[nodiscard]] std::unexpected<Error> damaged(std::string_view how) const;

  StateDir dir_;
  std::unique_ptr<sqlite3, Closer> db_;
  std::vector<Writes> writes_;  // by schema::Table; after db_: closed before it
  std::uint64_t generation_ = 0;
  std::int64_t total_ = 0;  // node.total
  std::string boot_id_;
  Prefix ula_;
  bool unusable_ = false;  // a transaction could be neither finished nor undone
};

}  // namespace meshd
