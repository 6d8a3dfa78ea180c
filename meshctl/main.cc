// meshctl: the command line of a node's meshd, and of a cluster's controller.

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "meshctl/cli.h"
#include "meshctl/io.h"
#include "meshctl/run.h"
#include "meshctl/text.h"
#include "pki/grpc_credentials.h"

namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

int main(int argc, char** argv) {
  namespace ctl = meshd::ctl;
  const std::vector<std::string> args(argv + std::min(argc, 1), argv + argc);
  ctl::Environment environment;
  environment.style = ctl::style_of(environment.out);
  const auto outcome = [&]() -> ctl::Outcome<ctl::Exit> {
    const auto command =
        TRY(ctl::parse(args, {variable("MESHD_RUN_DIR"), variable("MESHD_CONTROLLER"),
                              variable("MESHD_IDENTITY")}));
    // Before gRPC has read its environment; a node's own sockets know nothing of TLS.
    if (command.controller) CHECK_OK(meshd::pki::require_tls13());
    return ctl::run(command, environment);
  }();
  if (outcome) return std::to_underlying(*outcome);
  const auto line = fmt::format("meshctl: {}\n", ctl::printable(outcome.error().what));
  // Nothing is left to do about a stderr that takes no text; the exit code still tells.
  [[maybe_unused]] const auto written = ctl::write_all(2, line);
  return std::to_underlying(outcome.error().exit);
}
