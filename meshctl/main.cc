// meshctl: the command line of a node's meshd.

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "meshctl/cli.h"
#include "meshctl/io.h"
#include "meshctl/run.h"
#include "meshctl/text.h"

int main(int argc, char** argv) {
  namespace ctl = meshd::ctl;
  const std::vector<std::string> args(argv + std::min(argc, 1), argv + argc);
  const char* run_dir = std::getenv("MESHD_RUN_DIR");
  ctl::Environment environment;
  environment.style = ctl::style_of(environment.out);
  const auto outcome = [&]() -> ctl::Outcome<ctl::Exit> {
    const auto command = TRY(ctl::parse(args, run_dir == nullptr ? "" : run_dir));
    return ctl::run(command, environment);
  }();
  if (outcome) return std::to_underlying(*outcome);
  const auto line = fmt::format("meshctl: {}\n", ctl::printable(outcome.error().what));
  // Nothing is left to do about a stderr that takes no text; the exit code still tells.
  [[maybe_unused]] const auto written = ctl::write_all(2, line);
  return std::to_underlying(outcome.error().exit);
}
