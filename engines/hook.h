// mesh-hook: an OCI hook. `attach` before the payload runs (createRuntime), `detach` after it
// has ended (poststop). Exit 1 keeps the container from starting; its line is in the engine's
// error.
//
// Errors: never from `detach`: what an engine cannot undo, the daemon notices itself.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace meshd::engines {

// `input` is where the OCI state comes from.
[[nodiscard]] Status run_hook(std::vector<std::string> arguments, int input, TimePoint by);

}  // namespace meshd::engines
