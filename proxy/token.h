// Web tokens as text: what may be one, which of them are surely meant for us, and how one
// travels in a cookie.
//
// Invariant: what is_token() passes can stand in a header line: visible ASCII without blanks.
// Source:    RFC 4648 section 5 (base64url); Arvados' v2 tokens, "v2/zzzzz-gj3su-.../secret".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace meshd::proxy {

// Whoever finds one in a log, a repository or a chat can tell what it is, and so can scanners.
inline constexpr std::string_view kTokenPrefix = "mesh_";
// Arvados' longest has 110 bytes; browsers drop cookies above 4 KiB, and base64 adds a third.
inline constexpr std::size_t kMaxTokenBytes = 1024;

[[nodiscard]] bool is_token(std::string_view text);

// Of what stands in an Authorization header, which applications use for tokens of their own.
enum class TokenShape : std::uint8_t {
  kOurs,     // made here or by Arvados, with or without damage
  kPerhaps,  // 40 to 64 of [0-9a-z]: Arvados' old form, and many an application's
  kNot,
};
[[nodiscard]] TokenShape token_shape(std::string_view text);

[[nodiscard]] std::string to_base64url(std::string_view bytes);  // without padding
// With padding or without; absent for what is neither.
[[nodiscard]] std::optional<std::string> parse_base64url(std::string_view text);

}  // namespace meshd::proxy
