// Where the endpoint listens: a Unix socket, or a loopback address.
//
// Owns:      the socket, and its file until it is closed.
// Invariant: nobody beside root, this user and the group can connect to a Unix socket, at no
//            moment; a socket that somebody listens on is not taken from them.
// Errors:    kInvalid for what is no such place, kConflict when it is taken, kSystem.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd::proxy {

// Connections that wait until they are taken; nginx opens one for each request under way.
inline constexpr int kListenBacklog = 1'024;

class Listener {
 public:
  // "/run/mesh-controller/web.sock", whose directory is made with mode 0750 where there is none;
  // "127.0.0.1:9480", "[::1]:9480". `group` (-1: left as it is) may connect, and enter a directory
  // that is made.
  [[nodiscard]] static Result<Listener> open(std::string_view text, gid_t group);
  ~Listener();
  Listener(Listener&& other) noexcept
      : fd_(std::move(other.fd_)),
        port_(other.port_),
        v6_(other.v6_),
        path_(std::exchange(other.path_, {})),
        file_(other.file_) {}
  Listener& operator=(Listener&&) = delete;

  [[nodiscard]] const UniqueFd& fd() const { return fd_; }
  [[nodiscard]] UniqueFd take_fd() { return std::move(fd_); }
  [[nodiscard]] int port() const { return port_; }  // 0: a Unix socket
  [[nodiscard]] bool is_v6() const { return v6_; }

 private:
  Listener() = default;
  [[nodiscard]] static Result<Listener> open_unix(const std::string& path, gid_t group);
  [[nodiscard]] static Result<Listener> open_loopback(std::string_view text);

  UniqueFd fd_;
  int port_ = 0;
  bool v6_ = false;
  std::string path_;  // of the file; empty: none
  struct stat file_{};
};

// -1 for an empty name. kInvalid when there is no such group.
[[nodiscard]] Result<gid_t> group_id(const std::string& name);

}  // namespace meshd::proxy
