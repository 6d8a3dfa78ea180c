#include "pki/certificate.h"

#include <fmt/format.h>
#include <openssl/pem.h>
#include <time.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "pki/openssl.h"

namespace meshd::pki {
namespace {

using std::chrono::seconds;

// 112 bits of security at least, by OpenSSL's reckoning; P-256 has 128.
constexpr int kSecurityLevel = 2;
constexpr std::string_view kAuthorityScheme = "mesh://";

struct FreeBytes {
  void operator()(unsigned char* bytes) const { OPENSSL_free(bytes); }
  void operator()(char* text) const { OPENSSL_free(text); }
};

Result<X509Ptr> to_x509(std::string_view der) {
  if (der.size() > kMaxCertificateBytes) {
    return fail(ErrorCode::kInvalid,
                fmt::format("certificate: more than {} bytes", kMaxCertificateBytes));
  }
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  const auto* const end = at + der.size();
  X509Ptr x509(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (!x509) return fail_openssl("certificate: cannot be read");
  if (at != end) return fail(ErrorCode::kInvalid, "certificate: something follows it");
  // OpenSSL takes lengths written longer than need be, so that one certificate had many texts.
  unsigned char* data = nullptr;
  const int size = i2d_X509(x509.get(), &data);
  const std::unique_ptr<unsigned char, FreeBytes> owner(data);
  const std::string_view again(reinterpret_cast<const char*>(data),
                               size > 0 ? static_cast<std::size_t>(size) : 0);
  if (again != der) return fail(ErrorCode::kInvalid, "certificate: not in its one encoding");
  return x509;
}

Result<UtcTime> to_utc(const ASN1_TIME* time) {
  tm broken_down{};
  if (ASN1_TIME_to_tm(time, &broken_down) != 1) return fail_openssl("certificate: a bad time");
  return UtcTime(seconds(timegm(&broken_down)));
}

Result<std::vector<std::string>> uris_of(const X509* x509) {
  int state = 0;
  const NamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(x509, NID_subject_alt_name, &state, nullptr)));
  std::vector<std::string> uris;
  if (!names) {
    if (state == -1) return uris;  // there is no such extension
    return fail_openssl("certificate: alternative names that cannot be read");
  }
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const auto* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const auto* text = name->d.uniformResourceIdentifier;
    uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                      static_cast<std::size_t>(ASN1_STRING_length(text)));
  }
  return uris;
}

std::string public_der_of(const X509* x509) {
  unsigned char* data = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x509), &data);
  const std::unique_ptr<unsigned char, FreeBytes> owner(data);
  if (size <= 0) return {};
  return {reinterpret_cast<const char*>(data), static_cast<std::size_t>(size)};
}

// Every certificate of a PEM text; other text between them is comment, as always in PEM.
Result<std::vector<Certificate>> parse_pem(std::string_view pem, std::size_t limit) {
  if (pem.size() > kMaxPemBytes) {
    return fail(ErrorCode::kInvalid, fmt::format("more than {} bytes of PEM", kMaxPemBytes));
  }
  std::vector<Certificate> found;
  const auto from = reader_of(pem);
  while (true) {
    char* name = nullptr;
    char* header = nullptr;
    unsigned char* data = nullptr;
    long size = 0;
    const bool read = PEM_read_bio(from.get(), &name, &header, &data, &size) == 1;
    const std::unique_ptr<char, FreeBytes> name_owner(name);
    const std::unique_ptr<char, FreeBytes> header_owner(header);
    const std::unique_ptr<unsigned char, FreeBytes> data_owner(data);
    if (!read) {
      if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
        return fail_openssl("certificate: bad PEM");
      }
      ERR_clear_error();
      return found;
    }
    if (std::string_view(name).ends_with("PRIVATE KEY")) {
      OPENSSL_cleanse(data, static_cast<std::size_t>(size));
      continue;
    }
    if (std::string_view(name) != "CERTIFICATE") {
      return fail(ErrorCode::kInvalid, "PEM that is no certificate");
    }
    if (found.size() == limit) {
      return fail(ErrorCode::kInvalid, fmt::format("more than {} certificates", limit));
    }
    found.push_back(
        TRY(parse_der({reinterpret_cast<const char*>(data), static_cast<std::size_t>(size)})));
  }
}

// An authority's own name says of which cluster it is, so that whoever has nothing but the
// authority's certificate (a node that joins) knows whom to look for.
Result<std::string> cluster_of(const Certificate& authority) {
  if (!authority.is_authority) return fail(ErrorCode::kInvalid, "not an authority's certificate");
  if (authority.uris.size() != 1 || !authority.uris[0].starts_with(kAuthorityScheme)) {
    return fail(ErrorCode::kInvalid, "not of a mesh: an authority's is for mesh://CLUSTER");
  }
  auto cluster = authority.uris[0].substr(kAuthorityScheme.size());
  if (const auto why = label_problem(cluster); !why.empty()) {
    return fail(ErrorCode::kInvalid, "the authority's cluster " + why);
  }
  return cluster;
}

std::string name_of(const Certificate& certificate) {
  const auto identity = certificate.identity();
  return identity ? "certificate of " + identity->name : "certificate";
}

std::string chain_problem(const Certificate& certificate, int error, UtcTime now) {
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      if (certificate.not_after > now) return "its authority has expired";
      return fmt::format("expired {} ago", duration_text(now - certificate.not_after));
    case X509_V_ERR_CERT_NOT_YET_VALID:
      if (certificate.not_before <= now) return "its authority is not valid yet";
      return fmt::format("valid in {} only: is the clock right?",
                         duration_text(certificate.not_before - now));
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
      return "signed by another authority";
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return "its signature is broken";
    case X509_V_ERR_INVALID_PURPOSE:
      return "made for another use";
    default:
      return X509_verify_cert_error_string(error);
  }
}

// Those of the store live as long as the store.
Result<StorePtr> make_store(std::span<const Certificate> authorities) {
  StorePtr store(X509_STORE_new());
  for (const auto& authority : authorities) {
    const auto x509 = TRY(to_x509(authority.der));
    if (X509_STORE_add_cert(store.get(), x509.get()) != 1) return fail_openssl("authority");
  }
  return store;
}

Status check_chain(const Certificate& certificate, std::span<const Certificate> authorities,
                   bool for_server, UtcTime now) {
  const auto x509 = TRY(to_x509(certificate.der));
  const auto store = TRY(make_store(authorities));
  const StoreContextPtr context(X509_STORE_CTX_new());
  if (X509_STORE_CTX_init(context.get(), store.get(), x509.get(), nullptr) != 1) {
    return fail_openssl("check a certificate", ErrorCode::kInternal);
  }
  auto* const terms = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_time(terms, now.time_since_epoch().count());
  X509_VERIFY_PARAM_set_flags(terms, X509_V_FLAG_X509_STRICT);
  X509_VERIFY_PARAM_set_depth(terms, 0);  // an authority signs holders, never another one
  X509_VERIFY_PARAM_set_auth_level(terms, kSecurityLevel);
  X509_VERIFY_PARAM_set_purpose(terms,
                                for_server ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT);
  if (X509_verify_cert(context.get()) == 1) return {};
  const int error = X509_STORE_CTX_get_error(context.get());
  ERR_clear_error();
  return fail(ErrorCode::kInvalid, chain_problem(certificate, error, now));
}

Result<Identity> check_holder(const Certificate& certificate, const Expected& expected) {
  auto identity = TRY(certificate.identity());
  if (identity.cluster != expected.cluster) {
    return fail(ErrorCode::kInvalid,
                fmt::format("of cluster {}, not {}", identity.cluster, expected.cluster));
  }
  if (expected.role && identity.role != *expected.role) {
    return fail(ErrorCode::kInvalid, fmt::format("of role {}, not {}", role_name(identity.role),
                                                 role_name(*expected.role)));
  }
  if (!expected.name.empty() && identity.name != expected.name) {
    return fail(ErrorCode::kInvalid, fmt::format("not that of {}", expected.name));
  }
  return identity;
}

}  // namespace

std::string Certificate::to_pem() const {
  if (der.empty()) return {};  // made by hand out of nothing: no certificate that was read
  const BioPtr to(BIO_new(BIO_s_mem()));
  // From the bytes: OpenSSL 3 takes longer to read a certificate than to sign one.
  (void)PEM_write_bio(to.get(), PEM_STRING_X509, "",
                      reinterpret_cast<const unsigned char*>(der.data()),
                      static_cast<long>(der.size()));  // only memory could be missing
  return text_of(to.get());
}

Result<Identity> Certificate::identity() const {
  if (uris.size() != 1) {
    return fail(ErrorCode::kInvalid, fmt::format("names {} identities, not one", uris.size()));
  }
  return parse_identity(uris[0]);
}

bool Certificate::belongs_to(const PrivateKey& key) const {
  return !public_der.empty() && public_der == key.public_der();
}

Result<Certificate> parse_der(std::string_view der) {
  const auto x509 = TRY(to_x509(der));
  Certificate read;
  read.der = der;
  read.uris = TRY(uris_of(x509.get()));
  read.not_before = TRY(to_utc(X509_get0_notBefore(x509.get())));
  read.not_after = TRY(to_utc(X509_get0_notAfter(x509.get())));
  read.is_authority = X509_check_ca(x509.get()) == 1;
  read.public_der = public_der_of(x509.get());
  read.fingerprint = sha256(der);
  ERR_clear_error();  // extensions that could not be read leave theirs
  return read;
}

Result<Certificate> parse_certificate(std::string_view pem) {
  auto found = TRY(parse_pem(pem, 1));
  if (found.empty()) return fail(ErrorCode::kInvalid, "no certificate in PEM");
  return std::move(found[0]);
}

Result<Authorities> parse_authorities(std::string_view pem) {
  Authorities read;
  read.certificates = TRY(parse_pem(pem, kMaxAuthorities));
  if (read.certificates.empty()) return fail(ErrorCode::kInvalid, "no certificate in PEM");
  for (const auto& authority : read.certificates) {
    auto cluster = TRY(cluster_of(authority));
    if (!read.cluster.empty() && cluster != read.cluster) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("authorities of two clusters, {} and {}", read.cluster, cluster));
    }
    read.cluster = std::move(cluster);
  }
  return read;
}

Result<Identity> check_certificate(const Certificate& certificate,
                                   std::span<const Certificate> authorities,
                                   const Expected& expected, UtcTime now) {
  // By what it says to be; a holder that says to be another one than expected falls below.
  const auto said = certificate.identity();
  const bool for_server = said && said->role == Role::kController;
  if (auto chain = check_chain(certificate, authorities, for_server, now); !chain) {
    return std::unexpected(std::move(chain).error().in(name_of(certificate)));
  }
  auto holder = check_holder(certificate, expected);
  if (!holder) return std::unexpected(std::move(holder).error().in(name_of(certificate)));
  return holder;
}

UtcTime renew_at(const Certificate& certificate, double jitter) {
  const auto life = certificate.not_after - certificate.not_before;
  const auto earlier = static_cast<double>(life.count()) / 10 * std::clamp(jitter, 0.0, 1.0);
  return certificate.not_before + life * 2 / 3 - seconds(static_cast<std::int64_t>(earlier));
}

std::string duration_text(seconds duration) {
  const auto count = std::max<std::int64_t>(0, duration.count());
  if (count < 120) return fmt::format("{} s", count);
  if (count < 2 * 3600) return fmt::format("{} min", count / 60);
  if (count < 2 * 86400) return fmt::format("{} h", count / 3600);
  return fmt::format("{} days", count / 86400);
}

}  // namespace meshd::pki
