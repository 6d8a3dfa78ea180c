// The socket at which dockerd finds a plugin: HTTP POST with JSON, a thread for each connection,
// since a call may wait for the daemon while others need not.
//
// Threads:   its own, until it is destroyed.
// Owns:      the listening socket, and its path where it made it.
// Invariant: bounded: connections, and each body; a connection is for one call, so that dockerd
//            never finds one closed that it wants to use again.
// Errors:    kConflict where another driver listens, kSystem.
// Source:    libmicrohttpd 0.9.75; sd_listen_fds(3) for LISTEN_FDS; moby plugin discovery.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "engines/docker_driver.h"

namespace meshd::engines {

// 50 containers at once, and who waits beyond that waits in the socket's queue.
inline constexpr unsigned kMaxCalls = 64;

class DockerServer {
 public:
  // At the socket that the service manager listens on already; else at `path`.
  [[nodiscard]] static Result<std::unique_ptr<DockerServer>> start(const std::string& path,
                                                                   DriverOptions options);
  ~DockerServer();
  DockerServer(const DockerServer&) = delete;
  DockerServer& operator=(const DockerServer&) = delete;

  // Whether calls are answered, the one that it makes itself or another: who has as many as it
  // takes is at work.
  [[nodiscard]] bool answers(TimePoint by) const;
  [[nodiscard]] const std::string& path() const;

 private:
  class Http;
  explicit DockerServer(std::unique_ptr<Http> http);
  std::unique_ptr<Http> http_;
};

}  // namespace meshd::engines
