// Network namespaces as meshctl handles them: open one that somebody else made and prove
// that it is one, make and remove named ones the way `ip netns` does.
//
// Owns:    an open Netns keeps its namespace alive until it is closed.
// Errors:  kInvalid for what is no network namespace, kConflict for a name that is taken,
//          kSystem otherwise. A failed create_named_netns leaves nothing behind.
// Source:  namespaces(7), ioctl_ns(2), mount_namespaces(7); ip-netns(8) for the layout of
//          /run/netns.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd::ctl {

inline constexpr std::string_view kNetnsDir = "/run/netns";

struct Netns {
  UniqueFd fd;
  std::uint64_t dev = 0;  // with ino: the namespace's identity, from fstat
  std::uint64_t ino = 0;
  std::string path;  // absolute, as the user named it
};

[[nodiscard]] Result<Netns> open_netns(const std::string& path);
[[nodiscard]] Result<Netns> open_netns_of(pid_t pid);

// <dir>/<name>, once `name` has proven to be a plain file name.
[[nodiscard]] Result<std::string> named_netns_path(std::string_view dir, std::string_view name);
// Makes a fresh namespace and binds it at `path`, of named_netns_path().
[[nodiscard]] Status create_named_netns(const std::string& path);
// Harmless when nothing is there. A file that is not bound to a network namespace is not
// ours and is refused.
[[nodiscard]] Status remove_named_netns(const std::string& path);
// The same for exactly the namespace of that identity, or the empty file that an interrupted
// removal of it left. False: the name is another namespace's by now, which was left alone.
[[nodiscard]] Result<bool> remove_named_netns(const std::string& path, std::uint64_t dev,
                                              std::uint64_t ino);

}  // namespace meshd::ctl
