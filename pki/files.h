// Keys, certificates and other secrets on disk.
//
// The key and its certificate are one file, replaced whole: whoever reads it, gRPC's watcher
// and a start after a power cut included, finds a pair that belongs together.
//
// Invariant: a file that is replaced holds the old or the new content, and the new one is on
//            disk when the call returns. Secrets are 0600, and refused when others can read them.
// Errors:    kSystem, kNotFound when there is no such file, kInvalid with the file's name.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "pki/certificate.h"
#include "pki/key.h"

namespace meshd::pki {

struct IdentityFiles {
  std::string identity;     // private key and certificate, PEM
  std::string authorities;  // certificates of the authorities, PEM
};

struct StoredIdentity {
  PrivateKey key;
  Certificate certificate;  // belongs to the key; whether it is good is for check_certificate()
  Authorities authorities;
};

// Refuses a certificate that is not the key's, and leaves what is there.
[[nodiscard]] Status write_identity(const std::string& path, const PrivateKey& key,
                                    const Certificate& certificate);
[[nodiscard]] Status write_key(const std::string& path, const PrivateKey& key);
// Certificates of authorities, PEM. Refuses what parse_authorities() does.
[[nodiscard]] Status write_authorities(const std::string& path, std::string_view pem);

[[nodiscard]] Result<StoredIdentity> read_identity(const IdentityFiles& files);
[[nodiscard]] Result<PrivateKey> read_key(const std::string& path);
[[nodiscard]] Result<Authorities> read_authorities(const std::string& path);

// A file of secrets that is no key. One that root writes belongs to whom its directory belongs to:
// an administrator's command and a daemon without privilege share it.
[[nodiscard]] Status write_secrets(const std::string& path, std::string_view text);
// At most `max_bytes`, and never through a symbolic link.
[[nodiscard]] Result<std::string> read_secrets(const std::string& path, std::size_t max_bytes);

}  // namespace meshd::pki
