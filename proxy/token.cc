#include "proxy/token.h"

#include <algorithm>

#include "pki/secret.h"

namespace meshd::proxy {
namespace {

bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// "v2/zzzzz-gj3su-": what comes after does not make it less of Arvados'.
bool is_arvados_v2(std::string_view text) {
  constexpr std::string_view kStart = "v2/";
  constexpr std::size_t kClusterIdBytes = 5;
  return text.starts_with(kStart) &&
         text.substr(kStart.size() + std::min(kClusterIdBytes, text.size() - kStart.size()))
             .starts_with("-gj3su-");
}

}  // namespace

bool is_token(std::string_view text) {
  return !text.empty() && text.size() <= kMaxTokenBytes &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c < '\x7f'; });
}

TokenShape token_shape(std::string_view text) {
  if (text.starts_with(kTokenPrefix) || is_arvados_v2(text)) return TokenShape::kOurs;
  const bool perhaps =
      text.size() >= 40 && text.size() <= 64 && std::ranges::all_of(text, is_lower_alnum);
  return perhaps ? TokenShape::kPerhaps : TokenShape::kNot;
}

std::string to_base64url(std::string_view bytes) {
  auto text = pki::to_base64(bytes);
  while (text.ends_with('=')) text.pop_back();
  std::ranges::replace(text, '+', '-');
  std::ranges::replace(text, '/', '_');
  return text;
}

std::optional<std::string> parse_base64url(std::string_view text) {
  if (text.find_first_of("+/") != std::string_view::npos) return std::nullopt;
  std::string base64(text);
  std::ranges::replace(base64, '-', '+');
  std::ranges::replace(base64, '_', '/');
  if (!base64.ends_with('=')) base64.append((4 - base64.size() % 4) % 4, '=');
  auto bytes = pki::parse_base64(base64);
  if (!bytes) return std::nullopt;
  return *std::move(bytes);
}

}  // namespace meshd::proxy
