// The controller's directory: its authority, its identity, the first administrator's, the store
// and the first ticket. init() makes it, open_authority() reads it.
//
//   authority.key    what signs certificates: keep it, and keep it secret
//   authorities.pem  the authority's certificate; no secret
//   controller.pem   this controller's key and certificate
//   admin.pem        the first administrator's
//   join.ticket      what a node needs to join, one line
//   controller.db    the store, unless PostgreSQL is
//
// Invariant: init() makes all of it in a directory that holds none of it, or says what is there.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "controller/app.h"
#include "controller/record.h"
#include "controller/store.h"
#include "pki/files.h"

namespace meshd::controller {

// An authority's own certificate lasts for years; a controller's is renewed by itself.
inline constexpr std::chrono::seconds kControllerLifetime = std::chrono::days(30);
inline constexpr std::chrono::seconds kAdminLifetime = std::chrono::days(365);

struct InitOptions {
  std::string dir = "/var/lib/mesh-controller";
  std::string cluster = "mesh";
  std::string zone = "mesh.internal";
  std::string postgres;                     // the store; empty: controller.db
  std::vector<std::string> addresses;       // where nodes find the controllers: "host:port"
  std::vector<std::string> join_addresses;  // the same hosts' join ports
  std::string pool4 = "10.213.0.0/16", vip4 = "10.214.0.0/16";
  std::string pool6, vip6;  // empty: of a random ULA; "off": no IPv6
  std::uint32_t block_bits4 = 24;
  std::chrono::seconds token_lifetime = std::chrono::hours(24);
  std::optional<std::uint32_t> token_uses;
};

struct Initialised {
  std::string ticket_path, admin_path;
};
[[nodiscard]] Result<Initialised> init(const InitOptions& options, const Moment& now);

[[nodiscard]] pki::IdentityFiles identity_files(const std::string& dir);
[[nodiscard]] Result<Authority> open_authority(const std::string& dir);
// Gives the controller a new certificate where the old one is two thirds through, or gone.
[[nodiscard]] Status refresh_identity(const std::string& dir, const Authority& authority,
                                      const std::string& name,
                                      const mesh::v1::StoredSettings& settings, pki::UtcTime now);

}  // namespace meshd::controller
