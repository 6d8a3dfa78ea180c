// mesh-cni: see engines/cni_run.h.

#include <unistd.h>

#include <string>
#include <string_view>

#include "base/clock.h"
#include "engines/cni_run.h"
#include "engines/files.h"
#include "engines/limits.h"
#include "engines/program.h"

int main() {
  namespace engines = meshd::engines;
  engines::end_after_deadline(
      1, R"({"cniVersion":"1.0.0","code":11,"msg":"meshd does not answer in time"})");
  const auto by = meshd::BootClock::now() + engines::kDeadline;
  engines::Variables variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const auto equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  const auto answer = engines::run_cni(variables, 0, by);
  engines::forget_deadline();
  if (!engines::write_all(1, answer.text)) return 1;
  return answer.exit;
}
