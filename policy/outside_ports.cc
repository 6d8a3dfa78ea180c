#include "policy/outside_ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace meshd::policy {
namespace {

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [after, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || after != text.data() + text.size()) return std::nullopt;
  return port;
}

}  // namespace

Result<PortSpan> parse_port_span(std::string_view text) {
  const auto dash = std::min(text.find('-'), text.size());
  const auto first = parse_port(text.substr(0, dash));
  const auto last = parse_port(text.substr(std::min(dash + 1, text.size())));
  if (!first || !last) {
    return fail(ErrorCode::kInvalid, fmt::format("'{}' is not FIRST-LAST", text));
  }
  if (*first < 1024 || *last < *first) {
    return fail(ErrorCode::kInvalid, fmt::format("'{}' is not a range within 1024-65535", text));
  }
  return PortSpan{*first, *last};
}

std::string outside_key_text(const OutsideKey& key) {
  return fmt::format("{}-{}", proto_name(key.proto), key.port);
}

std::optional<OutsideKey> parse_outside_key(const std::string& text) {
  for (const auto proto : {Proto::kTcp, Proto::kUdp}) {
    const auto name = std::string(proto_name(proto)) + "-";
    if (!text.starts_with(name)) continue;
    const OutsideKey key{proto, parse_port(std::string_view(text).substr(name.size())).value_or(0)};
    if (key.port != 0 && outside_key_text(key) == text) return key;
  }
  return std::nullopt;
}

}  // namespace meshd::policy
