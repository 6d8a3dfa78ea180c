// The controller from its start to its end: opens what init() made, serves, and stops when told.
//
// Start:   authority and store -> the cluster folded -> both ports -> READY.
// Threads: run on the main thread; signals are blocked before any thread starts.
#pragma once

#include <functional>

#include "base/result.h"
#include "controller/config.h"

namespace meshd::controller {

// Returns when SIGTERM or SIGINT has come and all is closed. `ready` is told the two ports, `alive`
// is called every second by the loop that all changes pass.
[[nodiscard]] Status serve(const Config& config, const std::function<void(int, int)>& ready,
                           const std::function<void()>& alive);

}  // namespace meshd::controller
