// May this request go to that workload's port, and what of it? Pure: what is not known yet is
// asked for as a step, and the same call with the answer goes on. Who gets an Ask looks the
// question up, or asks the token file or the API, hands the answer to Known::take() and decides
// again.
//
// Invariants: with the same directory it asks for each of a question's two kinds at most once. What
//             it allows holds no token of ours. Nobody who may not read learns more than that there
//             is no such name, once they have signed in. Names of one zone are the same site to a
//             browser, which sends cookies from page to page of it: what changes something, or
//             opens a websocket, is taken with a cookie from pages of this very host alone.
// Source:     statuses as Arvados' own proxy has them, lib/controller/localdb/container_gateway.go;
//             W3C Clear Site Data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "proxy/asking.h"
#include "proxy/directory.h"
#include "proxy/request.h"
#include "proxy/target.h"

namespace meshd::proxy {

enum class Reason : std::uint8_t {
  kOddRequest,     // 400
  kSignIn,         // 401: no token
  kBadToken,       // 401
  kNotYours,       // 403: may read, may not open
  kNotFromHere,    // 403: allow_from
  kForeignPage,    // 403: a page of another site asks with this person's cookie
  kNoSuchName,     // 404
  kNotReadable,    // 404: the same to whoever looks; for our log alone
  kNoSuchPort,     // 404: it has nothing for browsers there
  kEnded,          // 410
  kEnding,         // 410: nothing new is let in
  kUnassigned,     // 410: a port of the site that nobody has
  kChanged,        // 410: another container than before, and this cannot be sent again
  kMisdirected,    // 421
  kDoesNotAnswer,  // 502
  kNotStarted,     // 503
  kNotReady,       // 503
  kBeingOpened,    // 503: a publication on demand is under way
  kTooManyOpen,    // 503: and no further one is made
  kCannotAsk,      // 503
};
[[nodiscard]] int status_of(Reason reason);
[[nodiscard]] std::string_view reason_word(Reason reason);  // "not-ready": for logs and counts

struct Allow {
  std::string upstream;  // "192.0.2.7:20001", "[2001:db8::7]:20001"
  std::string id;
  std::uint16_t port = 0;
  User user;                          // empty: anonymous; else text that a header line can hold
  std::string cookie, authorization;  // what the container may see; empty: none
  std::string set_cookie;             // for the browser beside the container's; empty: none
  bool operator==(const Allow&) const = default;
};
struct Redirect {
  std::string location;  // a path of the same host
  std::vector<std::string> set_cookies;
  bool clear_site_data = false;  // what another container has left in the browser
  bool operator==(const Redirect&) const = default;
};
struct Refuse {
  Reason reason = Reason::kNoSuchName;
  User user;       // who signed in; empty: nobody, or not known
  std::string id;  // for our log; empty: nobody's
  bool operator==(const Refuse&) const = default;
};
struct Ask {
  Question question;
};
// They may open this port, which nobody published: a publication on demand shall be made. Until
// it stands in the directory they are told kBeingOpened.
struct MakeOpening {
  std::string id;
  std::uint16_t port = 0;
  User user;
  bool operator==(const MakeOpening&) const = default;
};
using Step = std::variant<Allow, Redirect, Refuse, Ask, MakeOpening>;

// What has been asked and answered for this request.
struct Known {
  std::optional<Answer> level;
  std::optional<Answer> bearer;
  void take(const Question& question, Answer answer) {
    (question.what == Question::What::kWho ? bearer : level) = std::move(answer);
  }
};

[[nodiscard]] Step decide(const Directory& directory, const Target& target, const Request& request,
                          const Known& known);

// For parse_request(). Cookies do not know ports: services of one host need a name each.
[[nodiscard]] std::string container_cookie(const Target& target);

}  // namespace meshd::proxy
