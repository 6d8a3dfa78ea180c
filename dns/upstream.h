// One upstream server: sends a query, over TCP when the answer did not fit, and brings back
// the bytes. Which server to ask, when to ask another, and what to believe is not decided
// here.
//
// Threads: one owner (a worker), which watches the descriptors for it.
// Owns:    the sockets, through c-ares.
// Source:  c-ares 1.18: one channel per server and tries=1, since its own order, retries and
//          EDNS downgrade cannot be steered; a channel keeps its source port as long as it is
//          busy, so channels are retired after kQueriesPerChannel (RFC 5452 section 4.5). On
//          FORMERR without OPT a channel cuts the last 11 bytes off that query, asks again, and
//          forgets EDNS for its other queries: it is then replaced, and the server remembered.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/ip.h"
#include "base/result.h"
#include "dns/wire.h"

namespace meshd::dns {

struct UpstreamAddress {
  IpAddress address;
  std::uint16_t port = 53;
  [[nodiscard]] std::string to_string() const;
  auto operator<=>(const UpstreamAddress&) const = default;
};

class Upstream {
 public:
  static constexpr int kQueriesPerChannel = 100;

  enum class Failure {
    kNone,
    kSilent,       // nothing came in time
    kUnreachable,  // refused, no route, no socket
    kGone,         // the Upstream is destroyed
  };
  // Bytes of a reply, or none and why.
  using Done = std::function<void(Bytes reply, Failure failure)>;
  // Which events of a descriptor to wait for; neither: it is about to be closed.
  using Watch = std::function<void(int fd, bool readable, bool writable)>;

  virtual ~Upstream() = default;
  [[nodiscard]] static Result<std::unique_ptr<Upstream>> make(const UpstreamAddress& address,
                                                              Watch watch);
  // `query` ends with an OPT record without options, which a server that knows no EDNS is spared.
  virtual void ask(Bytes query, Done done) = 0;
  virtual void on_event(int fd, bool readable, bool writable) = 0;
  virtual void tick() = 0;  // every 50 ms while busy()
  [[nodiscard]] virtual bool busy() const = 0;
};

}  // namespace meshd::dns
