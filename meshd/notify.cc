#include "meshd/notify.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace meshd {
namespace {

Result<bool> send(const std::string& state, std::string_view what) {
  const int sent = sd_notify(0, state.c_str());
  if (sent < 0) return fail_errno(fmt::format("notify the service manager: {}", what), -sent);
  return sent > 0;
}

Status tell(const std::string& state, std::string_view what) {
  CHECK_OK(send(state, what));
  return {};
}

// A line break would start another field.
std::string one_line(std::string_view text) {
  std::string line(text);
  std::ranges::replace_if(line, [](char c) { return c == '\n' || c == '\r' || c == '\0'; }, ' ');
  return line;
}

// A ':' would split the name in LISTEN_FDNAMES, a line break would start another field.
Status check_name(std::string_view name) {
  const auto fits = [](char c) { return c > ' ' && c < 0x7f && c != ':'; };
  if (name.empty() || name.size() > kMaxFdName || !std::ranges::all_of(name, fits)) {
    return fail(ErrorCode::kInvalid, fmt::format("descriptor name '{}': 1 to {} printable "
                                                 "characters, no ':'",
                                                 name, kMaxFdName));
  }
  return {};
}

}  // namespace

Status notify_ready() { return tell("READY=1", "ready"); }

Status notify_status(std::string_view text) { return tell("STATUS=" + one_line(text), "status"); }

Status notify_failed(const Error& error) {
  auto state = "STATUS=" + one_line(error.what);
  // 0 would be success to the manager.
  if (error.sys_errno > 0) state += fmt::format("\nERRNO={}", error.sys_errno);
  return tell(state, "failed");
}

Status notify_stopping() { return tell("STOPPING=1", "stopping"); }
Status notify_watchdog() { return tell("WATCHDOG=1", "watchdog"); }

std::optional<Duration> watchdog_interval() {
  std::uint64_t us = 0;
  // An unreadable WATCHDOG_USEC counts as none: the manager set it, so it has none either.
  if (sd_watchdog_enabled(0, &us) <= 0) return std::nullopt;
  return std::chrono::microseconds(us);
}

Result<bool> store_fds(std::string_view name, std::span<const int> fds) {
  CHECK_OK(check_name(name));
  if (fds.empty() || fds.size() > kMaxStoredFds) {
    return fail(ErrorCode::kInvalid, fmt::format("store descriptors {}: {} of them, 1 to {} go",
                                                 name, fds.size(), kMaxStoredFds));
  }
  // FDPOLL=0: else systemd drops a socket as soon as poll reports an error on it, and on an
  // unconnected UDP socket a stray ICMP error is enough for that.
  const auto state = fmt::format("FDSTORE=1\nFDNAME={}\nFDPOLL=0", name);
  const int sent =
      sd_pid_notify_with_fds(0, 0, state.c_str(), fds.data(), static_cast<unsigned>(fds.size()));
  if (sent < 0) return fail_errno(fmt::format("store descriptors {}", name), -sent);
  return sent > 0;
}

Status forget_fds(std::string_view name) {
  CHECK_OK(check_name(name));
  return tell(fmt::format("FDSTOREREMOVE=1\nFDNAME={}", name), "forget descriptors");
}

Result<std::vector<StoredFd>> take_stored_fds() {
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  if (count < 0) return fail_errno("take the descriptors of the last run", -count);
  std::vector<StoredFd> result;
  for (int i = 0; i < count; ++i) {
    result.push_back({names[i], UniqueFd(SD_LISTEN_FDS_START + i)});
    std::free(names[i]);
  }
  std::free(static_cast<void*>(names));
  return result;
}

}  // namespace meshd
