// mesh-hook: see engines/hook.h.

#include <fmt/format.h>
#include <syslog.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engines/files.h"
#include "engines/hook.h"
#include "engines/limits.h"
#include "engines/program.h"

int main(int argc, char** argv) {
  namespace engines = meshd::engines;
  engines::end_after_deadline(2, "mesh-hook: meshd does not answer in time\n");
  const auto by = meshd::BootClock::now() + engines::kDeadline;
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  const bool ends = !arguments.empty() && arguments.front() == "detach";
  const auto status = engines::run_hook(std::move(arguments), 0, by);
  engines::forget_deadline();
  if (status) return 0;
  const auto line = engines::printable(status.error().what);
  [[maybe_unused]] const auto written = engines::write_all(2, fmt::format("mesh-hook: {}\n", line));
  // Some runtimes say only that a hook has failed (crun 1.8).
  openlog("mesh-hook", 0, LOG_DAEMON);
  syslog(ends ? LOG_WARNING : LOG_ERR, "%s", line.c_str());
  return ends ? 0 : 1;
}
