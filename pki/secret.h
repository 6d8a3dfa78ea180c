// What secrets and texts made of bytes need: random bytes, a digest, a comparison that takes
// the same time whatever is compared, hexadecimal and base64 of which each value has one text.
//
// Errors: kInvalid for text that is not exactly what the writer here would have written.
// Source: FIPS 180-4 (SHA-256), RFC 4648 section 4 (base64, padded).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace meshd::pki {

using Sha256 = std::array<std::uint8_t, 32>;

[[nodiscard]] Sha256 sha256(std::string_view bytes);

// Fails when the kernel gives none, and then nothing may go on.
[[nodiscard]] Status fill_random(std::span<std::uint8_t> bytes);

[[nodiscard]] bool equal_in_constant_time(std::span<const std::uint8_t> a,
                                          std::span<const std::uint8_t> b);

[[nodiscard]] std::string to_hex(std::span<const std::uint8_t> bytes);  // lower case
[[nodiscard]] Status parse_hex(std::string_view text, std::span<std::uint8_t> bytes);

[[nodiscard]] std::string to_base64(std::string_view bytes);  // one line
[[nodiscard]] Result<std::string> parse_base64(std::string_view text);

}  // namespace meshd::pki
