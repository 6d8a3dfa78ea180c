// nginx's part: a configuration for one site, generated once. Services that come and go need no
// reload, since nginx asks for each request where it may go.
//
// Invariant: what is put into the text is checked first; it holds nothing but what is in NginxSite.
// Errors:    kInvalid "FIELD: REASON".
// Source:    nginx 1.22.1: ngx_http_auth_request_module, ngx_http_proxy_module.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "proxy/target.h"

namespace meshd::proxy {

struct NginxSite {
  Site names;
  std::string certificate, certificate_key;                // paths, PEM
  std::string endpoint = "/run/mesh-controller/web.sock";  // or "127.0.0.1:9480", "[::1]:9480"
  std::string access_log = "/var/log/nginx/mesh.log";
};
[[nodiscard]] Result<std::string> render_nginx_config(const NginxSite& site);

// What nginx says of a request, at /auth, /answer and /page.
inline constexpr std::string_view kHostHeader = "X-Mesh-Host";           // as it came
inline constexpr std::string_view kLineHostHeader = "X-Mesh-Line-Host";  // parse_target()
inline constexpr std::string_view kUriHeader = "X-Mesh-Uri";
inline constexpr std::string_view kMethodHeader = "X-Mesh-Method";
inline constexpr std::string_view kClientHeader = "X-Mesh-Client";
inline constexpr std::string_view kUpgradeHeader = "X-Mesh-Upgrade";
inline constexpr std::string_view kOriginHeader = "X-Mesh-Origin";
// At the page alone, beside If-None-Match.
inline constexpr std::string_view kFetchSiteHeader = "X-Mesh-Fetch-Site";
// Both ways: as it came, and what of it the container may see.
inline constexpr std::string_view kCookieHeader = "X-Mesh-Cookie";
inline constexpr std::string_view kAuthorizationHeader = "X-Mesh-Authorization";
// To /answer, for kDoesNotAnswer: "502"; and from /auth, with all that is not 200: the status
// that it will be.
inline constexpr std::string_view kStatusHeader = "X-Mesh-Status";
// From /auth with 200.
inline constexpr std::string_view kUpstreamHeader = "X-Mesh-Upstream";
inline constexpr std::string_view kUserHeader = "X-Mesh-User";
inline constexpr std::string_view kArvadosUserHeader = "X-Arvados-User-UUID";
inline constexpr std::string_view kSetCookieHeader = "X-Mesh-Set-Cookie";
// From /auth with 403: what is said where the body is too long to be taken for a refusal.
inline constexpr std::string_view kLocationHeader = "X-Mesh-Location";
inline constexpr std::string_view kTextHeader = "X-Mesh-Text";

}  // namespace meshd::proxy
