// The page for people: what its host answers. Its files are part of the program (proxy/page/); what
// it shows is /state.json, made for whoever asks. Pure: whose a token is, is a step that asks.
//
//   GET  /, /style.css, /*.js   the page
//   GET  /state.json[?find=]    what they may see now; 304 while it is what they have
//   GET  /open/ID/PORT          on to a service, signed in there as here
//   POST /sign-in               with Authorization: Bearer; the token becomes a cookie
//   POST /sign-out
//
// Invariant: without a good token nobody is told anything. What changes something, what is
// somebody's
//            and the way on to a service are for requests of this very page alone: all names of
//            the zone are one site to a browser, and containers are strangers there.
// Source:    W3C Content Security Policy 3, Fetch Metadata (Sec-Fetch-Site); RFC 9110 section 13.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "proxy/overview.h"
#include "proxy/pages.h"
#include "proxy/request.h"
#include "proxy/target.h"
#include "proxy/verdict.h"

namespace meshd::proxy {

// No inline script, no inline style, nothing from elsewhere, in nobody's frame.
inline constexpr std::string_view kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

struct PageReply {
  Reply reply;
  bool looked = false;  // somebody looks: the overview shall be made and kept up
};
// Whoever has the token goes on to that target, with a pass (proxy/passes.h).
struct GoOn {
  std::string token;
  Target target;
  std::string url;  // marked, so that the other host looks for the pass
};
using PageStep = std::variant<PageReply, Ask, GoOn>;

// `overview`: null where nobody has looked for a while. `who`: the answer to the Ask before.
[[nodiscard]] PageStep page_step(const Site& site, const Request& request, const Overview* overview,
                                 const std::optional<Answer>& who);

[[nodiscard]] Reply page_redirect(std::string_view location, std::vector<std::string> cookies = {});
// The cookie for the whole zone; `life_s` 0: no longer.
[[nodiscard]] std::string pass_cookie(const Site& site, std::string_view pass, std::int64_t life_s);

// Of the build: proxy/page/*.
struct PageBody {
  std::string_view name, body;
};
[[nodiscard]] std::span<const PageBody> page_bodies();

}  // namespace meshd::proxy
