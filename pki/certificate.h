// Certificates: reading what one says, and judging whether it may be believed.
//
// Invariant: reading believes nothing. What check_certificate() has passed was signed by one of
//            the authorities given, is within its time, and is for whom was expected.
// Errors:    kInvalid, one line for people: "certificate of node-7: expired 2 h ago".
// Units:     UTC, whole seconds.
// Source:    RFC 5280; OpenSSL's X509_verify_cert for chains.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "pki/identity.h"
#include "pki/key.h"
#include "pki/secret.h"

namespace meshd::pki {

using UtcTime = std::chrono::sys_seconds;

// Ours have 600 bytes, and 6 KiB with every name that a controller may have.
inline constexpr std::size_t kMaxCertificateBytes = 16 << 10;
// Files and messages with certificates: eight authorities with room for comments.
inline constexpr std::size_t kMaxPemBytes = 128 << 10;
// While one authority takes over from another there are two.
inline constexpr std::size_t kMaxAuthorities = 8;

// What a certificate says.
struct Certificate {
  std::string der;
  std::vector<std::string> uris;  // subject alternative names; of an authority: "mesh://CLUSTER"
  UtcTime not_before{};
  UtcTime not_after{};
  bool is_authority = false;
  std::string public_der;  // as PrivateKey::public_der()
  // SHA-256 of the DER, as `openssl x509 -fingerprint -sha256` has it. For people: a holder can
  // change it, since an ECDSA signature has a second form; judge by identity and public key.
  Sha256 fingerprint{};

  [[nodiscard]] std::string to_pem() const;
  // Whom it is for; kInvalid unless it names exactly one.
  [[nodiscard]] Result<Identity> identity() const;
  [[nodiscard]] bool belongs_to(const PrivateKey& key) const;
};

[[nodiscard]] Result<Certificate> parse_der(std::string_view der);
// PEM with exactly one certificate; a private key beside it is passed over.
[[nodiscard]] Result<Certificate> parse_certificate(std::string_view pem);
// PEM with certificates of authorities of one cluster.
struct Authorities {
  std::vector<Certificate> certificates;
  std::string cluster;
};
[[nodiscard]] Result<Authorities> parse_authorities(std::string_view pem);

// Whom a certificate must be for.
struct Expected {
  std::string_view cluster;
  std::optional<Role> role;    // absent: any
  std::string_view name = {};  // empty: any
};

// The one judgement, for files at a start and for certificates out of messages.
[[nodiscard]] Result<Identity> check_certificate(const Certificate& certificate,
                                                 std::span<const Certificate> authorities,
                                                 const Expected& expected, UtcTime now);

// When to ask for the next one: after two thirds of its life, less up to a tenth of it by
// `jitter` from [0, 1), so that nodes that joined together do not come together.
[[nodiscard]] UtcTime renew_at(const Certificate& certificate, double jitter);

// For people: "2 h", "5 min"; never negative.
[[nodiscard]] std::string duration_text(std::chrono::seconds duration);

}  // namespace meshd::pki
