// What one person sees of the mesh, as the page's script reads it. Pure.
//
// Invariant: whatever the texts hold, the result is one JSON value in UTF-8 (what is none becomes
//            U+FFFD), in which nothing ends a script or a comment of HTML.
// Source:    RFC 8259; docs/outside.md has no promise about it: page and server are one program.
#pragma once

#include <string>
#include <string_view>

#include "proxy/overview.h"
#include "proxy/target.h"

namespace meshd::proxy {

[[nodiscard]] std::string state_json(const Overview& overview, const View& view,
                                     const Viewer& viewer, const Site& site);

// With its quotes.
[[nodiscard]] std::string json_text(std::string_view text);

// Where the page's link to it leads: to the page's own host, which hands the sign-in on, or
// straight there where none is needed or the browser has it already. Empty: this site has no name
// for it.
[[nodiscard]] std::string link_href(const Site& site, std::string_view id, const PageLink& link);

}  // namespace meshd::proxy
