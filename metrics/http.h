// The address at which a monitor reads metrics: HTTP GET /metrics, in the program's own loop.
//
// Threads:   one, the loop's; there is no other.
// Owns:      the listening socket, its connections and an epoll descriptor over them.
// Invariant: bounded: kConnections at a time, each cut after kIdle; nothing of a request is kept.
// Errors:    kInvalid for an address that is none, kSystem when it cannot be bound.
// Source:    libmicrohttpd 0.9.75, external polling.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/ip.h"
#include "base/result.h"

struct MHD_Daemon;

namespace meshd::metrics {

// A monitor has one; somebody looks by hand.
inline constexpr unsigned kConnections = 16;
inline constexpr std::chrono::seconds kIdle{10};

struct ListenAddress {
  IpAddress address;
  std::uint16_t port = 0;  // 0: the kernel chooses
};
// "127.0.0.1:9470", "[::1]:9470".
[[nodiscard]] Result<ListenAddress> parse_listen(std::string_view text);

class Endpoint {
 public:
  // Called for each request: what is true now.
  using Render = std::function<std::string()>;

  [[nodiscard]] static Result<std::unique_ptr<Endpoint>> open(const ListenAddress& listen,
                                                              Render render);
  ~Endpoint();
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  // Readable: serve() has something to do.
  [[nodiscard]] int fd() const { return fd_; }
  // Does what can be done now, and says when it wants to be called again all the same.
  [[nodiscard]] std::optional<Duration> serve();
  [[nodiscard]] std::uint16_t port() const { return port_; }
  // What a request is answered; for the library.
  [[nodiscard]] std::string render() const { return render_(); }

 private:
  explicit Endpoint(Render render) : render_(std::move(render)) {}

  const Render render_;
  MHD_Daemon* daemon_ = nullptr;
  int fd_ = -1;
  std::uint16_t port_ = 0;
};

}  // namespace meshd::metrics
