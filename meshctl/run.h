// Carries a Command out: reads files, calls the daemon, prints the answer.
//
// Owns:   nothing of the environment; its descriptors stay the caller's.
// Errors: a Failure holds the one line for stderr; nothing has been printed there yet.
#pragma once

#include <string>

#include "meshctl/cli.h"
#include "meshctl/client.h"
#include "meshctl/failure.h"
#include "meshctl/netns.h"
#include "meshctl/text.h"

namespace meshd::ctl {

struct Environment {
  int in = 0;
  int out = 1;
  int err = 2;
  Style style;  // of `out`
  std::string netns_dir{kNetnsDir};
  // Readable when `watch` shall end; below 0: on SIGINT or SIGTERM.
  int stop_fd = -1;
  Timeouts timeouts;
};

[[nodiscard]] Outcome<Exit> run(const Command& command, const Environment& environment);

}  // namespace meshd::ctl
