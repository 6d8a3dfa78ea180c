// OpenSSL's objects owned, and its errors as ours. For pki/*.cc only.
//
// Invariant: the thread's queue of OpenSSL errors is empty after every function of this folder
//            that failed: gRPC uses the same queue and would read our errors as its own.
#pragma once

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace meshd::pki {

template <auto Release>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    Release(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Freed<BIO_free_all>>;
using BignumPtr = std::unique_ptr<BIGNUM, Freed<BN_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using KeyContextPtr = std::unique_ptr<EVP_PKEY_CTX, Freed<EVP_PKEY_CTX_free>>;
using X509Ptr = std::unique_ptr<X509, Freed<X509_free>>;
using RequestPtr = std::unique_ptr<X509_REQ, Freed<X509_REQ_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, Freed<X509_EXTENSION_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, Freed<GENERAL_NAMES_free>>;
using StorePtr = std::unique_ptr<X509_STORE, Freed<X509_STORE_free>>;
using StoreContextPtr = std::unique_ptr<X509_STORE_CTX, Freed<X509_STORE_CTX_free>>;

// The last reason that OpenSSL gave, behind `what`.
[[nodiscard]] inline std::unexpected<Error> fail_openssl(std::string what,
                                                         ErrorCode code = ErrorCode::kInvalid) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  if (reason != nullptr) what.append(": ").append(reason);
  ERR_clear_error();
  return fail(code, std::move(what));
}

inline BioPtr reader_of(std::string_view text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

inline std::string text_of(BIO* bio) {
  const char* data = nullptr;
  const auto size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

// P-256 or Ed25519: what we make, and what TLS 1.3 of any implementation takes. Others are
// weaker, slower or rare.
[[nodiscard]] Status check_kind(const EVP_PKEY* key);

// The digest that goes with a key's signature: none for Ed25519, which has its own.
[[nodiscard]] const EVP_MD* digest_for(const EVP_PKEY* key);

}  // namespace meshd::pki
