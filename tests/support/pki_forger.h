// Certificates and requests that our own code would never make, by OpenSSL itself.
#pragma once

#include <openssl/core_names.h>
#include <openssl/rsa.h>

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pki/openssl.h"
#include "tests/support/pki_samples.h"

namespace meshd::pki {

inline std::string der_of(X509* x509) {
  unsigned char* data = nullptr;
  const int size = i2d_X509(x509, &data);
  std::string der(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
  OPENSSL_free(data);
  return der;
}

inline X509Ptr x509_of(const Certificate& certificate) {
  const auto* at = reinterpret_cast<const unsigned char*>(certificate.der.data());
  return X509Ptr(d2i_X509(nullptr, &at, static_cast<long>(certificate.der.size())));
}

// `certificate` with an extension replaced (an empty value: removed), signed again.
inline Certificate forged(const Certificate& certificate, const PrivateKey& signer, int extension,
                          const std::string& value) {
  const auto x509 = x509_of(certificate);
  const int at = X509_get_ext_by_NID(x509.get(), extension, -1);
  if (at >= 0) X509_EXTENSION_free(X509_delete_ext(x509.get(), at));
  if (!value.empty()) {
    const ExtensionPtr added(X509V3_EXT_conf_nid(nullptr, nullptr, extension, value.c_str()));
    EXPECT_TRUE(added);
    X509_add_ext(x509.get(), added.get(), -1);
  }
  EXPECT_GT(X509_sign(x509.get(), signer.get(), EVP_sha256()), 0);
  return parse_der(der_of(x509.get())).value();
}

// A request for any kind of key.
inline std::string request_for(EVP_PKEY* key, const EVP_MD* digest = EVP_sha256()) {
  const RequestPtr request(X509_REQ_new());
  X509_REQ_set_version(request.get(), X509_REQ_VERSION_1);
  EXPECT_EQ(X509_REQ_set_pubkey(request.get(), key), 1);
  EXPECT_GT(X509_REQ_sign(request.get(), key, digest), 0);
  unsigned char* data = nullptr;
  const int size = i2d_X509_REQ(request.get(), &data);
  std::string der(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
  OPENSSL_free(data);
  return der;
}

// P-256 with the curve's numbers spelled out in place of its name.
inline KeyPtr spelled_out_key() {
  const KeyContextPtr context(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  std::string curve = "prime256v1";
  std::string encoding = OSSL_PKEY_EC_ENCODING_EXPLICIT;
  const OSSL_PARAM terms[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, curve.data(), 0),
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_EC_ENCODING, encoding.data(), 0),
      OSSL_PARAM_construct_end()};
  EVP_PKEY* key = nullptr;
  EXPECT_EQ(EVP_PKEY_keygen_init(context.get()), 1);
  EXPECT_EQ(EVP_PKEY_CTX_set_params(context.get(), terms), 1);
  EXPECT_EQ(EVP_PKEY_generate(context.get(), &key), 1);
  return KeyPtr(key);
}

}  // namespace meshd::pki
