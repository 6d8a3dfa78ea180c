// What the audit log says of a change: who asked for it, and of what. Pure.
#pragma once

#include <string>
#include <vector>

#include "meshd/api.h"
#include "policy/types.h"

namespace meshd {

// "uid 0 pid 1234"
[[nodiscard]] std::string caller_text(Caller caller);

// "apply db of ada, worker of ada": as many lines as it takes for the log to cut none.
[[nodiscard]] std::vector<std::string> apply_lines(
    const std::vector<policy::Declaration>& declarations);

}  // namespace meshd
