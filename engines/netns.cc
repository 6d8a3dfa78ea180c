#include "engines/netns.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <thread>

#include "engines/limits.h"

namespace meshd::engines {
namespace {

struct FreeAddresses {
  void operator()(ifaddrs* list) const { freeifaddrs(list); }
};

// A kernel that has their modules puts these into each network namespace (Documentation/networking,
// fb_tunnels_only_for_init_net): nobody gave them to the container, and they are down.
constexpr std::string_view kOfTheKernel[] = {"tunl0",   "gre0",     "gretap0", "erspan0", "sit0",
                                             "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0"};

bool is_the_kernels(const ifaddrs& entry) {
  const std::string_view name = entry.ifa_name;
  if (name == "lo") return true;
  const bool is_named_so = std::ranges::find(kOfTheKernel, name) != std::end(kOfTheKernel);
  return is_named_so && (entry.ifa_flags & IFF_UP) == 0;
}

// Of an entry that is an address's; absent: it is a link's.
std::optional<IpAddress> address_of(const ifaddrs& entry) {
  const auto* const address = entry.ifa_addr;
  if (address == nullptr) return {};
  if (address->sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, address, sizeof v4);
    return IpAddress::v4(ntohl(v4.sin_addr.s_addr));
  }
  if (address->sa_family != AF_INET6) return {};
  sockaddr_in6 v6{};
  std::memcpy(&v6, address, sizeof v6);
  return IpAddress::v6(v6.sin6_addr.s6_addr);
}

// The list has all links before the first address. An address with a label of its own ("eth0:1") is
// no link's here, and none of ours has one.
Result<std::vector<Link>> read_links(int netns) {
  if (setns(netns, CLONE_NEWNET) != 0) return fail_errno("enter the network namespace", errno);
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return fail_errno("list the container's links", errno);
  const std::unique_ptr<ifaddrs, FreeAddresses> list(first);
  std::vector<Link> links;
  for (const auto* entry = first; entry != nullptr; entry = entry->ifa_next) {
    if (const auto address = address_of(*entry)) {
      const auto link = std::ranges::find(links, entry->ifa_name, &Link::name);
      if (link != links.end()) link->addresses.push_back(*address);
      continue;
    }
    if (links.size() >= kMaxLinks) return fail(ErrorCode::kExhausted, "more links than are read");
    if (!is_the_kernels(*entry)) links.push_back({entry->ifa_name, {}});
  }
  return links;
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
Result<std::vector<Link>> links_in(const Netns& netns) {
  Result<std::vector<Link>> links;
  std::thread([&] { links = read_links(netns.fd.get()); }).join();
  return links;
}

}  // namespace meshd::engines
