#include "pki/key.h"

#include <openssl/core_names.h>
#include <openssl/pem.h>

#include <array>

#include "pki/openssl.h"

namespace meshd::pki {
namespace {

constexpr const char* kCurve = "prime256v1";  // OpenSSL's name of P-256

// OpenSSL would ask at the terminal.
int no_password(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*unused*/) { return -1; }

}  // namespace

Status check_kind(const EVP_PKEY* key) {
  if (key != nullptr && EVP_PKEY_is_a(key, "ED25519") == 1) return {};
  if (key != nullptr && EVP_PKEY_is_a(key, "EC") == 1) {
    std::array<char, 32> group{};
    std::size_t size = 0;
    const bool named = EVP_PKEY_get_group_name(key, group.data(), group.size(), &size) == 1;
    // A curve that is spelled out may be one of which somebody knows more than we do.
    int spelled_out = 0;
    (void)EVP_PKEY_get_int_param(key, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS,
                                 &spelled_out);
    if (named && spelled_out != 1 && std::string_view(group.data(), size) == kCurve) return {};
  }
  ERR_clear_error();
  return fail(ErrorCode::kInvalid, "neither a P-256 nor an Ed25519 key");
}

const EVP_MD* digest_for(const EVP_PKEY* key) {
  return EVP_PKEY_is_a(key, "ED25519") == 1 ? nullptr : EVP_sha256();
}

void PrivateKey::Free::operator()(evp_pkey_st* key) const { EVP_PKEY_free(key); }

Result<PrivateKey> PrivateKey::make() {
  KeyPtr key(EVP_EC_gen(kCurve));
  if (!key) return fail_openssl("make a key", ErrorCode::kUnsupported);
  return PrivateKey(key.release());
}

Result<PrivateKey> PrivateKey::parse(std::string_view pem) {
  if (pem.size() > kMaxKeyBytes) return fail(ErrorCode::kInvalid, "private key: too long");
  const auto from = reader_of(pem);
  KeyPtr key(PEM_read_bio_PrivateKey(from.get(), nullptr, no_password, nullptr));
  if (!key) return fail_openssl("private key: none in PEM that can be read without a password");
  if (auto kind = check_kind(key.get()); !kind) {
    return std::unexpected(std::move(kind).error().in("private key"));
  }
  return PrivateKey(key.release());
}

std::string PrivateKey::to_pem() const {
  const BioPtr to(BIO_new(BIO_s_secmem()));
  // Only memory could be missing.
  (void)PEM_write_bio_PKCS8PrivateKey(to.get(), get(), nullptr, nullptr, 0, nullptr, nullptr);
  return text_of(to.get());
}

std::string PrivateKey::public_der() const {
  unsigned char* data = nullptr;
  const int size = i2d_PUBKEY(get(), &data);
  std::string der(reinterpret_cast<const char*>(data),
                  size > 0 ? static_cast<std::size_t>(size) : 0);
  OPENSSL_free(data);
  return der;
}

Result<std::string> make_csr(const PrivateKey& key) {
  const RequestPtr request(X509_REQ_new());
  unsigned char* data = nullptr;
  int size = 0;
  if (X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) != 1 ||
      X509_REQ_set_pubkey(request.get(), key.get()) != 1 ||
      X509_REQ_sign(request.get(), key.get(), digest_for(key.get())) <= 0 ||
      (size = i2d_X509_REQ(request.get(), &data)) <= 0) {
    return fail_openssl("make a certificate request", ErrorCode::kInternal);
  }
  std::string der(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
  OPENSSL_free(data);
  return der;
}

}  // namespace meshd::pki
