// Refused pairs as the message that people are shown. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "policy/refused_pairs.h"
#include "proto/node.pb.h"

namespace meshd::policy {

// Ordered by consumer, provider, port.
[[nodiscard]] mesh::v1::RefusedList refused_list(const RefusedPairs& pairs);
// "2026-01-31T09:30:00Z" (RFC 3339, UTC).
[[nodiscard]] std::string time_text(std::int64_t wall_ms);

}  // namespace meshd::policy
