// What the daemon tells its service manager, and the descriptors it leaves there so that
// they outlive it. Without a manager (no NOTIFY_SOCKET, no LISTEN_FDS) all of it is harmless.
//
// Threads: take_stored_fds() before any thread starts, since it clears the environment;
//          the others from the main loop.
// Errors:  kSystem when the manager's socket refuses. A daemon that cannot notify still
//          works; a descriptor that could not be left there is only lost at the next stop.
// Source:  sd_notify(3), sd_pid_notify_with_fds(3), sd_listen_fds_with_names(3).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd {

// Descriptors in one push: sockets of every DNS worker with room to spare, below the 253
// that one message of a Unix socket carries (SCM_MAX_FD).
inline constexpr std::size_t kMaxStoredFds = 128;
// Of a name, as systemd limits it.
inline constexpr std::size_t kMaxFdName = 255;

// Start-up is complete: whoever waits for the unit goes on.
[[nodiscard]] Status notify_ready();
// One line for `systemctl status`; line breaks become spaces.
[[nodiscard]] Status notify_status(std::string_view text);
[[nodiscard]] Status notify_stopping();
// Why the daemon ends, as the status line that stays when the unit has failed, and as errno.
[[nodiscard]] Status notify_failed(const Error& error);
// To be said at least twice in each watchdog_interval().
[[nodiscard]] Status notify_watchdog();
// Absent: no watchdog for this process.
[[nodiscard]] std::optional<Duration> watchdog_interval();

// Leaves copies with the manager, which gives them to the next start under that name.
// False: no manager is there to keep them.
[[nodiscard]] Result<bool> store_fds(std::string_view name, std::span<const int> fds);
// Drops what was left under that name.
[[nodiscard]] Status forget_fds(std::string_view name);

struct StoredFd {
  std::string name;
  UniqueFd fd;  // close-on-exec
};
// What the last run left, or a .socket unit opened. Once: the environment is cleared, so
// that no child takes them for its own.
[[nodiscard]] Result<std::vector<StoredFd>> take_stored_fds();

}  // namespace meshd
