// JSON as engines write it, as a small tree that is written back as it was: order, numbers and
// texts keep what they say.
//
// Threads: any.
// Errors:  kInvalid for what is not JSON (in UTF-8, keys unique: two readers may differ on which
//          of two counts); kExhausted past a limit.
// Source:  RFC 8259; nlohmann-json 3.11's event interface.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace meshd::engines {

struct Json {
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kNull;
  std::string text;               // of a string; of a number or truth value as it is written
  std::vector<std::string> keys;  // of an object, one for each item
  std::vector<Json> items;        // of an array or object

  [[nodiscard]] static Json string(std::string_view text);
  [[nodiscard]] static Json number(long value);
  [[nodiscard]] static Json array(std::vector<Json> items = {});
  [[nodiscard]] static Json object();

  // An object's value; null when there is none, or this is no object.
  [[nodiscard]] const Json* find(std::string_view key) const;
  // The same whatever the case of its letters, and of several the exact one.
  [[nodiscard]] const Json* find_any_case(std::string_view key) const;
  // A string's text at `key`; empty when there is none.
  [[nodiscard]] std::string_view text_at(std::string_view key) const;
  // An object gets `key`, or another value for it.
  Json& set(std::string_view key, Json value);
};

[[nodiscard]] Result<Json> read_json(std::string_view text);
// Texts of others are written as they are: what is not UTF-8 would make it no JSON.
[[nodiscard]] bool is_utf8(std::string_view text);
[[nodiscard]] std::string render(const Json& json);

}  // namespace meshd::engines
