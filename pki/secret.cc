#include "pki/secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cassert>
#include <climits>

namespace meshd::pki {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

const unsigned char* octets(std::string_view bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

bool is_base64(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
         c == '/' || c == '=';
}

}  // namespace

Sha256 sha256(std::string_view bytes) {
  Sha256 digest{};
  SHA256(octets(bytes), bytes.size(), digest.data());
  return digest;
}

Status fill_random(std::span<std::uint8_t> bytes) {
  assert(bytes.size() <= INT_MAX);  // the callers' sizes are constants
  if (RAND_priv_bytes(bytes.data(), static_cast<int>(bytes.size())) == 1) return {};
  return fail(ErrorCode::kUnsupported, "no random bytes from this system");
}

bool equal_in_constant_time(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string to_hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const auto byte : bytes) {
    text += kHexDigits[byte >> 4U];
    text += kHexDigits[byte & 15U];
  }
  return text;
}

Status parse_hex(std::string_view text, std::span<std::uint8_t> bytes) {
  if (text.size() != bytes.size() * 2) {
    return fail(ErrorCode::kInvalid, "not as many hexadecimal digits as there should be");
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto high = kHexDigits.find(text[2 * i]);
    const auto low = kHexDigits.find(text[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) {
      return fail(ErrorCode::kInvalid, "holds what is no hexadecimal digit in lower case");
    }
    bytes[i] = static_cast<std::uint8_t>(high << 4U | low);
  }
  return {};
}

std::string to_base64(std::string_view bytes) {
  assert(bytes.size() <= INT_MAX / 2);                     // limited where bytes come from
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // and the NUL that OpenSSL adds
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), octets(bytes),
                                   static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(size));
  return text;
}

Result<std::string> parse_base64(std::string_view text) {
  const auto wrong = [] { return fail(ErrorCode::kInvalid, "not base64"); };
  if (text.size() % 4 != 0 || text.size() > INT_MAX / 2) return wrong();
  // OpenSSL skips blanks and takes a '-' for the end.
  if (!std::ranges::all_of(text, is_base64)) return wrong();
  if (text.empty()) return std::string();
  std::string bytes(text.size() / 4 * 3, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()), octets(text),
                                   static_cast<int>(text.size()));
  if (size < 0) return wrong();
  const auto padding = std::min<std::size_t>(2, text.size() - 1 - text.find_last_not_of('='));
  bytes.resize(static_cast<std::size_t>(size) - std::min<std::size_t>(padding, bytes.size()));
  // Padding in the middle, bits past the end: text of which no bytes are the origin.
  if (to_base64(bytes) != text) return wrong();
  return bytes;
}

}  // namespace meshd::pki
