// The network namespace of a container, and what is in it already.
//
// Owns:   an open Netns keeps its namespace alive until it is closed.
// Errors: kInvalid for what is no network namespace, kSystem otherwise.
// Source: namespaces(7), ioctl_ns(2), setns(2), getifaddrs(3).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd::engines {

struct Netns {
  UniqueFd fd;
  std::uint64_t dev = 0, ino = 0;  // its identity
};

[[nodiscard]] Result<Netns> open_netns(const std::string& path);
[[nodiscard]] Result<Netns> open_netns_of(pid_t pid);
// A container that uses the node's own network has none to be attached.
[[nodiscard]] Result<bool> is_own(const Netns& netns);
struct Link {
  std::string name;
  std::vector<IpAddress> addresses;
};
// All but those that the kernel puts into each namespace by itself.
[[nodiscard]] Result<std::vector<Link>> links_in(const Netns& netns);

}  // namespace meshd::engines
