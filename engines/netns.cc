#include "engines/netns.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <memory>
#include <thread>

#include "engines/limits.h"

namespace meshd::engines {
namespace {

struct FreeLinks {
  void operator()(struct if_nameindex* list) const { if_freenameindex(list); }
};

// A kernel that has their modules puts these into each network namespace (Documentation/networking,
// fb_tunnels_only_for_init_net): nobody gave them to the container, and they are down.
constexpr std::string_view kOfTheKernel[] = {"tunl0",   "gre0",     "gretap0", "erspan0", "sit0",
                                             "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0"};

// `ask`: any socket of its namespace.
bool is_the_kernels(std::string_view name, int ask) {
  if (name == "lo") return true;
  if (std::ranges::find(kOfTheKernel, name) == std::end(kOfTheKernel)) return false;
  ifreq request{};
  name.copy(request.ifr_name, sizeof request.ifr_name - 1);
  return ioctl(ask, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) == 0;
}

Result<std::vector<std::string>> read_links(int netns) {
  if (setns(netns, CLONE_NEWNET) != 0) return fail_errno("enter the network namespace", errno);
  const UniqueFd ask(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const std::unique_ptr<struct if_nameindex, FreeLinks> list(if_nameindex());
  if (!list) return fail_errno("list the container's links", errno);
  std::vector<std::string> names;
  for (const auto* link = list.get(); link->if_index != 0; ++link) {
    if (names.size() >= kMaxLinks) return fail(ErrorCode::kExhausted, "more links than are read");
    if (!is_the_kernels(link->if_name, ask.get())) names.emplace_back(link->if_name);
  }
  return names;
}

}  // namespace

Result<Netns> open_netns(const std::string& path) {
  // Only looks: a path that is a FIFO or a device must not be opened to find that out.
  const UniqueFd look(open(path.c_str(), O_PATH | O_CLOEXEC));
  struct statfs system{};
  if (!look || fstatfs(look.get(), &system) != 0) return fail_errno(path, errno);
  if (static_cast<std::uint64_t>(system.f_type) != NSFS_MAGIC) {
    return fail(ErrorCode::kInvalid, path + ": not a network namespace");
  }
  Netns netns;
  netns.fd.reset(open(fmt::format("/proc/self/fd/{}", look.get()).c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info{};
  if (!netns.fd || fstat(netns.fd.get(), &info) != 0) return fail_errno(path, errno);
  if (ioctl(netns.fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    return fail(ErrorCode::kInvalid, path + ": a namespace, but not a network namespace");
  }
  netns.dev = info.st_dev;
  netns.ino = info.st_ino;
  return netns;
}

Result<Netns> open_netns_of(pid_t pid) { return open_netns(fmt::format("/proc/{}/ns/net", pid)); }

Result<bool> is_own(const Netns& netns) {
  const auto own = TRY(open_netns("/proc/self/ns/net"));
  return own.dev == netns.dev && own.ino == netns.ino;
}

// In a thread that ends afterwards: setns() moves a thread for good.
Result<std::vector<std::string>> links_in(const Netns& netns) {
  Result<std::vector<std::string>> links;
  std::thread([&] { links = read_links(netns.fd.get()); }).join();
  return links;
}

}  // namespace meshd::engines
