// Outside ports of gateways as text: "tcp-30000", and the range that they are of.
//
// Errors: kInvalid, one line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "policy/types.h"

namespace meshd::policy {

struct PortSpan {
  std::uint16_t first = 0, last = 0;  // 0: none
  [[nodiscard]] bool contains(std::uint16_t port) const {
    return port != 0 && first <= port && port <= last;
  }
  bool operator==(const PortSpan&) const = default;
};

// "FIRST-LAST" within 1024-65535: below are the node's own services.
[[nodiscard]] Result<PortSpan> parse_port_span(std::string_view text);

[[nodiscard]] std::string outside_key_text(const OutsideKey& key);
// Exactly as outside_key_text() writes it; absent: it is none.
[[nodiscard]] std::optional<OutsideKey> parse_outside_key(const std::string& text);

}  // namespace meshd::policy
