// mesh-docker: see engines/docker_driver.h.

#include <fmt/format.h>
#include <signal.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
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

// Without a service manager what it would be told goes nowhere.
int end_with(const Error& error) {
  const auto why = printable(error.what);
  [[maybe_unused]] const auto written = write_all(2, fmt::format("mesh-docker: {}\n", why));
  sd_notifyf(0, "STATUS=%s", why.c_str());
  return 1;
}

// Until one of `ends` comes. The manager hears that we live as long as calls are answered.
void wait_for(const sigset_t& ends, const DockerServer& server) {
  std::uint64_t watchdog_us = 0;
  const bool is_watched = sd_watchdog_enabled(0, &watchdog_us) > 0;
  const std::chrono::microseconds every(is_watched ? watchdog_us / 3 : 3'600'000'000);
  const auto seconds = std::chrono::floor<std::chrono::seconds>(every);
  const timespec pause{seconds.count(), std::chrono::nanoseconds(every - seconds).count()};
  while (sigtimedwait(&ends, nullptr, &pause) < 0) {
    if (errno == EAGAIN && is_watched && server.answers(BootClock::now() + every)) {
      sd_notify(0, "WATCHDOG=1");
    }
  }
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
  sd_notifyf(0, "READY=1\nSTATUS=answers dockerd at %s", (*server)->path().c_str());
  wait_for(ends, **server);
  sd_notify(0, "STOPPING=1");
  return 0;
}

}  // namespace
}  // namespace meshd::engines

int main(int argc, char** argv) {
  return meshd::engines::serve({argv + std::min(argc, 1), argv + argc});
}
