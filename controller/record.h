// One change of what a controller keeps: an object of proto/record.proto under its kind and key,
// or its removal. Commands come to a list of these; the store takes the list whole or not at
// all; Cluster::fold() makes values of them, here and in every other controller.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "policy/types.h"
#include "proto/record.pb.h"

namespace meshd::controller {

using Kind = mesh::v1::ObjectKind::Value;
namespace kind = mesh::v1;

struct Write {
  Kind kind{};
  std::string key;
  std::optional<std::string> value;  // absent: the object goes
  auto operator<=>(const Write&) const = default;
};
using Writes = std::vector<Write>;

// One moment on both clocks: wall time bridges restarts and controllers, and nothing else.
struct Moment {
  TimePoint steady{};
  std::int64_t wall_ms = 0;

  [[nodiscard]] std::int64_t wall_of(TimePoint time) const {
    return wall_ms + std::chrono::duration_cast<std::chrono::milliseconds>(time - steady).count();
  }
  // What a clock that was set back makes a future is now.
  [[nodiscard]] TimePoint past(std::int64_t at_ms) const {
    return steady - std::chrono::milliseconds(std::max<std::int64_t>(wall_ms - at_ms, 0));
  }
  [[nodiscard]] TimePoint future(std::int64_t at_ms) const {
    return steady + std::chrono::milliseconds(std::max<std::int64_t>(at_ms - wall_ms, 0));
  }
};

template <class Message>
[[nodiscard]] Write put(Kind kind, std::string key, const Message& message) {
  return {kind, std::move(key), message.SerializeAsString()};
}
[[nodiscard]] inline Write drop(Kind kind, std::string key) {
  return {kind, std::move(key), std::nullopt};
}

// "NAME", or "WORKFLOW/NAME".
[[nodiscard]] std::string service_key_text(const policy::ServiceKey& key);
[[nodiscard]] policy::ServiceKey parse_service_key(std::string_view text);

}  // namespace meshd::controller
