#include "controller/store_pg.h"

#include <endian.h>
#include <fmt/format.h>
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace meshd::controller {
namespace {

// pg_type.dat: what a server knows under the same number everywhere.
enum Oid : std::uint32_t {
  kOidBool = 16,
  kOidBytea = 17,
  kOidInt8 = 20,
  kOidInt4 = 23,
  kOidText = 25,
  kOidBoolArray = 1000,
  kOidByteaArray = 1001,
  kOidInt4Array = 1007,
  kOidTextArray = 1009,
  kOidUuid = 2950,
};
struct ArrayOids {
  std::uint32_t array, element;
};
constexpr std::array<ArrayOids, 4> kArrays = {ArrayOids{kOidBoolArray, kOidBool},
                                              {kOidInt4Array, kOidInt4},
                                              {kOidTextArray, kOidText},
                                              {kOidByteaArray, kOidBytea}};

std::string big_endian(std::uint32_t value) {
  const auto wire = htobe32(value);
  return {reinterpret_cast<const char*>(&wire), sizeof wire};
}

std::string trimmed(const char* text) {
  std::string result = text == nullptr ? "" : text;
  result.erase(result.find_last_not_of(" \n") + 1);
  std::ranges::replace(result, '\n', ' ');  // libpq says a line for each host
  return result;
}

// A warning without a SQLSTATE of its own, whose text the server translates.
bool ended_wait(const PGresult* result) {
  const char* const function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);
  return function != nullptr && std::string_view(function) == "SyncRepWaitForLSN";
}

bool went_well(const PgRows& rows) {
  const auto status = PQresultStatus(rows.get());
  return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

struct OptionsCloser {
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};

struct Keywords {
  std::vector<std::string> names, values;
};

Result<Keywords> complete(const std::string& conninfo, const PgSession::Limits& limits) {
  char* text = nullptr;
  const std::unique_ptr<PQconninfoOption, OptionsCloser> options(
      PQconninfoParse(conninfo.c_str(), &text));
  PQfreemem(text);  // unread: it may quote a part of the password
  if (!options) {
    return fail(ErrorCode::kInvalid,
                "the database's connection string cannot be read: \"host=A,B dbname=D user=U\", "
                "or postgresql://U@A,B/D");
  }
  // A peer that is gone is noticed after ten seconds, also by who only listens.
  const std::vector<std::pair<std::string, std::string>> ours = {
      {"target_session_attrs", "read-write"},
      {"connect_timeout", fmt::format("{}", limits.reach.count())},
      {"keepalives", "1"},
      {"keepalives_idle", "4"},
      {"keepalives_interval", "2"},
      {"keepalives_count", "3"},
      {"tcp_user_timeout", fmt::format("{}", 2 * limits.silence.count())},
      {"application_name", "mesh-controller"},
  };
  Keywords result;
  for (const auto* option = options.get(); option->keyword != nullptr; ++option) {
    const auto own =
        std::ranges::find(ours, option->keyword, [](const auto& o) { return o.first; });
    if (option->val == nullptr && own == ours.end()) continue;
    result.names.emplace_back(option->keyword);
    result.values.push_back(option->val != nullptr ? option->val : own->second);
  }
  return result;
}

}  // namespace

// --- values --------------------------------------------------------------------------

PgParam pg_number(std::uint64_t value) {
  const auto wire = htobe64(value);
  return {kOidInt8, std::string(reinterpret_cast<const char*>(&wire), sizeof wire)};
}

PgParam pg_uuid(const std::optional<Uuid>& value) {
  if (!value) return {kOidUuid, std::nullopt};
  return {kOidUuid, std::string(value->begin(), value->end())};
}

void PgArray::add(std::int32_t value) { add(big_endian(static_cast<std::uint32_t>(value))); }
void PgArray::add(const std::string& value) {
  ++count_;
  elements_ += big_endian(static_cast<std::uint32_t>(value.size()));
  elements_ += value;
}
void PgArray::add(const std::optional<std::string>& value) {
  if (value) return add(*value);
  ++count_;
  nulls_ = true;
  elements_ += big_endian(0xffffffff);
}

// array_recv(): dimensions, whether there are nulls, type; size and first index; elements.
PgParam PgArray::param() const {
  const auto oids = kArrays[std::to_underlying(of_)];
  return {oids.array, big_endian(1) + big_endian(nulls_ ? 1 : 0) + big_endian(oids.element) +
                          big_endian(count_) + big_endian(1) + elements_};
}

void PgRows::Closer::operator()(pg_result* result) const { PQclear(result); }
int PgRows::size() const { return PQntuples(result_.get()); }
bool PgRows::null(int row, int column) const {
  return PQgetisnull(result_.get(), row, column) != 0;
}
std::string_view PgRows::bytes(int row, int column) const {
  return {PQgetvalue(result_.get(), row, column),
          static_cast<std::size_t>(PQgetlength(result_.get(), row, column))};
}
std::uint64_t PgRows::number(int row, int column) const {
  std::uint64_t value = 0;
  for (const char byte : bytes(row, column)) value = value << 8 | static_cast<std::uint8_t>(byte);
  return value;
}
std::optional<Uuid> PgRows::uuid(int row, int column) const {
  const auto text = bytes(row, column);
  Uuid result{};
  if (null(row, column) || text.size() != result.size()) return std::nullopt;
  std::ranges::copy(text, result.begin());
  return result;
}

// --- the session ---------------------------------------------------------------------

void PgSession::Closer::operator()(pg_conn* connection) const { PQfinish(connection); }

Result<PgSession> PgSession::connect(const std::string& conninfo, const Limits& limits) {
  const auto keywords = TRY(complete(conninfo, limits));
  std::vector<const char*> names, values;
  for (const auto& name : keywords.names) names.push_back(name.c_str());
  for (const auto& value : keywords.values) values.push_back(value.c_str());
  names.push_back(nullptr);
  values.push_back(nullptr);
  PgSession session;
  session.limits_ = limits;
  session.connection_.reset(PQconnectdbParams(names.data(), values.data(), /*expand_dbname=*/0));
  auto* const connection = session.connection_.get();
  if (PQstatus(connection) != CONNECTION_OK) {
    return fail(ErrorCode::kSystem, trimmed(PQerrorMessage(connection)), ENOTCONN);
  }
  PQsetnonblocking(connection, 1);
  PQsetNoticeReceiver(
      connection,
      [](void* lone, const PGresult* notice) {
        if (ended_wait(notice)) *static_cast<bool*>(lone) = true;
      },
      session.lone_commit_.get());
  return session;
}

int PgSession::socket() const { return PQsocket(connection_.get()); }
int PgSession::server_version() const { return PQserverVersion(connection_.get()); }
std::string PgSession::host() const {
  const auto* const name = PQhost(connection_.get());
  return name == nullptr ? "" : name;
}

std::unexpected<Error> PgSession::broken(std::string_view how, int sys_errno) {
  auto text = trimmed(PQerrorMessage(connection_.get()));
  close();
  return fail(ErrorCode::kSystem,
              text.empty() ? std::string(how) : fmt::format("{}: {}", how, text), sys_errno);
}

std::unexpected<Error> PgSession::refused(const PgRows& rows) {
  const char* const state = PQresultErrorField(rows.get(), PG_DIAG_SQLSTATE);
  sqlstate_ = state == nullptr ? "" : state;
  const char* const primary = PQresultErrorField(rows.get(), PG_DIAG_MESSAGE_PRIMARY);
  auto text = trimmed(primary != nullptr ? primary : PQresultErrorMessage(rows.get()));
  // The server ends the session (57P01..3), or libpq found it ended (no state, or class 08).
  if (sqlstate_.empty() || sqlstate_.starts_with("57P") || sqlstate_.starts_with("08")) {
    return broken(text, ENOTCONN);
  }
  const bool full = sqlstate_ == "53100";
  return fail(ErrorCode::kSystem, fmt::format("{} (SQLSTATE {})", text, sqlstate_),
              full ? ENOSPC : EIO);
}

Status PgSession::await(short events, Steady::time_point end) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Steady::now()).count();
  pollfd wait{socket(), events, 0};
  const int ready = left <= 0 ? 0 : poll(&wait, 1, static_cast<int>(left));
  if (ready > 0 || (ready < 0 && errno == EINTR)) return {};
  if (ready < 0) return broken("poll", errno);
  return broken("no answer in time", ETIMEDOUT);
}

// Reads while it writes: a server that is full of its own answers takes nothing in.
Status PgSession::flush(Steady::time_point end) {
  for (;;) {
    const int left = PQflush(connection_.get());
    if (left == 0) return {};
    if (left < 0) return broken("send", ENOTCONN);
    CHECK_OK(await(POLLIN | POLLOUT, end));
    if (PQconsumeInput(connection_.get()) == 0) return broken("receive", ENOTCONN);
  }
}

Result<PgRows> PgSession::answer(Steady::time_point deadline) {
  CHECK_OK(flush(std::min(deadline, Steady::now() + limits_.silence)));
  PgRows last(nullptr);
  for (;;) {
    while (PQisBusy(connection_.get()) != 0) {
      CHECK_OK(await(POLLIN, std::min(deadline, Steady::now() + limits_.silence)));
      if (PQconsumeInput(connection_.get()) == 0) return broken("receive", ENOTCONN);
    }
    PgRows rows(PQgetResult(connection_.get()));
    if (rows.get() == nullptr) break;
    if (last.get() == nullptr || went_well(last)) last = std::move(rows);  // else the first counts
  }
  if (!went_well(last)) return refused(last);
  return last;
}

Result<PgRows> PgSession::run(const std::string& sql, const std::vector<PgParam>& params,
                              std::optional<Steady::time_point> deadline) {
  std::vector<unsigned int> types;
  std::vector<const char*> values;
  std::vector<int> lengths;
  for (const auto& param : params) {
    types.push_back(param.type);
    values.push_back(param.bytes ? param.bytes->data() : nullptr);
    lengths.push_back(param.bytes ? static_cast<int>(param.bytes->size()) : 0);
  }
  const std::vector<int> formats(params.size(), 1);
  *lone_commit_ = false;
  sqlstate_.clear();
  if (PQsendQueryParams(connection_.get(), sql.c_str(), static_cast<int>(params.size()),
                        types.data(), values.data(), lengths.data(), formats.data(),
                        /*resultFormat=*/1) == 0) {
    return broken("send", ENOTCONN);
  }
  return answer(deadline.value_or(Steady::now() + limits_.whole));
}

Status PgSession::script(const std::string& sql) {
  sqlstate_.clear();
  if (PQsendQuery(connection_.get(), sql.c_str()) == 0) return broken("send", ENOTCONN);
  CHECK_OK(answer(Steady::now() + limits_.whole));
  return {};
}

bool PgSession::drain(const std::function<void(const Note&)>& take) {
  if (!alive()) return false;
  if (PQconsumeInput(connection_.get()) == 0 || PQstatus(connection_.get()) != CONNECTION_OK) {
    close();
    return false;
  }
  while (auto* const note = PQnotifies(connection_.get())) {
    take({note->relname, note->extra, note->be_pid});
    PQfreemem(note);
  }
  return true;
}

int PgSession::process() const { return alive() ? PQbackendPID(connection_.get()) : 0; }

}  // namespace meshd::controller
