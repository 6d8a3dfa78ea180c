// The two Unix sockets: control.sock (0600, everything that changes something) and
// status.sock (0660, group meshd, everything that reads), served by gRPC.
//
// Threads:   gRPC's own threads only carry messages: each call becomes a Job that the
//            main loop drains from jobs() and runs against its Api. Declarations are read on
//            a thread of their own: a file of 1 MiB would hold the loop up for long. One more
//            takes the connections to control.sock, so that a change is known by its caller.
// Owns:      the gRPC servers, both threads and the socket files.
// Invariant: the sockets appear under a tight umask and are opened up afterwards, so that
//            there is no moment at which the wrong user could connect.
// Errors:    kConflict when another daemon serves this run_dir.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/mailbox.h"
#include "base/result.h"
#include "meshd/api.h"

namespace meshd {

class Admin {
 public:
  using Job = std::move_only_function<void(Api&)>;
  // Calls in flight at most; one more is answered RESOURCE_EXHAUSTED. Far above what
  // launchers on one node ask at once, small enough to bound memory.
  static constexpr std::size_t kMaxJobs = 4096;
  // What their requests may hold together.
  static constexpr std::size_t kMaxRequestBytes = std::size_t{64} << 20;
  // `plan` calls among them: anybody in the group may ask, and each is much work.
  static constexpr std::size_t kMaxPlans = 8;
  // `watch` clients at most.
  static constexpr std::size_t kMaxWatchers = 64;

  // Commands follow each other at once; whoever says nothing for that long has gone astray.
  static constexpr auto kControlIdle = std::chrono::seconds(60);

  virtual ~Admin() = default;
  // Binds both sockets in `run_dir`, which exists and is locked by the caller. Calls are
  // taken at once and wait in jobs() until the loop runs. A connection to control.sock that
  // has no call for `idle` is closed.
  [[nodiscard]] static Result<std::unique_ptr<Admin>> make(
      const std::string& run_dir, std::chrono::milliseconds idle = kControlIdle);

  [[nodiscard]] virtual Mailbox<Job>& jobs() = 0;
  // Refuses new calls and has `api` answer all others, on the caller's thread. False when
  // some did not end within kShutdownLimit: the Admin must then not be destroyed.
  static constexpr auto kShutdownLimit = std::chrono::seconds(2);
  [[nodiscard]] virtual bool shutdown(Api& api) = 0;
};

}  // namespace meshd
