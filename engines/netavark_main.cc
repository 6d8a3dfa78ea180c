// mesh-netavark: see engines/netavark_run.h.

#include <algorithm>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engines/files.h"
#include "engines/limits.h"
#include "engines/netavark_run.h"
#include "engines/program.h"

int main(int argc, char** argv) {
  namespace engines = meshd::engines;
  engines::end_after_deadline(1, R"({"error":"meshd does not answer in time"})");
  const auto by = meshd::BootClock::now() + engines::kDeadline;
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  const auto answer = engines::run_netavark(arguments, 0, by);
  engines::forget_deadline();
  if (!engines::write_all(1, answer.text)) return 1;
  return answer.exit;
}
