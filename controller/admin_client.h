// Carries an administrator's command out: finds the running controller, asks it, and says what
// came of it.
//
// Threads: pki::require_tls13() before any other thread.
// Errors:  one line, and the exit code that meshctl would end with.
#pragma once

#include <expected>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "controller/cli.h"
#include "pki/certificate.h"

namespace meshd::controller {

struct AdminOutput {
  std::string text;  // for scripts: a ticket, a table
  std::string note;  // for people
};
struct [[nodiscard]] AdminFailure {
  int exit = 1;  // 1: refused or failed, 3: no controller was reached
  std::string what;

  AdminFailure(int code, std::string text) : exit(code), what(std::move(text)) {}
  // Implicit on purpose, for TRY.
  AdminFailure(Error error) : what(std::move(error.what)) {}  // NOLINT(google-explicit-constructor)
};
// `clock` says how long what was got is good.
using UtcClock = std::function<pki::UtcTime()>;
[[nodiscard]] pki::UtcTime utc_now();
[[nodiscard]] std::expected<AdminOutput, AdminFailure> run_admin(const AdminCommand& command,
                                                                 const UtcClock& clock = utc_now);

// Where a controller that listens there is found from the same machine.
[[nodiscard]] std::vector<std::string> local_addresses(const std::string& listen);

}  // namespace meshd::controller
