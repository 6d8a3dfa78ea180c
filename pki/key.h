// A private key, and the request for a certificate for it.
//
// Owns:   the key; it leaves memory cleansed.
// Errors: kInvalid for keys and texts that are not what they should be; no error repeats any
//         part of them.
// Source: RFC 5958 (PKCS #8), RFC 2986 (PKCS #10), FIPS 186-5 (P-256).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct evp_pkey_st;

namespace meshd::pki {

// A P-256 key is 241 bytes of PEM; the file may hold its certificate too.
inline constexpr std::size_t kMaxKeyBytes = 32 << 10;

class PrivateKey {
 public:
  [[nodiscard]] static Result<PrivateKey> make();  // P-256
  // PEM, the first key in it: P-256 or Ed25519, not encrypted.
  [[nodiscard]] static Result<PrivateKey> parse(std::string_view pem);

  [[nodiscard]] std::string to_pem() const;  // PKCS #8
  // SubjectPublicKeyInfo, DER: equal exactly when the public halves are.
  [[nodiscard]] std::string public_der() const;
  [[nodiscard]] evp_pkey_st* get() const { return key_.get(); }  // for pki/*.cc

 private:
  struct Free {
    void operator()(evp_pkey_st* key) const;
  };
  explicit PrivateKey(evp_pkey_st* key) : key_(key) {}
  std::unique_ptr<evp_pkey_st, Free> key_;
};

// PKCS #10, DER, for the public half of `key`. It says nothing more: whoever issues decides.
[[nodiscard]] Result<std::string> make_csr(const PrivateKey& key);

}  // namespace meshd::pki
