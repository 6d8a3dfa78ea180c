// What the programs share around their work: options, environment, the deadline's last
// resort, and their one line for people.
//
// Threads: one; the last resort is the kernel's timer.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engines/attach.h"

namespace meshd::engines {

// From --run-dir, --state-dir; else MESHD_RUN_DIR, MESHD_STATE_DIR; else the defaults. What they
// are is taken out of `arguments`.
[[nodiscard]] Result<Places> take_places(std::vector<std::string>& arguments);

// Half a second after the deadline the process says `last_words` to `fd` and ends with 1, wherever
// it is: an engine that waits for it starts nothing else. The text must live as long as it does.
void end_after_deadline(int fd, std::string_view last_words);
// What is said from here on is the only answer, however slowly the process ends.
void forget_deadline();

// One line without control characters, not too long; in UTF-8, for it may become part of JSON.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace meshd::engines
