// What somebody gets who is not let through: a page that says in a sentence what happened and what
// they can do, or JSON for programs; and redirects.
//
// Invariant: everything that is not ours is escaped. No page loads anything, runs anything, is kept
//            by anybody, or tells the next site where its reader came from. The pages of
//            kNoSuchName and kNotReadable are the same.
// Source:    RFC 9110 section 10.2.3 (Retry-After); Arvados' {"errors": [...]}.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/verdict.h"

namespace meshd::proxy {

struct Reply {
  int status = 500;
  std::vector<std::pair<std::string, std::string>> headers;  // Set-Cookie may come repeatedly
  std::string body;
};

struct Looking {
  std::string_view host;    // as they wrote it; may be anything
  std::string_view detail;  // of kOddRequest and kMisdirected: what is odd
  bool html = false;        // else JSON
  bool safe = true;         // GET or HEAD: the page may load itself again
};

[[nodiscard]] Reply refusal_reply(const Refuse& refuse, const Looking& looking);
[[nodiscard]] Reply redirect_reply(const Redirect& redirect);

// The same sentence without a page, for where none can be sent.
[[nodiscard]] std::string_view refusal_text(Reason reason);
// What nginx shows when the controller does not answer: one line without what ends or changes a
// text in nginx's single quotes, and its sentence alone.
[[nodiscard]] std::string closed_page();
[[nodiscard]] std::string_view closed_text();

[[nodiscard]] std::string escape_html(std::string_view text);
[[nodiscard]] std::string json_string(std::string_view text);  // with its quotes

}  // namespace meshd::proxy
