// Who somebody is in a cluster: mesh://CLUSTER/ROLE/NAME, as their certificate says it.
//
// Invariant: one text for each identity and one identity for each text, so that texts may be
//            compared: labels are lower case, nothing is percent-encoded, nothing is left over.
// Source:    RFC 3986 (URI), RFC 1123 section 2.1 (labels).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace meshd::pki {

// "mesh://", two labels of 63, the longest role and two slashes; whatever is longer is refused
// before it is looked at.
inline constexpr std::size_t kMaxIdentityBytes = 7 + 63 + 1 + 10 + 1 + 63;

enum class Role : std::uint8_t {
  kNode,        // a daemon: Session, Renew
  kController,  // what nodes expect at the other end
  kDispatcher,  // declares workloads
  kAdmin,       // a person who may all
  kReader,      // a person or monitor who may look
};
inline constexpr std::array kRoles = {Role::kNode, Role::kController, Role::kDispatcher,
                                      Role::kAdmin, Role::kReader};
[[nodiscard]] std::string_view role_name(Role role);  // "node"

struct Identity {
  std::string cluster;
  Role role = Role::kNode;
  std::string name;

  [[nodiscard]] std::string to_string() const;  // the URI
  auto operator<=>(const Identity&) const = default;
};

[[nodiscard]] Result<Identity> parse_identity(std::string_view uri);

// Why `text` can be no cluster's or holder's name; empty when it can.
[[nodiscard]] std::string label_problem(std::string_view text);

// A DNS name in every controller's certificate and in nobody else's: what whoever connects
// to a controller of that cluster asks TLS to find, whatever address they connect to.
[[nodiscard]] std::string controller_host(std::string_view cluster);

}  // namespace meshd::pki
