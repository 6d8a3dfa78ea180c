// An empty place for a controller's store to be opened in, of each kind.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <ostream>
#include <string>

#include "controller/store.h"
#include "tests/support/postgres.h"
#include "tests/support/temp_dir.h"

namespace meshd::controller {

enum class Backend : std::uint8_t { kSqlite, kPostgres };
// As ctest's list shows it.
inline void PrintTo(Backend backend, std::ostream* out) {
  *out << (backend == Backend::kSqlite ? "Sqlite" : "Postgres");
}

class StoreBed {
 public:
  StoreBed() = default;
  StoreBed(const StoreBed&) = delete;
  StoreBed& operator=(const StoreBed&) = delete;
  virtual ~StoreBed() = default;
  [[nodiscard]] virtual std::string problem() const = 0;  // empty: none
  [[nodiscard]] virtual Result<std::unique_ptr<Store>> open(const StoreOptions& options) = 0;
};

class SqliteBed final : public StoreBed {
 public:
  [[nodiscard]] std::string problem() const override { return {}; }
  [[nodiscard]] Result<std::unique_ptr<Store>> open(const StoreOptions& options) override {
    return open_sqlite_store(temp_ / "state", options);
  }

 private:
  TempDir temp_{TempDir::memory()};
};

// All tests of the process share the directories that initdb made, and those that break nothing
// the server.
inline PostgresHome& postgres_home() {
  static PostgresHome home;
  return home;
}
inline PostgresServer& shared_postgres() {
  static PostgresServer server(postgres_home(), "shared");
  static const bool started = server.start();
  if (!started) std::abort();  // every test would wait for it in vain
  return server;
}

class PostgresBed final : public StoreBed {
 public:
  PostgresBed() : problem_(postgres_home().problem()) {
    if (!problem_.empty()) return;
    const auto cleared = server().ask("DROP SCHEMA IF EXISTS meshd_controller CASCADE");
    if (!cleared) problem_ = cleared.error().what;
  }
  [[nodiscard]] static PostgresServer& server() { return shared_postgres(); }
  [[nodiscard]] std::string problem() const override { return problem_; }
  [[nodiscard]] Result<std::unique_ptr<Store>> open(const StoreOptions& options) override {
    return open_postgres_store(server().conninfo(), options);
  }

 private:
  std::string problem_;
};

inline std::unique_ptr<StoreBed> make_bed(Backend backend) {
  if (backend == Backend::kSqlite) return std::make_unique<SqliteBed>();
  return std::make_unique<PostgresBed>();
}

}  // namespace meshd::controller
