#include "pki/grpc_credentials.h"

#include <fmt/format.h>
#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/support/channel_arguments.h>
#include <openssl/crypto.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace meshd::pki {
namespace {

namespace tls = grpc::experimental;

constexpr const char* kSuitesVariable = "GRPC_SSL_CIPHER_SUITES";
// A suite of TLS 1.2 that needs a key agreed on beforehand, which gRPC cannot have: OpenSSL
// knows the name, so that gRPC starts, and never chooses it. The suites of 1.3 are apart.
constexpr const char* kNoSuite = "PSK-AES256-GCM-SHA384";
// How often gRPC looks whether a file has changed: its smallest unit.
constexpr unsigned kRefreshSeconds = 1;

Status check_tls13() {
  const char* suites = std::getenv(kSuitesVariable);
  if (suites != nullptr && std::string_view(suites) == kNoSuite) return {};
  return fail(ErrorCode::kInternal, "TLS: require_tls13() was not called");
}

// gRPC would take files that are missing or of strangers, and then refuse every connection.
Result<std::shared_ptr<tls::CertificateProviderInterface>> watch(const IdentityFiles& files) {
  CHECK_OK(check_tls13());
  const auto read = read_identity(files);
  if (!read) return std::unexpected(read.error());
  return std::make_shared<tls::FileWatcherCertificateProvider>(files.identity, files.identity,
                                                               files.authorities, kRefreshSeconds);
}

std::vector<std::string> property(const grpc::AuthContext& context, const char* name) {
  std::vector<std::string> values;
  for (const auto& value : context.FindPropertyValues(name)) {
    values.emplace_back(value.data(), value.size());
  }
  return values;
}

}  // namespace

Status require_tls13() {
  // Its handler at the process's end would take it away from under gRPC's threads, which run until
  // then; what they have in it looked leaked. Only the first call has a say.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr);
  if (setenv(kSuitesVariable, kNoSuite, 1) == 0) return {};
  return fail_errno("set " + std::string(kSuitesVariable), errno);
}

Result<std::shared_ptr<grpc::ServerCredentials>> make_server_credentials(
    const IdentityFiles& files) {
  const auto provider = TRY(watch(files));
  tls::TlsServerCredentialsOptions options(provider);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return tls::TlsServerCredentials(options);
}

Result<std::shared_ptr<grpc::ServerCredentials>> make_join_server_credentials(
    const IdentityFiles& files) {
  const auto provider = TRY(watch(files));
  tls::TlsServerCredentialsOptions options(provider);
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  return tls::TlsServerCredentials(options);
}

Result<std::shared_ptr<grpc::ChannelCredentials>> make_channel_credentials(
    const IdentityFiles& files) {
  // First: options that become no credentials are never freed (gRPC 1.51).
  const auto provider = TRY(watch(files));
  tls::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(provider);
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_certificate_verifier(std::make_shared<tls::HostNameCertificateVerifier>());
  return tls::TlsCredentials(options);
}

Result<std::shared_ptr<grpc::ChannelCredentials>> make_join_channel_credentials(
    const Authorities& authorities) {
  CHECK_OK(check_tls13());
  // Without one gRPC would take those of the system, which vouch for anybody.
  if (authorities.certificates.empty()) return fail(ErrorCode::kInvalid, "TLS: no authority");
  std::string pem;
  for (const auto& authority : authorities.certificates) pem += authority.to_pem();
  tls::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(std::make_shared<tls::StaticDataCertificateProvider>(pem));
  options.watch_root_certs();
  options.set_certificate_verifier(std::make_shared<tls::HostNameCertificateVerifier>());
  return tls::TlsCredentials(options);
}

void expect_controller(grpc::ChannelArguments& arguments, std::string_view cluster) {
  arguments.SetSslTargetNameOverride(controller_host(cluster));
}

Result<Peer> peer_of(const grpc::AuthContext& context, std::string_view cluster, UtcTime now) {
  if (!context.IsPeerAuthenticated()) return fail(ErrorCode::kInvalid, "the peer is unknown");
  const auto uris = property(context, GRPC_PEER_URI_PROPERTY_NAME);
  const auto certificates = property(context, GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (certificates.size() != 1) return fail(ErrorCode::kInvalid, "the peer has no certificate");
  const auto certificate = TRY(parse_certificate(certificates[0]));
  auto identity = TRY(certificate.identity());
  // Two readers of one certificate that disagree: one of them is being fooled.
  if (uris != std::vector{identity.to_string()}) {
    return fail(ErrorCode::kInvalid, "the peer's certificate has more than one identity");
  }
  if (identity.cluster != cluster) {
    return fail(ErrorCode::kInvalid, fmt::format("{} is of another cluster", identity.to_string()));
  }
  if (now >= certificate.not_after) {
    return fail(ErrorCode::kInvalid, fmt::format("certificate of {}: expired {} ago", identity.name,
                                                 duration_text(now - certificate.not_after)));
  }
  return Peer{std::move(identity), certificate.not_after, sha256(certificate.public_der),
              certificate.not_before};
}

}  // namespace meshd::pki
