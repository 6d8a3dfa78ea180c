// mesh-runc: stands before an OCI runtime and adds our hooks to what it creates. For engines
// that have no hooks of their own (Docker); everything else is the runtime's.
//
// Errors: a container whose configuration cannot be given hooks is not created.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace meshd::engines {

// What is ours of the command line, and the runtime's.
struct WrapperCall {
  std::string runtime = "runc";
  std::string hook;                    // absolute
  std::vector<std::string> options;    // of the hook
  std::vector<std::string> arguments;  // of the runtime
};

// `self` is our own path: mesh-hook lies beside it. Ours are --mesh-runtime=, --mesh-hook=,
// --mesh-run-dir= and --mesh-state-dir=; MESHD_RUN_DIR and MESHD_STATE_DIR go to the hook.
[[nodiscard]] Result<WrapperCall> parse_wrapper_call(const std::vector<std::string>& arguments,
                                                     const std::string& self);

// Adds the hooks where the command creates a container. Afterwards the runtime is to be run.
[[nodiscard]] Status prepare_bundle(const WrapperCall& call);

}  // namespace meshd::engines
