// Network namespaces: opened with proof that they are what they are said to be, made and
// removed by name, and worked in from a thread that is thrown away.
//
// Threads:    any. The calling thread's own namespace never changes.
// Owns:       Netns owns a descriptor, which keeps the namespace alive: do not hold it
//             longer than the work takes.
// Errors:     kNotFound when there is nothing at the path; kInvalid when it is something
//             else than a network namespace or another one than expected.
// Source:     ioctl_ns(2), setns(2), namespaces(7); /proc/sys/net shows the namespace of
//             the thread that opens a file (kernel 6.18, seen).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"
#include "base/unique_fd.h"
#include "netlink/channel.h"

namespace meshd::netlink {

// What makes two descriptors the same namespace. An inode number is used again after the
// namespace is gone: equal ids mean the same one only while somebody holds it.
struct NetnsId {
  std::uint64_t dev = 0;
  std::uint64_t ino = 0;
  [[nodiscard]] std::string to_string() const;  // "net:[4026532288]"
  auto operator<=>(const NetnsId&) const = default;
};

class Netns {
 public:
  // The namespace at `path`: a bind mount, or /proc/PID/ns/net.
  [[nodiscard]] static Result<Netns> open(const std::string& path);
  // Descriptor `fd` of process `pid`, which must be the namespace with inode `ino`: so
  // neither a process id that was used again nor a lie can hand over another one.
  [[nodiscard]] static Result<Netns> open_handed_over(pid_t pid, int fd, std::uint64_t ino);
  // The calling thread's.
  [[nodiscard]] static Result<Netns> own();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const NetnsId& id() const { return id_; }

 private:
  friend Result<Netns> create_named_netns(const std::string& name, const std::string& directory);
  Netns(UniqueFd fd, NetnsId id) : fd_(std::move(fd)), id_(id) {}
  [[nodiscard]] static Result<Netns> adopt(UniqueFd fd, std::string_view what);

  UniqueFd fd_;
  NetnsId id_;
};

// The number of the namespace that a socket belongs to: unlike an inode's it is given once in a
// boot (SO_NETNS_COOKIE).
[[nodiscard]] Result<std::uint64_t> netns_cookie(int socket);

inline constexpr std::string_view kNetnsDirectory = "/run/netns";  // where ip(8) looks

// A new namespace, bound to `directory`/`name` as ip(8) does it; its lo is down. kConflict
// when the name is taken.
[[nodiscard]] Result<Netns> create_named_netns(const std::string& name,
                                               const std::string& directory);
// Unbinds and removes the name; false when there was none. The namespace itself lives on
// while somebody holds it.
[[nodiscard]] Result<bool> remove_named_netns(const std::string& name,
                                              const std::string& directory);

// Runs `work` in a new thread inside the namespace and waits for it.
[[nodiscard]] Status run_in_netns(int netns_fd, const std::function<void()>& work);

template <class Work>
  requires(!std::is_void_v<std::invoke_result_t<Work>>)
[[nodiscard]] std::invoke_result_t<Work> call_in_netns(int netns_fd, Work work) {
  std::optional<std::invoke_result_t<Work>> result;
  CHECK_OK(run_in_netns(netns_fd, [&] { result.emplace(work()); }));
  return *std::move(result);
}

// A channel that speaks to that namespace, usable from any thread.
[[nodiscard]] Result<Channel> open_channel_in(int netns_fd, Channel::Protocol protocol);

// Sysctls by path below /proc/sys: "net/ipv4/conf/eth0/rp_filter". In the calling thread's
// namespace; through call_in_netns() in another. Only net/ and only plain components.
[[nodiscard]] Result<std::string> read_sysctl(std::string_view key);
// Each look-up in /proc/sys/net/ipv6/conf/eth0 walks the eth0 of every namespace (measured:
// 0.1 ms with 1,000): whoever knows the value already does not read it again.
[[nodiscard]] Status write_sysctl(std::string_view key, std::string_view value);

struct SysctlChange {
  std::string before;
  bool changed = false;
};
// Writes only when the value differs.
[[nodiscard]] Result<SysctlChange> ensure_sysctl(std::string_view key, std::string_view value);

}  // namespace meshd::netlink
