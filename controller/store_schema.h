// The tables of both stores, and the steps that lead to them from every older version.
//
// Invariants: a step that was released is never changed; a new version appends one. A row of
//             `changes` is one write of the commit that made its revision, in the order of
//             `at`; `total` counts the bytes of all changes ever, up to that commit: the log is
//             trimmed by it. Revisions up to `trimmed` are gone from the log.
// Source:     sqlite.org/stricttables.html; postgresql.org/docs/15/explicit-locking.html.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace meshd::controller::schema {

// "mcon" in the file's header, so that another program's database is not taken for ours.
inline constexpr std::int32_t kApplicationId = 0x6d636f6e;

// SQLite's user_version is the number of steps seen. Every row ends in `sum`, a check sum over
// its other columns, and state.objects is the sum of those of all objects: SQLite does not
// notice a flipped bit in a value.
inline constexpr std::array<std::string_view, 1> kSqliteSteps = {R"sql(
CREATE TABLE state (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  revision INTEGER NOT NULL,
  trimmed INTEGER NOT NULL,
  total INTEGER NOT NULL,
  objects INTEGER NOT NULL,
  sum INTEGER NOT NULL
) STRICT;
CREATE TABLE objects (
  kind INTEGER NOT NULL,
  key TEXT NOT NULL,
  revision INTEGER NOT NULL,
  value BLOB NOT NULL,
  sum INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) STRICT;
CREATE TABLE changes (
  revision INTEGER NOT NULL,
  at INTEGER NOT NULL,
  total INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  key TEXT NOT NULL,
  value BLOB,
  sum INTEGER NOT NULL,
  PRIMARY KEY (revision, at)
) STRICT;
CREATE INDEX changes_total ON changes (total);
)sql"};

// state.version is the number of steps seen; every commit asks for it, so that an older
// controller stops when a newer one has brought the tables up. The one row of `state` is the
// lock that makes the order of commits the order of revisions: with a sequence they would
// become visible out of order, and a reader would miss some. `commit_id` is drawn by who
// commits: after a connection broke it tells whether it was taken, and after a fail-over whether
// a revision is still the one that was seen. `identity` tells this cluster's tables from any
// others. Keys are compared as bytes, as SQLite does.
inline constexpr std::array<std::string_view, 1> kPostgresSteps = {R"sql(
CREATE TABLE meshd_controller.state (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  identity uuid NOT NULL,
  version integer NOT NULL,
  revision bigint NOT NULL,
  commit_id uuid NOT NULL,
  trimmed bigint NOT NULL,
  total bigint NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE meshd_controller.objects (
  kind integer NOT NULL,
  key text COLLATE "C" NOT NULL,
  revision bigint NOT NULL,
  value bytea NOT NULL,
  PRIMARY KEY (kind, key)
);
CREATE TABLE meshd_controller.changes (
  revision bigint NOT NULL,
  at integer NOT NULL,
  commit_id uuid NOT NULL,
  total bigint NOT NULL,
  kind integer NOT NULL,
  key text COLLATE "C" NOT NULL,
  value bytea,
  PRIMARY KEY (revision, at)
);
CREATE INDEX changes_total ON meshd_controller.changes (total);
INSERT INTO meshd_controller.state
VALUES (true, gen_random_uuid(), 0, 0, gen_random_uuid(), 0, 0);
)sql"};

}  // namespace meshd::controller::schema
