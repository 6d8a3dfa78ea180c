// JSON that the API answered, as the house's small tree: what a declaration inside it means is
// then for policy's own reader to say.
//
// Threads: any.
// Errors:  kInvalid for what is not JSON (in UTF-8, keys unique); kExhausted past a limit, among
//          them numbers that no double holds.
// Source:  RFC 8259; nlohmann-json 3.11's event interface. Numbers keep their text's meaning:
//          whoever wants one parses it with its own range.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/result.h"
#include "policy/read_yaml.h"

namespace meshd::arvados {

// Lines are 0: there is no file. Texts are `quoted`, numbers and truth values are not.
[[nodiscard]] Result<policy::YamlNode> read_json(std::string_view text);

// The value of a key of a mapping; null when there is none, or `node` is no mapping.
[[nodiscard]] const policy::YamlNode* find(const policy::YamlNode& node, std::string_view key);

// About the bytes of its text.
[[nodiscard]] std::size_t weight(const policy::YamlNode& node);

}  // namespace meshd::arvados
