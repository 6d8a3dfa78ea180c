// VXLAN devices and where they send frames to: the part of rtnetlink that tunnels need.
//
// Threads:    not thread-safe, as Channel is.
// Invariants: ensure_fdb() reads first and writes only what differs, and returns what it wrote.
//             A device made here learns nothing: frames go where an entry says, or nowhere.
// Errors:     kSystem with errno and the kernel's words; kInvalid for a bad name; kUnsupported
//             where the kernel has no VXLAN; kExhausted beyond kMaxFdb entries.
// Source:     linux/if_link.h (IFLA_VXLAN_), linux/neighbour.h; drivers/net/vxlan.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "netlink/channel.h"
#include "netlink/link.h"

namespace meshd::netlink {

// Far more nodes than a cluster has. A device that learns, which ours never does, can be made
// to hold any number.
inline constexpr std::size_t kMaxFdb = 65'536;

struct VxlanSpec {
  std::string name;
  Mac mac;
  std::uint32_t group = 0;  // set at creation: the link is never seen without it
  std::uint32_t mtu = 1450;
  Vxlan tunnel = {};
};

// It is down. Nothing is left of it on failure.
[[nodiscard]] Result<Link> create_vxlan(Channel& channel, const VxlanSpec& spec);

// Frames to `mac` go to the tunnel's end `remote`.
struct FdbEntry {
  int ifindex = 0;
  Mac mac = {};
  std::optional<IpAddress> remote = {};
  bool permanent = true;
  bool plain = true;  // with the device's own port, number and link
  auto operator<=>(const FdbEntry&) const = default;
  [[nodiscard]] std::string to_string() const;
};

[[nodiscard]] Result<std::vector<FdbEntry>> list_fdb(Channel& channel, int ifindex);
// What had to be written, and what `have` more than that: entries nobody wants.
struct FdbDifference {
  std::vector<FdbEntry> written, unwanted;
};
[[nodiscard]] Result<FdbDifference> ensure_fdb(Channel& channel, int ifindex,
                                               std::span<const FdbEntry> wanted);
// All that is said of its `mac`; false when there is nothing.
[[nodiscard]] Result<bool> delete_fdb(Channel& channel, const FdbEntry& entry);

// The requests, and what the kernel tells of both, as bytes.
[[nodiscard]] Message vxlan_message(const VxlanSpec& spec);
[[nodiscard]] Message fdb_message(const FdbEntry& entry);
[[nodiscard]] std::optional<FdbEntry> decode_fdb(ByteView content);

}  // namespace meshd::netlink
