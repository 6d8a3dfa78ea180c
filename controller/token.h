// Join tokens: what lets a machine without a certificate become a node. Pure: time and
// randomness are arguments, and the store counts uses in the transaction that takes the node in.
//
// Invariant: of a token's secret only the digest is kept. All refusals are the same to whoever
//            asks; why is for our log.
// Units:     UTC, whole seconds.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "pki/certificate.h"
#include "pki/secret.h"

namespace meshd::controller {

inline constexpr std::size_t kTokenIdBytes = 8;       // public: for lists and `token revoke`
inline constexpr std::size_t kTokenSecretBytes = 32;  // 256 bits: cannot be tried through
// Of one token: each is compared for every machine that joins.
inline constexpr std::size_t kMaxTokenSources = 64;
// What all say who are refused.
inline constexpr std::string_view kTokenRefused = "the token is not valid";

struct TokenTerms {
  pki::UtcTime expires_at{};
  std::vector<Prefix> sources;             // where machines may ask from; empty: anywhere
  std::optional<std::uint32_t> uses_left;  // absent: as many as like
  std::string name_prefix;                 // of the node's name; empty: any name
};

struct Token {
  std::string id;
  pki::Sha256 secret_hash{};
  TokenTerms terms;
  bool revoked = false;
};

using TokenRandomness = std::array<std::uint8_t, kTokenIdBytes + kTokenSecretBytes>;
struct MadeToken {
  Token token;
  std::string text;  // "ID.SECRET": shown once
};
[[nodiscard]] Result<MadeToken> make_token(TokenTerms terms, const TokenRandomness& randomness);

struct PresentedToken {
  std::string id;
  pki::Sha256 secret_hash{};
};
// "ID.SECRET", exactly as make_token() wrote it. Errors repeat nothing of it.
[[nodiscard]] Result<PresentedToken> parse_token(std::string_view text);

// Absent when the token lets that node in.
struct TokenRefusal {
  Error for_log;
  std::string_view for_peer = kTokenRefused;
};
// `token`: the one of that id, null when there is none.
[[nodiscard]] std::optional<TokenRefusal> check_token(const Token* token,
                                                      const PresentedToken& presented,
                                                      const IpAddress& source,
                                                      std::string_view node_name, pki::UtcTime now);
// The token after a node that it let in.
[[nodiscard]] Token spent(Token token);

}  // namespace meshd::controller
