// One session with a PostgreSQL server by libpq: parameters and results in their binary form,
// every wait bounded.
//
// Threads: one owner.
// Owns:    the connection; close() or a failure that leaves it unusable ends it.
// Errors:  kSystem with the server's or libpq's text. While alive() the server has refused the
//          statement, which then had no effect; otherwise what became of it is not known.
//          kInvalid: a connection string that cannot be read.
// Source:  postgresql.org/docs/15/libpq-async.html, protocol-overview.html#formats,
//          errcodes-appendix.html.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct pg_conn;
struct pg_result;

namespace meshd::controller {

using Uuid = std::array<std::uint8_t, 16>;
using Steady = std::chrono::steady_clock;

struct PgParam {
  std::uint32_t type = 0;  // its oid
  std::optional<std::string> bytes;
};
[[nodiscard]] PgParam pg_number(std::uint64_t value);
[[nodiscard]] PgParam pg_uuid(const std::optional<Uuid>& value);

// A column of values, handed over as one array.
class PgArray {
 public:
  enum class Of : std::uint8_t { kBool, kInt4, kText, kBytea };
  explicit PgArray(Of of) : of_(of) {}
  void add(bool value) { add(std::string(1, value ? '\1' : '\0')); }
  void add(std::int32_t value);
  void add(const std::optional<std::string>& value);
  void add(const std::string& value);
  [[nodiscard]] PgParam param() const;

 private:
  Of of_;
  std::uint32_t count_ = 0;
  bool nulls_ = false;
  std::string elements_;
};

class PgRows {
 public:
  explicit PgRows(pg_result* result) : result_(result) {}
  [[nodiscard]] pg_result* get() const { return result_.get(); }
  [[nodiscard]] int size() const;
  [[nodiscard]] bool null(int row, int column) const;
  [[nodiscard]] std::string_view bytes(int row, int column) const;
  // A boolean or an integer of any width.
  [[nodiscard]] std::uint64_t number(int row, int column) const;
  [[nodiscard]] std::optional<Uuid> uuid(int row, int column) const;

 private:
  struct Closer {
    void operator()(pg_result* result) const;
  };
  std::unique_ptr<pg_result, Closer> result_;
};

class PgSession {
 public:
  struct Limits {
    std::chrono::milliseconds silence{}, whole{};
    std::chrono::seconds reach{};
  };

  PgSession() = default;  // not alive
  // What `conninfo` leaves out is set: only a server that takes writes, keepalives, a time
  // limit for each host.
  [[nodiscard]] static Result<PgSession> connect(const std::string& conninfo, const Limits& limits);

  // One statement, sent once. Its answer must be there by `deadline`.
  [[nodiscard]] Result<PgRows> run(const std::string& sql, const std::vector<PgParam>& params = {},
                                   std::optional<Steady::time_point> deadline = {});
  // Several statements, no results.
  [[nodiscard]] Status script(const std::string& sql);

  [[nodiscard]] bool alive() const { return connection_ != nullptr; }
  void close() { connection_.reset(); }
  [[nodiscard]] int socket() const;
  [[nodiscard]] int server_version() const;  // 150004 is 15.4
  [[nodiscard]] std::string host() const;
  // The SQLSTATE of the last refusal.
  [[nodiscard]] const std::string& sqlstate() const { return sqlstate_; }
  // The last statement was committed on this server alone: somebody ended the wait for its
  // standby.
  [[nodiscard]] bool lone_commit() const { return *lone_commit_; }
  struct Note {
    std::string_view channel, payload;
    int process = 0;  // the server's for the session that it is from
  };
  // Takes in what the server sent unasked; false: the connection has ended.
  bool drain(const std::function<void(const Note&)>& take);
  [[nodiscard]] int process() const;  // the server's for this session; 0: not alive

 private:
  struct Closer {
    void operator()(pg_conn* connection) const;
  };
  [[nodiscard]] Status flush(Steady::time_point end);
  [[nodiscard]] Status await(short events, Steady::time_point end);
  [[nodiscard]] Result<PgRows> answer(Steady::time_point deadline);
  [[nodiscard]] std::unexpected<Error> broken(std::string_view how, int sys_errno);
  [[nodiscard]] std::unexpected<Error> refused(const PgRows& rows);

  std::unique_ptr<pg_conn, Closer> connection_;
  Limits limits_;
  std::string sqlstate_;
  std::unique_ptr<bool> lone_commit_ = std::make_unique<bool>(false);  // where libpq notes it
};

}  // namespace meshd::controller
