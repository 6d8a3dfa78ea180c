// One TLS handshake, as another implementation than gRPC's would make it.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "pki/openssl.h"
#include "pki/secret.h"

namespace meshd::pki {

struct Handshake {
  bool done = false;
  std::string version;   // "TLSv1.3"
  Sha256 fingerprint{};  // of the server's certificate
};

// To 127.0.0.1, speaking nothing newer than `newest`; with a certificate when `identity` names
// a file.
inline Handshake shake_hands(int port, int newest, const std::string& identity) {
  const std::unique_ptr<SSL_CTX, Freed<SSL_CTX_free>> context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_max_proto_version(context.get(), newest);
  if (!identity.empty()) {
    SSL_CTX_use_PrivateKey_file(context.get(), identity.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_certificate_file(context.get(), identity.c_str(), SSL_FILETYPE_PEM);
  }
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit{.tv_sec = 20, .tv_usec = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  Handshake result;
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) return result;
  const std::unique_ptr<SSL, Freed<SSL_free>> ssl(SSL_new(context.get()));
  SSL_set_fd(ssl.get(), fd.get());
  result.done = SSL_connect(ssl.get()) == 1;
  ERR_clear_error();
  result.version = SSL_get_version(ssl.get());
  const X509Ptr server(SSL_get1_peer_certificate(ssl.get()));
  unsigned size = 0;
  if (server) X509_digest(server.get(), EVP_sha256(), result.fingerprint.data(), &size);
  return result;
}

}  // namespace meshd::pki
