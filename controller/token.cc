#include "controller/token.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "pki/identity.h"

namespace meshd::controller {
namespace {

// An address as it is on the wire: one of a socket for both families comes as ::ffff:a.b.c.d,
// which no IPv4 prefix contains.
IpAddress unmapped(const IpAddress& address) {
  static const Prefix mapped = [] {
    std::array<std::uint8_t, 16> bytes{};
    bytes[10] = bytes[11] = 0xff;
    return Prefix::of(IpAddress::v6(bytes), 96);
  }();
  if (!mapped.contains(address)) return address;
  return IpAddress::v4(address.bytes().last<4>());
}

// Why the token, whose secret was right, does not let this node in; empty when it does.
std::string refusal(const Token& token, const IpAddress& source, std::string_view node_name,
                    pki::UtcTime now) {
  const auto& terms = token.terms;
  if (token.revoked) return "revoked";
  if (now >= terms.expires_at) {
    return fmt::format("expired {} ago", pki::duration_text(now - terms.expires_at));
  }
  if (terms.uses_left == 0U) return "used up";
  const auto from = unmapped(source);
  const auto holds = [&](const Prefix& prefix) { return prefix.contains(from); };
  if (!terms.sources.empty() && std::ranges::none_of(terms.sources, holds)) {
    return fmt::format("used from {}, where it is not good", from.to_string());
  }
  if (!node_name.starts_with(terms.name_prefix)) {
    return fmt::format("used for another name than {}...", terms.name_prefix);
  }
  return {};
}

pki::Sha256 digest_of(std::span<const std::uint8_t> secret) {
  return pki::sha256({reinterpret_cast<const char*>(secret.data()), secret.size()});
}

}  // namespace

Result<MadeToken> make_token(TokenTerms terms, const TokenRandomness& randomness) {
  if (terms.sources.size() > kMaxTokenSources) {
    return fail(ErrorCode::kInvalid, fmt::format("token: more than {} sources", kMaxTokenSources));
  }
  // A node's name may go on after a '-', which no name may end in.
  if (!terms.name_prefix.empty()) {
    if (const auto why = pki::label_problem(terms.name_prefix + "0"); !why.empty()) {
      return fail(ErrorCode::kInvalid, "token: the names' prefix " + why);
    }
  }
  const std::span all(randomness);
  const auto id = pki::to_hex(all.first<kTokenIdBytes>());
  const auto secret = all.last<kTokenSecretBytes>();
  return MadeToken{.token = {.id = id,
                             .secret_hash = digest_of(secret),
                             .terms = std::move(terms),
                             .revoked = false},
                   .text = fmt::format("{}.{}", id, pki::to_hex(secret))};
}

Result<PresentedToken> parse_token(std::string_view text) {
  std::array<std::uint8_t, kTokenIdBytes> id{};
  std::array<std::uint8_t, kTokenSecretBytes> secret{};
  constexpr auto kIdDigits = 2 * kTokenIdBytes;
  const bool shaped = text.size() == kIdDigits + 1 + 2 * kTokenSecretBytes &&
                      text[kIdDigits] == '.' && pki::parse_hex(text.substr(0, kIdDigits), id) &&
                      pki::parse_hex(text.substr(kIdDigits + 1), secret);
  if (!shaped) return fail(ErrorCode::kInvalid, "token: not ID.SECRET");
  return PresentedToken{std::string(text.substr(0, kIdDigits)), digest_of(secret)};
}

std::optional<TokenRefusal> check_token(const Token* token, const PresentedToken& presented,
                                        const IpAddress& source, std::string_view node_name,
                                        pki::UtcTime now) {
  // Digests are compared, whose bytes nobody can choose, and in constant time all the same.
  // The secret comes first: who has it may make us work out more, others may not.
  static const Token nobody;
  const auto& known = token == nullptr ? nobody : *token;
  const bool right = pki::equal_in_constant_time(known.secret_hash, presented.secret_hash);
  std::string why;
  if (token == nullptr) {
    why = "there is none of that id";
  } else if (!right || known.id != presented.id) {
    why = "its secret is another";
  } else {
    why = refusal(known, source, node_name, now);
  }
  if (why.empty()) return std::nullopt;
  return TokenRefusal{{ErrorCode::kInvalid, fmt::format("token {}: {}", presented.id, why), 0}};
}

Token spent(Token token) {
  if (token.terms.uses_left > 0U) --*token.terms.uses_left;
  return token;
}

}  // namespace meshd::controller
