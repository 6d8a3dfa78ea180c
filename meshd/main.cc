// meshd: the per-node daemon. See meshd(8).
#include <fmt/format.h>
#include <signal.h>

#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "base/log.h"
#include "meshd/config.h"
#include "meshd/daemon.h"
#include "meshd/notify.h"
#include "pki/grpc_credentials.h"

namespace {

constexpr std::string_view kHelp = R"(Usage: meshd [OPTION]...

The per-node daemon of the mesh: stable names for containers through its own DNS
resolver, and nftables rules that let only declared flows pass. Needs root.

  --config FILE     read this file (default /etc/meshd/meshd.yaml, which need not exist)
  --check-config    check the configuration and leave: 0 good, 1 not, with the line
  --purge           remove everything of ours from this node: table, links, routes and
                    addresses; refused while a daemon runs
  --version         say the version
  --help            this text

A first declaration is in the README; `meshctl --help` is the way on from here.
)";

struct Options {
  std::optional<std::string> config;
  bool check = false, purge = false;
};

int usage(const std::string& why) {
  fmt::print(stderr, "meshd: {}; see meshd --help\n", why);
  return 2;
}

int failed(const meshd::Error& error) {
  fmt::print(stderr, "meshd: {}\n", error.what);
  return 1;
}

// Who looks at the unit reads there why, without the log.
int ended(const meshd::Error& error) {
  [[maybe_unused]] const auto told = meshd::notify_failed(error);
  return failed(error);
}

int serve(meshd::Config config) {
  // Before any thread: it sets an environment variable.
  if (config.controller) {
    if (const auto status = meshd::pki::require_tls13(); !status) return ended(status.error());
  }
  // In every thread to come: the loop takes them from a descriptor.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  meshd::log::init(config.log_level, config.log_format.value_or(meshd::journal_or_text()));
  auto daemon = meshd::Daemon::start(std::move(config));
  if (!daemon) return ended(daemon.error());
  const auto status = (*daemon)->run();
  return status ? 0 : ended(status.error());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      fmt::print("{}", kHelp);
      return 0;
    }
    if (argument == "--version") {
      fmt::print("meshd {}\n", meshd::kVersion);
      return 0;
    }
    if (argument == "--check-config") {
      options.check = true;
    } else if (argument == "--purge") {
      options.purge = true;
    } else if (argument == "--config" && i + 1 < argc) {
      options.config = argv[++i];
    } else if (argument.starts_with("--config=")) {
      options.config = argument.substr(std::strlen("--config="));
    } else {
      return usage(fmt::format("unknown or incomplete option {}", argument));
    }
  }
  auto config = meshd::load_config(options.config.value_or(meshd::kDefaultConfigPath),
                                   options.config.has_value());
  if (!config) return options.check ? failed(config.error()) : ended(config.error());
  if (options.check) {
    fmt::print("configuration is good\n");
    return 0;
  }
  if (options.purge) {
    const auto status = meshd::purge(*config);
    return status ? 0 : failed(status.error());
  }
  return serve(*std::move(config));
}
