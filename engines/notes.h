// The notes that the daemon leaves for when it does not answer, as far as they concern one
// container. No notes, no daemon so far: nobody has declared anything.
//
// Errors: kSystem, kInvalid: a node whose notes cannot be read starts no container that it could
//         be wrong about.
// Source: meshd/engine_notes.h, which writes them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engines/launch.h"

namespace meshd::engines {

[[nodiscard]] Result<Notes> parse_rules(std::string_view text);
[[nodiscard]] Result<Notes> read_notes(const std::string& state_dir,
                                       const std::vector<std::string>& ids);

}  // namespace meshd::engines
