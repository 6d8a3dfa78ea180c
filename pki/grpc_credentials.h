// gRPC's credentials for both ends of the cluster's connections: TLS 1.3, certificates of the
// cluster's authorities, files that are read again within about a second after they change.
//
// Threads:   require_tls13() before any other thread; the rest from any.
// Invariant: who connects has seen a controller's certificate of its cluster; who serves knows
//            the peer's identity from its certificate alone.
// Errors:    kInvalid, kNotFound or kSystem for files; kInvalid for peers.
// Source:    gRPC 1.51, grpcpp/security/tls_credentials_options.h.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "pki/certificate.h"
#include "pki/files.h"
#include "pki/identity.h"

namespace grpc {
class AuthContext;
class ChannelArguments;
class ChannelCredentials;
class ServerCredentials;
}  // namespace grpc

namespace meshd::pki {

// gRPC 1.51 has no lowest version to set, so TLS 1.2 is left without a cipher suite that could
// be agreed on. First in main(): it sets an environment variable, which gRPC reads once. The
// makers below refuse to work without it.
[[nodiscard]] Status require_tls13();

// Where Cluster is served: only to certificates of the cluster's authorities.
[[nodiscard]] Result<std::shared_ptr<grpc::ServerCredentials>> make_server_credentials(
    const IdentityFiles& files);
// Where Join is served: to anybody, who sees a controller's certificate.
[[nodiscard]] Result<std::shared_ptr<grpc::ServerCredentials>> make_join_server_credentials(
    const IdentityFiles& files);

// For a channel to Cluster; with expect_controller(), without which no host is found.
[[nodiscard]] Result<std::shared_ptr<grpc::ChannelCredentials>> make_channel_credentials(
    const IdentityFiles& files);
// For a channel to Join, with nothing but the ticket's authorities. The same applies.
[[nodiscard]] Result<std::shared_ptr<grpc::ChannelCredentials>> make_join_channel_credentials(
    const Authorities& authorities);
// TLS looks for a controller of this cluster, whatever address is connected to.
void expect_controller(grpc::ChannelArguments& arguments, std::string_view cluster);

// Who speaks, and until when that is so: a connection outlives the certificate it began with,
// so whoever keeps one for long ends it then.
struct Peer {
  Identity identity;
  UtcTime until{};
  // SHA-256 of its public key: tells a holder from a former one of the same name.
  Sha256 key_digest{};
  UtcTime since{};  // its certificate's beginning
};
// From a call's context. Exactly one identity, of this cluster, in its time: TLS has judged the
// chain, but not again for a session that was resumed.
[[nodiscard]] Result<Peer> peer_of(const grpc::AuthContext& context, std::string_view cluster,
                                   UtcTime now);

}  // namespace meshd::pki
