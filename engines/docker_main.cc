// mesh-docker: see engines/docker_driver.h.

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engines/docker_serve.h"
#include "engines/files.h"
#include "engines/program.h"

namespace meshd::engines {
namespace {

constexpr std::string_view kUsage =
    "usage: mesh-docker [--listen SOCKET] [--docker-socket SOCKET] [--docker-root DIR] "
    "[--runtime NAME] [--run-dir DIR] [--state-dir DIR]";

Status take_options(std::vector<std::string> arguments, std::string& listen,
                    DriverOptions& options) {
  options.places = TRY(take_places(arguments));
  const std::array<std::pair<std::string_view, std::string*>, 4> known = {
      {{"--listen", &listen},
       {"--docker-socket", &options.docker_socket},
       {"--docker-root", &options.docker_root},
       {"--runtime", &options.runtime}}};
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    const auto* const found =
        std::ranges::find(known, arguments[i], &std::pair<std::string_view, std::string*>::first);
    if (found == known.end() || i + 1 == arguments.size() || arguments[i + 1].empty()) {
      return fail(ErrorCode::kInvalid, std::string(kUsage));
    }
    *found->second = arguments[i + 1];
  }
  return {};
}

int end_with(const Error& error) {
  [[maybe_unused]] const auto written =
      write_all(2, fmt::format("mesh-docker: {}\n", printable(error.what)));
  return 1;
}

int serve(std::vector<std::string> arguments) {
  // Before there are threads, which take it from here.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  signal(SIGPIPE, SIG_IGN);
  std::string listen = "/run/docker/plugins/mesh.sock";
  DriverOptions options;
  if (const auto taken = take_options(std::move(arguments), listen, options); !taken) {
    return end_with(taken.error());
  }
  const auto server = DockerServer::start(listen, std::move(options));
  if (!server) return end_with(server.error());
  int number = 0;
  sigwait(&ends, &number);
  return 0;
}

}  // namespace
}  // namespace meshd::engines

int main(int argc, char** argv) {
  return meshd::engines::serve({argv + std::min(argc, 1), argv + argc});
}
