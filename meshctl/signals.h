// Signals that would end meshctl at the wrong moment.
//
// Threads: masks belong to the calling thread; threads made later inherit them.
#pragma once

#include <signal.h>

#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd::ctl {

// Readable once SIGINT or SIGTERM has come. Both stay blocked until the process ends, so
// it is for a command that ends with them.
[[nodiscard]] Result<UniqueFd> open_stop_signals();

// Holds Ctrl-C and its kin back for a scope in which something is half done; one that
// came meanwhile is delivered at the end of it.
class SignalsHeld {
 public:
  SignalsHeld();
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;
  ~SignalsHeld();

 private:
  sigset_t before_{};
};

}  // namespace meshd::ctl
