#include "pki/issue.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "pki/openssl.h"

namespace meshd::pki {
namespace {

using std::chrono::seconds;

// RFC 5280 allows 159; what an attacker cannot guess is what hash collisions would need.
constexpr int kSerialBits = 128;
constexpr std::size_t kMaxHostBytes = 253;

std::unexpected<Error> broken(std::string what) {
  return fail_openssl(std::move(what), ErrorCode::kInternal);
}

Status add_extension(X509* x509, X509* authority, int id, const std::string& value) {
  X509V3_CTX context{};
  X509V3_set_ctx(&context, authority, x509, nullptr, nullptr, 0);
  const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str()));
  if (!extension || X509_add_ext(x509, extension.get(), -1) != 1) {
    return broken(fmt::format("add {} to a certificate", OBJ_nid2sn(id)));
  }
  return {};
}

Status set_serial(X509* x509) {
  const BignumPtr number(BN_new());
  if (BN_rand(number.get(), kSerialBits, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) != 1 ||
      BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(x509)) == nullptr) {
    return broken("make a serial number");
  }
  return {};
}

Status set_times(X509* x509, UtcTime from, UtcTime until) {
  if (ASN1_TIME_set(X509_getm_notBefore(x509), from.time_since_epoch().count()) == nullptr ||
      ASN1_TIME_set(X509_getm_notAfter(x509), until.time_since_epoch().count()) == nullptr) {
    return broken("set a certificate's times");
  }
  return {};
}

// For people who look at a certificate with other tools; nothing of ours reads it.
Status set_subject(X509* x509, std::string_view organisation, std::string_view name) {
  auto* const subject = X509_get_subject_name(x509);
  const auto add = [&](const char* field, std::string_view value) {
    return X509_NAME_add_entry_by_txt(subject, field, MBSTRING_UTF8,
                                      reinterpret_cast<const unsigned char*>(value.data()),
                                      static_cast<int>(value.size()), -1, 0) == 1;
  };
  if (!add("O", organisation) || !add("CN", name)) return broken("name a certificate");
  return {};
}

Result<Certificate> sign(X509* x509, const PrivateKey& key) {
  unsigned char* data = nullptr;
  int size = 0;
  if (X509_sign(x509, key.get(), digest_for(key.get())) <= 0 ||
      (size = i2d_X509(x509, &data)) <= 0) {
    return broken("sign a certificate");
  }
  const std::string der(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
  OPENSSL_free(data);
  return parse_der(der);
}

Result<RequestPtr> read_csr(std::string_view der) {
  if (der.size() > kMaxCsrBytes) {
    return fail(ErrorCode::kInvalid,
                fmt::format("certificate request: more than {} bytes", kMaxCsrBytes));
  }
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  const auto* const end = at + der.size();
  RequestPtr request(d2i_X509_REQ(nullptr, &at, static_cast<long>(der.size())));
  if (!request) return fail_openssl("certificate request: cannot be read");
  if (at != end) return fail(ErrorCode::kInvalid, "certificate request: something follows it");
  auto* const key = X509_REQ_get0_pubkey(request.get());
  // The kind first: no arithmetic on keys that somebody else chose the size of.
  if (auto kind = check_kind(key); !kind) {
    return std::unexpected(std::move(kind).error().in("certificate request"));
  }
  if (X509_REQ_verify(request.get(), key) != 1) {
    ERR_clear_error();
    return fail(ErrorCode::kInvalid, "certificate request: its signature is broken");
  }
  return request;
}

// A name that goes into an extension's text: nothing in it may end it or begin another.
Status check_host(std::string_view host) {
  if (host.size() > kMaxHostBytes) return fail(ErrorCode::kInvalid, "a host's name: too long");
  for (std::size_t at = 0; at <= host.size();) {
    const auto end = std::min(host.find('.', at), host.size());
    if (const auto why = label_problem(host.substr(at, end - at)); !why.empty()) {
      return fail(ErrorCode::kInvalid, "a host's name: a label " + why);
    }
    at = end + 1;
  }
  return {};
}

Status check_holder(const Holder& holder) {
  const auto& who = holder.identity;
  for (const auto* label : {&who.cluster, &who.name}) {
    if (const auto why = label_problem(*label); !why.empty()) {
      return fail(ErrorCode::kInvalid, "a holder's name or cluster " + why);
    }
  }
  if (holder.lifetime <= seconds(0) || holder.lifetime > kMaxLifetime) {
    return fail(ErrorCode::kInvalid, "a certificate's lifetime: up to 20 years");
  }
  const auto hosts = holder.hosts.size() + holder.addresses.size();
  if (hosts > 0 && who.role != Role::kController) {
    return fail(ErrorCode::kInvalid, "only a controller's certificate is for hosts");
  }
  if (hosts > kMaxHosts) {
    return fail(ErrorCode::kExhausted, fmt::format("more than {} hosts", kMaxHosts));
  }
  for (const auto& host : holder.hosts) CHECK_OK(check_host(host));
  return {};
}

std::string alternative_names(const Holder& holder) {
  auto text = "URI:" + holder.identity.to_string();
  if (holder.identity.role != Role::kController) return text;
  auto to = std::back_inserter(text);
  fmt::format_to(to, ",DNS:{}", controller_host(holder.identity.cluster));
  for (const auto& host : holder.hosts) fmt::format_to(to, ",DNS:{}", host);
  for (const auto& address : holder.addresses) fmt::format_to(to, ",IP:{}", address.to_string());
  return text;
}

Status add_holder_extensions(X509* x509, X509* authority, const Holder& holder) {
  const bool serves = holder.identity.role == Role::kController;
  CHECK_OK(add_extension(x509, authority, NID_basic_constraints, "critical,CA:FALSE"));
  CHECK_OK(add_extension(x509, authority, NID_key_usage, "critical,digitalSignature"));
  CHECK_OK(add_extension(x509, authority, NID_ext_key_usage,
                         serves ? "serverAuth,clientAuth" : "clientAuth"));
  CHECK_OK(add_extension(x509, authority, NID_subject_alt_name, alternative_names(holder)));
  CHECK_OK(add_extension(x509, authority, NID_subject_key_identifier, "hash"));
  return add_extension(x509, authority, NID_authority_key_identifier, "keyid:always");
}

Result<X509Ptr> read_authority(const Certificate& authority, const PrivateKey& key) {
  if (!authority.is_authority) {
    return fail(ErrorCode::kInvalid, "the certificate is no authority's");
  }
  if (!authority.belongs_to(key)) {
    return fail(ErrorCode::kInvalid, "the authority's key and certificate do not belong together");
  }
  const auto* at = reinterpret_cast<const unsigned char*>(authority.der.data());
  X509Ptr x509(d2i_X509(nullptr, &at, static_cast<long>(authority.der.size())));
  if (!x509) return fail_openssl("the authority's certificate");
  return x509;
}

}  // namespace

Result<Certificate> make_authority(const PrivateKey& key, std::string_view cluster, UtcTime now,
                                   seconds lifetime) {
  if (const auto why = label_problem(cluster); !why.empty()) {
    return fail(ErrorCode::kInvalid, "the cluster's name " + why);
  }
  if (lifetime <= seconds(0) || lifetime > kMaxLifetime) {
    return fail(ErrorCode::kInvalid, "an authority's lifetime: up to 20 years");
  }
  const X509Ptr x509(X509_new());
  auto* const self = x509.get();
  if (X509_set_version(self, X509_VERSION_3) != 1 || X509_set_pubkey(self, key.get()) != 1) {
    return broken("make an authority");
  }
  CHECK_OK(set_serial(self));
  CHECK_OK(set_times(self, now - kClockSkew, now + lifetime));
  CHECK_OK(set_subject(self, "meshd authority", cluster));
  if (X509_set_issuer_name(self, X509_get_subject_name(self)) != 1) {
    return broken("make an authority");
  }
  CHECK_OK(add_extension(self, self, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  CHECK_OK(add_extension(self, self, NID_key_usage, "critical,keyCertSign,cRLSign"));
  CHECK_OK(add_extension(self, self, NID_subject_alt_name, fmt::format("URI:mesh://{}", cluster)));
  CHECK_OK(add_extension(self, self, NID_subject_key_identifier, "hash"));
  return sign(self, key);
}

Result<Certificate> issue(const Certificate& authority, const PrivateKey& key,
                          std::string_view csr_der, const Holder& holder, UtcTime now) {
  CHECK_OK(check_holder(holder));
  if (authority.uris != std::vector{"mesh://" + holder.identity.cluster}) {
    return fail(ErrorCode::kInvalid, "the authority is of another cluster");
  }
  const auto issuer = TRY(read_authority(authority, key));
  const auto request = TRY(read_csr(csr_der));
  const auto until = std::min(now + holder.lifetime, authority.not_after);
  if (until <= now) return fail(ErrorCode::kInvalid, "the authority's certificate has expired");
  const X509Ptr x509(X509_new());
  if (X509_set_version(x509.get(), X509_VERSION_3) != 1 ||
      X509_set_pubkey(x509.get(), X509_REQ_get0_pubkey(request.get())) != 1 ||
      X509_set_issuer_name(x509.get(), X509_get_subject_name(issuer.get())) != 1) {
    return broken("make a certificate");
  }
  CHECK_OK(set_serial(x509.get()));
  CHECK_OK(set_times(x509.get(), now - kClockSkew, until));
  CHECK_OK(set_subject(x509.get(), role_name(holder.identity.role), holder.identity.name));
  CHECK_OK(add_holder_extensions(x509.get(), issuer.get(), holder));
  return sign(x509.get(), key);
}

Result<Sha256> check_csr(std::string_view csr_der) {
  const auto request = TRY(read_csr(csr_der));
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(X509_REQ_get0_pubkey(request.get()), &der);
  if (size <= 0) return broken("certificate request: its key");
  const auto digest = sha256({reinterpret_cast<const char*>(der), static_cast<std::size_t>(size)});
  OPENSSL_free(der);
  return digest;
}

}  // namespace meshd::pki
