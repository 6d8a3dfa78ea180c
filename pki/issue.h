// The cluster's authority: its own certificate, and those that it gives to holders.
//
// Invariant: of a request nothing is believed but its public key, and that its sender has the
//            private half. Names, uses and times are the caller's.
// Errors:    kInvalid for a request or terms that are refused, and why.
// Units:     UTC, whole seconds.
// Source:    RFC 5280 sections 4.1.2.2 (serial), 4.2.1 (extensions).
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "pki/certificate.h"
#include "pki/identity.h"
#include "pki/key.h"
#include "pki/secret.h"

namespace meshd::pki {

// A request for a P-256 key has 220 bytes; openssl's with a subject and extensions some 600.
inline constexpr std::size_t kMaxCsrBytes = 4 << 10;
// Names and addresses of one controller: each costs every handshake some bytes.
inline constexpr std::size_t kMaxHosts = 32;
// A clock that is slow by less does not see a certificate from the future.
inline constexpr std::chrono::seconds kClockSkew = std::chrono::minutes(5);
// A third is left when it is due to be renewed: so long controllers may be away before nodes need
// a ticket again.
inline constexpr std::chrono::seconds kNodeLifetime = std::chrono::days(7);
// No reason to be longer, and OpenSSL's times end in the year 9999.
inline constexpr std::chrono::seconds kMaxLifetime = std::chrono::years(20);
inline constexpr std::chrono::seconds kAuthorityLifetime = std::chrono::days(3652);

// Self-signed, for `mesh://CLUSTER`; may sign holders and no further authority.
[[nodiscard]] Result<Certificate> make_authority(
    const PrivateKey& key, std::string_view cluster, UtcTime now,
    std::chrono::seconds lifetime = kAuthorityLifetime);

// Whom a certificate is for, and what it is good for: a controller's for both ends of a
// connection and for its hosts, all others' for clients.
struct Holder {
  Identity identity;
  std::chrono::seconds lifetime = kNodeLifetime;
  std::vector<std::string> hosts = {};  // a controller's, beside controller_host()
  std::vector<IpAddress> addresses = {};
};

// Never beyond the authority's own end.
[[nodiscard]] Result<Certificate> issue(const Certificate& authority, const PrivateKey& key,
                                        std::string_view csr_der, const Holder& holder,
                                        UtcTime now);

// Why the request cannot be granted to anybody, before a token is spent on it; else the SHA-256
// of its public key, as Peer::key_digest will be.
[[nodiscard]] Result<Sha256> check_csr(std::string_view csr_der);

}  // namespace meshd::pki
