// Where nginx asks: HTTP on a Unix socket or a loopback address, `/auth` and `/answer`, and at the
// page's host `/page` (proxy/nginx_config.h has the headers of all).
//
// Use:       nginx's auth_request asks /auth, and gets 200 with the upstream, or 403; it is /answer
//            that says why, as a page, JSON or a redirect.
// Threads:   one of its own, in which all of this happens; the rest from any. The Directory comes
//            through Published, answers of the Asker through a Mailbox.
// Owns:      the thread, its sockets and their files.
// Invariant: whatever goes wrong, nobody is let in. A request that waits for an answer holds nobody
//            up. Bounded: kMaxConnections, each with kConnectionBytes and cut when idle.
// Errors:    of start(): kInvalid for options that cannot be, with the field; kConflict where
//            somebody listens already; kSystem. Later ones are logged, once each.
// Source:    libmicrohttpd 0.9.75, external polling; measured against Boost.Beast in
//            docs/decisions/0008.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "base/published.h"
#include "proxy/gate.h"

namespace meshd::proxy {

// nginx opens one for each request for which a verdict is under way, beside 64 it keeps.
inline constexpr unsigned kMaxConnections = 2'048;
// Of one request and its answer, of which a head may be kMaxHeadBytes and the cookies come twice.
inline constexpr std::size_t kConnectionBytes = 160 << 10;
// nginx closes connections that it does not use after a minute: they must not be cut first, or it
// would send a request to one that has just gone.
inline constexpr auto kIdleLimit = std::chrono::seconds(75);

struct EndpointOptions {
  Site names;
  std::string listen;     // "/run/mesh-controller/web.sock", "127.0.0.1:9480", "[::1]:9480"
  std::string group;      // of nginx's workers, for the socket and the relay's; empty: as it is
  std::string relay_dir;  // "/run/mesh-controller/relay"
  std::string people;     // path of the token file; not read when there is an Asker
  CacheLimits cache;
  // An Asker that takes longer is not waited for; nginx waits for 30 s.
  Duration ask_limit = std::chrono::seconds(20);
  // How often what is open is looked at: websockets, the token file. At least four times while an
  // answer counts, so that the next one is there before.
  Duration look_again = std::chrono::seconds(1);
};

class Endpoint {
 public:
  // `directory`, `asker` (null: the token file answers) and `overview` (null: the page shows
  // nothing) outlive it. Until there is a directory everybody is told to come again.
  [[nodiscard]] static Result<std::unique_ptr<Endpoint>> start(
      EndpointOptions options, const Published<const Directory>& directory, Asker* asker,
      EndpointHooks hooks, const Published<const Overview>* overview = nullptr);
  ~Endpoint();
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  [[nodiscard]] int port() const;  // 0: a Unix socket
  // As of at most `look_again` ago.
  [[nodiscard]] EndpointCounts counts() const;

 private:
  class Loop;
  explicit Endpoint(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace meshd::proxy
