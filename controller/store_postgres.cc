#include "controller/store_postgres.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <utility>

namespace meshd::controller {
namespace {

using std::chrono::milliseconds;

// Between two attempts to settle a commit: a promotion takes seconds.
constexpr milliseconds kSettlePause{200};

// The whole commit is this one statement, and so one transaction and one way to the server and
// back. Its first part takes the row that all commits change, if the revision is still the one
// that was decided upon; where it is not, every other part finds nothing to do. All parts see
// the tables as the revision before left them.
constexpr const char* kCommit = R"sql(
WITH next AS (
  UPDATE meshd_controller.state s
  SET revision = s.revision + 1, commit_id = $2, total = s.total + $3,
      trimmed = greatest(s.trimmed, s.revision + 1 - $4, coalesce(
        (SELECT c.revision FROM meshd_controller.changes c
         WHERE c.total <= s.total + $3 - $5 ORDER BY c.total DESC LIMIT 1), 0))
  WHERE s.revision = $1 AND s.version = $6 AND s.identity = $7
    AND ($8::uuid IS NULL OR s.commit_id = $8)
  RETURNING s.revision, s.total, s.trimmed),
w AS MATERIALIZED (
  SELECT * FROM unnest($9::int4[], $10::text[], $11::bytea[], $12::bool[])
    WITH ORDINALITY AS w (kind, key, value, last, at)),
put AS (
  INSERT INTO meshd_controller.objects (kind, key, revision, value)
  SELECT w.kind, w.key, next.revision, w.value FROM next, w
  WHERE w.last AND w.value IS NOT NULL
  ON CONFLICT (kind, key) DO UPDATE SET revision = excluded.revision, value = excluded.value),
gone AS (
  DELETE FROM meshd_controller.objects o USING next, w
  WHERE w.last AND w.value IS NULL AND o.kind = w.kind AND o.key = w.key),
logged AS (
  INSERT INTO meshd_controller.changes (revision, at, commit_id, total, kind, key, value)
  SELECT next.revision, w.at, $2, next.total, w.kind, w.key, w.value FROM next, w),
trimmed AS (
  DELETE FROM meshd_controller.changes c WHERE c.revision <= (SELECT next.trimmed FROM next))
SELECT next.revision, pg_notify('meshd_controller', '') FROM next
)sql";

// A commit that followed revision $1 can only have become the next one.
constexpr const char* kLookUp = R"sql(
SELECT s.revision, s.trimmed, s.version, s.identity,
  (SELECT c.commit_id FROM meshd_controller.changes c WHERE c.revision = $1 + 1 LIMIT 1)
FROM meshd_controller.state s
)sql";

constexpr const char* kLoad = R"sql(
SELECT s.revision, s.commit_id, o.kind, o.key, o.value
FROM meshd_controller.state s LEFT JOIN meshd_controller.objects o ON true
ORDER BY o.kind, o.key
)sql";

constexpr const char* kChangesSince = R"sql(
SELECT s.revision, s.trimmed, s.commit_id,
  (SELECT p.commit_id FROM meshd_controller.changes p WHERE p.revision = $1 LIMIT 1),
  c.kind, c.key, c.value, c.revision
FROM meshd_controller.state s
LEFT JOIN meshd_controller.changes c ON c.revision > $1 AND s.trimmed <= $1
ORDER BY c.revision, c.at
)sql";

Result<Uuid> draw_id() {
  Uuid id{};
  const auto got = getrandom(id.data(), id.size(), 0);
  if (got != static_cast<ssize_t>(id.size())) {
    return fail_errno("draw a commit's id", got < 0 ? errno : EIO);
  }
  return id;
}

Write write_at(const PgRows& rows, int row, int first) {
  Write write{
      static_cast<Kind>(rows.number(row, first)), std::string(rows.bytes(row, first + 1)), {}};
  if (!rows.null(row, first + 2)) write.value = std::string(rows.bytes(row, first + 2));
  return write;
}

std::unexpected<Error> foreign() {
  return fail(ErrorCode::kInvalid,
              "database: not the tables that this controller began with: another cluster's, or "
              "made anew; check the hosts in the connection string, and restart to take them");
}

std::unexpected<Error> newer(std::uint64_t version, std::size_t known) {
  return fail(ErrorCode::kInvalid,
              fmt::format("database: written by a newer mesh-controller (schema {}, this one "
                          "knows {}): install that one here too",
                          version, known));
}

}  // namespace

// --- reading -------------------------------------------------------------------------

Result<PgRows> PostgresStore::ask(const std::string& sql, const std::vector<PgParam>& params) {
  // Asking twice changes nothing: a session that died unnoticed since is no reason to fail.
  for (int attempt = 0;; ++attempt) {
    auto* const session = TRY(this->session());
    auto rows = session->run(sql, params);
    const bool again = !rows && !session->alive() && rows.error().sys_errno != ETIMEDOUT;
    if (!again || attempt > 0) {
      if (rows) return rows;
      return std::unexpected(std::move(rows).error().in("database"));
    }
  }
}

Result<Store::Snapshot> PostgresStore::load() {
  const auto rows = TRY(ask(kLoad, {}));
  const auto id = rows.size() > 0 ? rows.uuid(0, 1) : std::nullopt;
  if (!id) return fail(ErrorCode::kInvalid, "database: table meshd_controller.state is empty");
  Snapshot snapshot{rows.number(0, 0), {}};
  const bool empty = rows.null(0, 2);
  for (int row = 0; row < rows.size() && !empty; ++row) {
    snapshot.objects.push_back(write_at(rows, row, 2));
  }
  seen_ = {snapshot.revision, *id};
  return snapshot;
}

Result<std::optional<Store::Changes>> PostgresStore::changes_since(std::uint64_t revision) {
  const auto rows = TRY(ask(kChangesSince, {pg_number(revision)}));
  const auto id = rows.size() > 0 ? rows.uuid(0, 2) : std::nullopt;
  if (!id) return fail(ErrorCode::kInvalid, "database: table meshd_controller.state is empty");
  Changes changes{rows.number(0, 0), {}};
  if (revision > changes.revision || revision < rows.number(0, 1)) return std::nullopt;
  // A standby that took over may not have had the last commits: the same number is another
  // revision then. With a synchronous standby this does not happen.
  const auto there = revision == changes.revision ? id : rows.uuid(0, 3);
  if (seen_ && seen_->revision == revision && there && *there != seen_->id) return std::nullopt;
  const bool none = rows.null(0, 4);
  std::uint64_t last = revision;
  for (int row = 0; row < rows.size() && !none; ++row) {
    const auto at = rows.number(row, 7);
    if (at > last + 1) break;
    last = at;
    changes.writes.push_back(write_at(rows, row, 4));
  }
  if (last != changes.revision) {
    return fail(ErrorCode::kInvalid,
                fmt::format("database: the changes of revision {} are gone from table "
                            "meshd_controller.changes",
                            last + 1));
  }
  seen_ = {changes.revision, *id};
  return changes;
}

Status PostgresStore::backup(const std::string& path) {
  return write_sqlite_copy(path, TRY(load()));
}

// --- committing ----------------------------------------------------------------------

Result<std::uint64_t> PostgresStore::commit(std::uint64_t expected, const Writes& writes) {
  if (writes.empty()) return expected;
  CHECK_OK(check_writes(writes));
  auto commit = prepared(expected, writes, TRY(draw_id()));
  for (;;) {
    std::string why;
    switch (TRY(attempt(commit, why))) {
      case Turn::kTaken:
        seen_ = {expected + 1, commit.id};
        return expected + 1;
      case Turn::kBehind:
        return fail(ErrorCode::kConflict,
                    fmt::format("store: revision {} is behind that of the database", expected));
      case Turn::kAgain:
        break;
    }
    if (Steady::now() + kSettlePause >= commit.deadline) {
      return fail(ErrorCode::kNotInForce,
                  fmt::format("database: whether revision {} was stored is not known: {}",
                              expected + 1, why));
    }
    poll(nullptr, 0, static_cast<int>(kSettlePause.count()));
  }
}

PostgresStore::Commit PostgresStore::prepared(std::uint64_t expected, const Writes& writes,
                                              const Uuid& id) const {
  std::map<std::pair<Kind, std::string_view>, std::size_t> last;
  for (std::size_t i = 0; i < writes.size(); ++i) last[{writes[i].kind, writes[i].key}] = i;
  PgArray kinds(PgArray::Of::kInt4), keys(PgArray::Of::kText), values(PgArray::Of::kBytea),
      lasts(PgArray::Of::kBool);
  for (std::size_t i = 0; i < writes.size(); ++i) {
    const auto& write = writes[i];
    kinds.add(static_cast<std::int32_t>(write.kind));
    keys.add(write.key);
    values.add(write.value);
    lasts.add(last[{write.kind, write.key}] == i);
  }
  const auto follows =
      seen_ && seen_->revision == expected ? std::optional(seen_->id) : std::nullopt;
  Commit commit;
  commit.expected = expected;
  commit.id = id;
  commit.deadline = Steady::now() + options_.settle;
  commit.params = {pg_number(expected),
                   pg_uuid(id),
                   pg_number(logged_bytes(writes)),
                   pg_number(options_.kept_revisions),
                   pg_number(options_.kept_bytes),
                   pg_number(options_.steps.size()),
                   pg_uuid(identity_),
                   pg_uuid(follows),
                   kinds.param(),
                   keys.param(),
                   values.param(),
                   lasts.param()};
  return commit;
}

Result<PostgresStore::Turn> PostgresStore::attempt(Commit& commit, std::string& why) {
  if (commit.in_doubt) pace_.next = {};  // not a matter of seconds any more
  auto session = this->session();
  if (!session) {
    if (!commit.in_doubt) return std::unexpected(std::move(session).error());
    why = session.error().what;
    return Turn::kAgain;
  }
  auto rows = (*session)->run(kCommit, commit.params, commit.deadline);
  if (rows && rows->size() == 1) {
    if (!(*session)->lone_commit()) return Turn::kTaken;
    return fail(ErrorCode::kNotInForce,
                fmt::format("database: revision {} is on {} alone: the wait for its standby was "
                            "ended from outside",
                            commit.expected + 1, (*session)->host()));
  }
  if (rows) return look_up(commit, **session, why);
  why = rows.error().what;
  if (!(*session)->alive()) {
    commit.in_doubt = true;
    return Turn::kAgain;
  }
  // It was refused: this attempt had no effect.
  if ((*session)->sqlstate() == "25006") {  // a primary that has become a standby
    (*session)->close();
    pace_.next = {};
    commit.in_doubt = true;
  }
  if (commit.in_doubt) return Turn::kAgain;
  return std::unexpected(
      std::move(rows).error().in(fmt::format("database: store revision {}", commit.expected + 1)));
}

// The statement found nothing to do: another revision is stored, perhaps by an attempt before.
Result<PostgresStore::Turn> PostgresStore::look_up(Commit& commit, PgSession& session,
                                                   std::string& why) {
  const auto rows = session.run(kLookUp, {pg_number(commit.expected)}, commit.deadline);
  if (!rows) {
    why = rows.error().what;
    commit.in_doubt = true;
    return Turn::kAgain;
  }
  if (rows->size() == 0) return foreign();
  if (rows->uuid(0, 4) == commit.id) return Turn::kTaken;
  if (rows->uuid(0, 3) != identity_) return foreign();
  if (rows->number(0, 2) != options_.steps.size()) {
    return newer(rows->number(0, 2), options_.steps.size());
  }
  if (commit.in_doubt && rows->number(0, 1) > commit.expected) {
    return fail(ErrorCode::kNotInForce,
                fmt::format("database: whether revision {} was stored is not known: it is no "
                            "longer in the log",
                            commit.expected + 1));
  }
  return Turn::kBehind;
}

}  // namespace meshd::controller
