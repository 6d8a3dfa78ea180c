// What a request is for, from its Host header alone:
//
//   <name>.svc.<zone>          a service of the cluster, its first http publication
//   <name>--<port>.svc.<zone>  another port of it
//   <id>--<port>.<zone>        a port of one workload
//   <uuid>-<port>.<zone>       likewise as Arvados writes it, and of a container request
//   <uuid>.<zone>              its first http publication
//   <host>:<port>              sites without wildcard names: a port for each service
//
// Invariant: exact. One final dot and upper case are forgiven; all else that another program
//            might read differently is refused, so that nobody is let in under one name and
//            served under another.
// Errors:    HostProblem: the status for the client and why, without the header's text.
// Source:    RFC 9112 section 3.2, RFC 9110 section 7.4 (421), RFC 1035 section 2.3.4.
#pragma once

#include <compare>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"

namespace meshd::proxy {

// How this site is called from outside.
struct Site {
  std::string zone;          // lower case, no final dot; empty: no wildcard names
  std::uint16_t port = 443;  // of all names under the zone, as browsers see it
  std::string host;          // the one name of a site with a port for each service; else empty
  std::uint16_t first_port = 0, last_port = 0;  // of `host`
};
// What of a site cannot be; names the field.
[[nodiscard]] Status check_site(const Site& site);

struct ServiceTarget {
  std::string name;
  std::optional<std::uint16_t> port;
  auto operator<=>(const ServiceTarget&) const = default;
};
struct InstanceTarget {
  std::string id;
  std::optional<std::uint16_t> port;
  auto operator<=>(const InstanceTarget&) const = default;
};
struct RequestTarget {
  std::string uuid;  // of an Arvados container request
  std::optional<std::uint16_t> port;
  auto operator<=>(const RequestTarget&) const = default;
};
struct PortTarget {
  std::uint16_t outside = 0;
  auto operator<=>(const PortTarget&) const = default;
};
using Target = std::variant<ServiceTarget, InstanceTarget, RequestTarget, PortTarget>;

struct HostProblem {
  int status = 400;  // 400 odd, 404 nobody can have that name, 421 not a name of this site
  std::string_view why;
};

// `host`: the Host header as it came. `line_host`: whom the proxy took it for, that is the host of
// an absolute request line before that of the header, without port and final dot, lower case.
[[nodiscard]] std::expected<Target, HostProblem> parse_target(const Site& site,
                                                              std::string_view host,
                                                              std::string_view line_host);

// Where a browser opens it, as parse_target() takes it; `path` begins with a slash, or is empty.
// Empty: this site has no name for it, or none that DNS can hold.
[[nodiscard]] std::string url_of(const Site& site, const Target& target, std::string_view path);

// For logs and caches; two targets are equal when their texts are.
[[nodiscard]] std::string target_text(const Target& target);

// zzzzz-TYPE-fifteen of [0-9a-z].
[[nodiscard]] bool is_arvados_uuid(std::string_view text, std::string_view type);
inline constexpr std::string_view kContainerType = "dz642", kContainerRequestType = "xvhdp",
                                  kUserType = "tpzed";

// "1" to "65535", no sign and no leading zero.
[[nodiscard]] std::optional<std::uint16_t> parse_port(std::string_view text);

}  // namespace meshd::proxy
