// Network interfaces: making veth pairs, changing, listing and removing links.
//
// Threads:    not thread-safe, as Channel is.
// Invariants: ensure_ functions write nothing when everything is as wanted, and say so.
// Errors:     kSystem with errno and the kernel's words; kInvalid for a bad name.
// Source:     linux/if_link.h, rtnetlink(7); kernel 6.1 and later.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "netlink/channel.h"

namespace meshd::netlink {

// IFNAMSIZ less the NUL.
inline constexpr std::size_t kMaxLinkName = 15;
inline constexpr int kLoopbackIndex = 1;  // LOOPBACK_IFINDEX: the same in every namespace

// What a VXLAN device was made with.
struct Vxlan {
  std::uint32_t id = 0;
  std::uint16_t port = 0;                // UDP, of all ends
  std::optional<IpAddress> local = {};   // the source of what it sends; also says the family
  std::optional<IpAddress> remote = {};  // where unknown destinations go
  bool learning = false;                 // the ends of others from what they send
  bool external = false;                 // a number for each packet
  bool operator==(const Vxlan&) const = default;
};

struct Link {
  int index = 0;
  std::string name;
  Mac mac;  // zeros where the link has none
  std::uint32_t group = 0;
  std::string kind;  // "veth", "vxlan"; empty for hardware and lo
  std::uint32_t mtu = 0;
  bool up = false;       // IFF_UP: by our will
  bool running = false;  // IFF_LOWER_UP: the other end is there and up
  // IFLA_OPERSTATE is "up". Until the kernel has come round to that after both ends of a veth
  // are up, the end that came first drops what is sent by it.
  bool operational = false;
  bool arp = true;  // not IFF_NOARP
  bool loopback = false;
  // veth: the other end, and by which number this namespace knows the other's (absent when
  // both ends are in one namespace).
  int peer_index = 0;
  std::optional<int> peer_netnsid = {};
  std::optional<Vxlan> vxlan = {};
  int master = 0;  // the bridge or bond that it is a port of; 0: none
  bool bridge_port = false;
  // Of a bridge's port: no frame passes from it to another isolated one. Absent where the kernel
  // has no such thing.
  std::optional<bool> isolated = {};
  // Settings (sysctls) that the kernel reports with the link; IPv6's are absent where it is
  // off.
  std::optional<int> rp_filter = {}, send_redirects = {}, accept_redirects4 = {};
  std::optional<bool> no_link_local = {};  // addr_gen_mode none
  std::optional<int> accept_ra = {}, accept_redirects6 = {}, forwarding6 = {}, disable_ipv6 = {};
  bool operator==(const Link&) const = default;
};

struct VethSpec {
  std::string host_name;
  Mac host_mac;
  std::uint32_t host_group = 0;  // set at creation: the link is never seen without it
  std::string peer_name;
  Mac peer_mac;
  int peer_netns_fd = -1;
  std::uint32_t mtu = 1500;
};

// Both ends are down. Nothing is left of it on failure.
[[nodiscard]] Result<Link> create_veth(Channel& channel, const VethSpec& spec);

[[nodiscard]] Result<std::optional<Link>> find_link(Channel& channel, std::string_view name);
[[nodiscard]] Result<std::optional<Link>> find_link(Channel& channel, int index);
[[nodiscard]] Result<std::vector<Link>> list_links(Channel& channel);
[[nodiscard]] Result<std::vector<Link>> list_links(Channel& channel, std::uint32_t group);

// What a link should be like; what is absent is left as it is. A rename needs the link to
// be down on kernels before 6.2. Netlink writes IPv4's settings; IPv6's go through /proc,
// so that those three are for links of the calling thread's namespace.
struct LinkWish {
  std::optional<bool> up = {};
  std::optional<bool> arp = {};
  std::optional<bool> no_link_local = {};
  std::optional<std::string> name = {};
  std::optional<Mac> mac = {};
  std::optional<std::uint32_t> mtu = {};
  std::optional<std::uint32_t> group = {};
  std::optional<int> rp_filter = {}, send_redirects = {};
  std::optional<int> accept_redirects4 = {};
  std::optional<int> accept_ra = {}, accept_redirects6 = {}, disable_ipv6 = {};
};
// What had to be changed, by name ("up, rp_filter"); empty when nothing. Wishes for what
// the kernel does not report (IPv6's where it is off) are void. Coming up is last.
[[nodiscard]] Result<std::string> ensure_link(Channel& channel, const Link& link,
                                              const LinkWish& wish);
[[nodiscard]] Result<bool> ensure_loopback_up(Channel& channel);
// Waits until the link is operational, as long as kSettle; a look is what moves kernels from
// 6.8 on. Not an error when it takes longer: packets are lost meanwhile, as by any network.
inline constexpr auto kSettle = std::chrono::milliseconds(50);
[[nodiscard]] Status await_operational(Channel& channel, int ifindex);
// False when there is no such port any more. kUnsupported: the kernel cannot.
[[nodiscard]] Result<bool> isolate_port(Channel& channel, const Link& port);
// False when there was no such link. A veth takes its other end with it.
[[nodiscard]] Result<bool> delete_link(Channel& channel, std::string_view name);
[[nodiscard]] Result<bool> delete_link(Channel& channel, int index);

// RTM_NEWLINK or RTM_DELLINK content, as bytes.
[[nodiscard]] std::optional<Link> decode_link(ByteView content);
[[nodiscard]] bool valid_link_name(std::string_view name);

}  // namespace meshd::netlink
