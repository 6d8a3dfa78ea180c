// One request as nginx describes it, taken apart: what it wants, who it says it is, and what of
// it may be shown to others: the URI, the cookies, without any token of ours.
//
// Invariants: `uri` begins with exactly one slash, after which comes no slash and no backslash,
//             and holds nothing that ends a header line: as a redirect's Location it leads to the
//             same host. No parameter of `uri` and no cookie of `cookie` has one of our names, in
//             any spelling. What was taken out leaves all other bytes as they were.
// Errors:     kInvalid: what no browser sends; one line that repeats nothing of the request.
// Source:     RFC 9112 section 3.2, RFC 3986, RFC 6265 section 4.2, RFC 6454 (Origin), RFC 6750
//             section 2.1, WHATWG URL (browsers take '\' for '/', and drop tabs and line feeds).
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "proxy/token.h"

namespace meshd::proxy {

// nginx takes four header lines of 16 KiB (proxy/nginx_config); longer heads end there.
inline constexpr std::size_t kMaxHeadBytes = 64 << 10;
// Of somebody else's, expired when another container stands behind the name. Browsers keep 180
// for a host, of which an application sets a handful; each is a header line of the answer.
inline constexpr std::size_t kMaxExpiredCookies = 64;

// Ours have a prefix with which browsers take a cookie from this very host alone, over TLS: a
// container at another name of the zone can neither read nor plant one (RFC 6265bis 4.1.3.2).
inline constexpr std::string_view kCookiePrefix = "__Host-mesh_";
inline constexpr std::string_view kTokenCookie = "__Host-mesh_token";
inline constexpr std::string_view kContainerCookie = "__Host-mesh_container";

// As it came; what is absent is empty.
struct RequestHead {
  std::string_view method, host, uri, cookie, authorization, upgrade, origin, accept, client;
};

struct Request {
  std::string method;
  bool safe = false;     // GET or HEAD: may be sent again elsewhere
  bool upgrade = false;  // asks for another protocol: no browser follows a redirect
  bool foreign = false;  // a browser sends it for a page of another origin
  bool html = false;     // a person looks at the answer
  std::optional<IpAddress> client;

  std::string uri;
  bool token_in_query = false;  // there was a parameter for one, perhaps without any
  std::string query_token;      // empty: none that can be one
  std::string cookie_token;     // likewise; copies that differ are none
  std::string bearer;           // of Authorization
  TokenShape bearer_shape = TokenShape::kNot;

  std::string cookie;         // without ours
  std::string authorization;  // whole, with a token of ours if there is one (see proxy/verdict)
  std::string container;      // whom an earlier answer came from
  std::vector<std::string> other_cookies;  // their names, each once
};

// `container_cookie`: the name of the one that says whom an earlier answer came from.
[[nodiscard]] Result<Request> parse_request(const RequestHead& head,
                                            std::string_view container_cookie);

// Of an Accept header: a person looks at the answer.
[[nodiscard]] bool wants_html(std::string_view accept);

// "NAME=VALUE; Path=/; Secure; HttpOnly; SameSite=Lax", until the browser is closed.
[[nodiscard]] std::string own_cookie(std::string_view name, std::string_view value);
[[nodiscard]] std::string expired_cookie(std::string_view name);

}  // namespace meshd::proxy
