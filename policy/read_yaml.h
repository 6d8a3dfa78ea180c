// The one reader of YAML and JSON text: makes a small tree with line numbers, and refuses
// whatever a declaration never needs (anchors, aliases, tags, several documents).
//
// Threads: any.
// Owns:    the tree copies the text's scalars; it outlives the text.
// Errors:  kInvalid, "FILE:LINE: REASON"; one line, without control characters.
// Source:  YAML 1.2 through yaml-cpp's event interface; limits in limits.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace meshd::policy {

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMapping };
  Kind kind = Kind::kNull;
  std::string text;             // of a scalar
  bool quoted = false;          // "12" is text, 12 a number
  int line = 0;                 // from 1
  std::vector<YamlNode> keys;   // of a mapping: unique scalars, one for each item
  std::vector<YamlNode> items;  // of a sequence or mapping
};

[[nodiscard]] Result<YamlNode> read_yaml(std::string_view file, std::string_view text);

// What is safe to print of untrusted text: shortened, control characters escaped.
[[nodiscard]] std::string quote(std::string_view text);

}  // namespace meshd::policy
