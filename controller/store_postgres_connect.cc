// Sessions of a PostgreSQL store: connecting and coming back, the tables, the waking.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "controller/store_postgres.h"
#include "controller/store_schema.h"

namespace meshd::controller {
namespace {

using std::chrono::milliseconds;

// Of all who might use advisory locks in this database only we use this number: "meshctrl".
constexpr std::uint64_t kMigrationLock = 0x6d6573686374726c;
constexpr std::string_view kNewsChannel = "meshd_controller_news";
constexpr int kOldestServer = 130000;  // the oldest that is kept up, and has gen_random_uuid()

}  // namespace

PostgresStore::PostgresStore(std::string conninfo, const StoreOptions& options)
    : conninfo_(std::move(conninfo)), options_(options) {
  if (options_.steps.empty()) options_.steps = schema::kPostgresSteps;
}

Result<std::unique_ptr<PostgresStore>> PostgresStore::open(const std::string& conninfo,
                                                           const StoreOptions& options) {
  std::unique_ptr<PostgresStore> store(new PostgresStore(conninfo, options));
  store->wake_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!store->wake_) return fail_errno("epoll_create1", errno);
  store->timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!store->timer_) return fail_errno("timerfd_create", errno);
  epoll_event event{.events = EPOLLIN, .data = {}};
  if (epoll_ctl(store->wake_.get(), EPOLL_CTL_ADD, store->timer_.get(), &event) != 0) {
    return fail_errno("epoll_ctl", errno);
  }
  CHECK_OK(store->connect());
  store->listen();
  return store;
}

Result<std::unique_ptr<Store>> open_postgres_store(const std::string& conninfo,
                                                   const StoreOptions& options) {
  return TRY(PostgresStore::open(conninfo, options));
}

void PostgresStore::Pace::failed(const StoreOptions& options) {
  wait = wait == milliseconds{} ? options.retry_first : std::min(2 * wait, options.retry_last);
  next = Steady::now() + wait;
}

// --- the session that asks -----------------------------------------------------------

Result<PgSession*> PostgresStore::session() {
  if (session_.alive()) return &session_;
  const auto left = pace_.next - Steady::now();
  if (left.count() > 0) {
    return fail(ErrorCode::kSystem,
                fmt::format("database away: {}; tried again in {:.1f} s", away_,
                            std::chrono::duration<double>(left).count()),
                ENOTCONN);
  }
  auto status = connect();
  if (status) {
    pace_ = {};
    // Who was lost to this session was perhaps lost to the other, or it hears an old primary.
    listener_.close();
    listen_pace_ = {};
    arm(milliseconds(1));
    return &session_;
  }
  pace_.failed(options_);
  if (status.error().code != ErrorCode::kSystem) return std::unexpected(std::move(status).error());
  away_ = status.error().what;
  return fail(ErrorCode::kSystem,
              fmt::format("database away: {}; tried again in {:.1f} s", away_,
                          std::chrono::duration<double>(pace_.wait).count()),
              ENOTCONN);
}

Status PostgresStore::connect() {
  auto session =
      TRY(PgSession::connect(conninfo_, {options_.patience, options_.whole, options_.reach}));
  if (session.server_version() < kOldestServer) {
    return fail(ErrorCode::kUnsupported, fmt::format("database: PostgreSQL {}: 13 at least",
                                                     session.server_version() / 10000));
  }
  CHECK_OK(set_up(session));
  CHECK_OK(look_around(session));
  // Only at the start: what comes up empty later is another database.
  if (!identity_) CHECK_OK(migrate(session));
  CHECK_OK(check_tables(session));
  session_ = std::move(session);
  return {};
}

Status PostgresStore::set_up(PgSession& session) const {
  // A commit that hangs holds the row, for its standby is away: others are told while they
  // still listen. No weaker promise than "on both disks", whatever the server's default is.
  return session.script(
      fmt::format("SET search_path = pg_catalog; SET client_min_messages = warning; "
                  "SET default_transaction_isolation = 'read committed'; "
                  "SET lock_timeout = {}; SET statement_timeout = {}; "
                  "SELECT set_config('synchronous_commit', 'on', false) "
                  "WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')",
                  options_.patience.count() / 2, options_.whole.count()));
}

Status PostgresStore::look_around(PgSession& session) {
  const auto rows =
      TRY(session.run("SELECT current_setting('synchronous_standby_names') = '', "
                      "current_setting('fsync') = 'off'"));
  warning_.clear();
  if (rows.number(0, 0) != 0) {
    warning_ = fmt::format(
        "database on {}: synchronous_standby_names is empty: when it is lost "
        "and a standby takes over, changes that were acknowledged may be lost",
        session.host());
  }
  if (rows.number(0, 1) != 0) {
    warning_ += fmt::format(
        "{}database on {}: fsync is off: a power loss loses changes that were "
        "acknowledged, or all",
        warning_.empty() ? "" : "; ", session.host());
  }
  return {};
}

Status PostgresStore::check_tables(PgSession& session) {
  const auto got = session.run("SELECT version, identity FROM meshd_controller.state");
  if (!got && !session.sqlstate().starts_with("42")) return std::unexpected(got.error());
  if (!got || got->size() != 1) {  // 42: no such table, or none of ours
    return fail(ErrorCode::kInvalid,
                fmt::format("database on {}: the controller's tables are gone: {}", session.host(),
                            got ? "no row in meshd_controller.state" : got.error().what));
  }
  const auto& rows = *got;
  const auto version = rows.number(0, 0);
  if (version > options_.steps.size()) {
    return fail(ErrorCode::kInvalid,
                fmt::format("database: written by a newer mesh-controller (schema {}, this one "
                            "knows {}): install that one here too",
                            version, options_.steps.size()));
  }
  const auto identity = rows.uuid(0, 1);
  if (identity_ && identity != identity_) {
    return fail(ErrorCode::kInvalid,
                fmt::format("database on {}: its tables are another cluster's: check the hosts in "
                            "the connection string",
                            session.host()));
  }
  identity_ = identity;
  return {};
}

// Whoever comes first makes the tables; the others wait for that.
Status PostgresStore::migrate(PgSession& session) {
  CHECK_OK(session.script("BEGIN"));
  CHECK_OK(session.run("SELECT pg_advisory_xact_lock($1)", {pg_number(kMigrationLock)}));
  CHECK_OK(run_steps(session));
  return session.script("COMMIT");
}

Status PostgresStore::run_steps(PgSession& session) {
  const auto there =
      TRY(session.run("SELECT to_regnamespace('meshd_controller') IS NOT NULL, "
                      "to_regclass('meshd_controller.state') IS NOT NULL"));
  if (there.number(0, 0) == 0) CHECK_OK(session.script("CREATE SCHEMA meshd_controller"));
  std::uint64_t version = 0;
  if (there.number(0, 1) != 0) {
    const auto rows = TRY(session.run("SELECT version FROM meshd_controller.state FOR UPDATE"));
    if (rows.size() == 1) version = rows.number(0, 0);
  }
  const auto known = options_.steps.size();
  if (version >= known) return {};
  for (auto step = version; step < known; ++step) {
    if (auto status = session.script(std::string(options_.steps[step])); !status) {
      return std::unexpected(std::move(status).error().in(fmt::format("schema step {}", step + 1)));
    }
  }
  CHECK_OK(session.run("UPDATE meshd_controller.state SET version = $1", {pg_number(known)}));
  return {};
}

// --- the session that listens --------------------------------------------------------

void PostgresStore::arm(milliseconds wait) {
  const auto ns = std::chrono::nanoseconds(wait).count();
  itimerspec when{};
  when.it_value = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  timerfd_settime(timer_.get(), 0, &when, nullptr);
}

// Without a listener the descriptor wakes its owner by the timer, who asks then.
void PostgresStore::listen() {
  if (try_listen()) {
    listen_pace_ = {};
    arm({});
    return;
  }
  listener_.close();
  listen_pace_.failed(options_);
  arm(listen_pace_.wait);
}

bool PostgresStore::try_listen() {
  auto session = PgSession::connect(conninfo_, {options_.patience, options_.whole, options_.reach});
  if (!session || !session->script("LISTEN meshd_controller; LISTEN meshd_controller_news"))
    return false;
  listener_ = std::move(*session);
  epoll_event event{.events = EPOLLIN, .data = {}};
  return epoll_ctl(wake_.get(), EPOLL_CTL_ADD, listener_.socket(), &event) == 0;
}

Store::Heard PostgresStore::hear() {
  Heard heard;
  std::uint64_t expirations = 0;
  // By the timer it is not known what there was to hear meanwhile.
  heard.changed = read(timer_.get(), &expirations, sizeof expirations) > 0;
  const auto own = session_.process();
  const auto take = [&](const PgSession::Note& note) {
    if (note.channel == kNewsChannel) {
      heard.news.emplace_back(note.payload);
    } else {
      // Our own commits are known to us: to ask for them would be a second way for each of them.
      heard.changed |= note.process != own;
    }
  };
  if (listener_.drain(take)) return heard;
  heard.changed = true;
  const auto left = std::chrono::ceil<milliseconds>(listen_pace_.next - Steady::now());
  if (left.count() > 0) {
    arm(left);
  } else {
    listen();
  }
  return heard;
}

// No table is written: it waits neither for a disk nor for a standby.
Status PostgresStore::tell(const std::vector<std::string>& news) {
  PgArray lines(PgArray::Of::kText);
  for (const auto& line : news) lines.add(line);
  CHECK_OK(ask("SELECT pg_notify('meshd_controller_news', line) FROM unnest($1::text[]) AS line",
               {lines.param()}));
  return {};
}

}  // namespace meshd::controller
