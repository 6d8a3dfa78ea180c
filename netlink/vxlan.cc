#include "netlink/vxlan.h"

#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "netlink/address_route.h"

namespace meshd::netlink {
namespace {

constexpr std::uint8_t kAfBridge = 7;  // linux/socket.h: forwarding entries, not neighbours

ndmsg fdb_header(int ifindex) {
  ndmsg header{};
  header.ndm_family = kAfBridge;
  header.ndm_ifindex = ifindex;
  return header;
}

Message fdb_change(std::uint16_t type, std::uint16_t flags, const FdbEntry& entry) {
  ndmsg header = fdb_header(entry.ifindex);
  header.ndm_state = NUD_NOARP | NUD_PERMANENT;
  header.ndm_flags = NTF_SELF;  // the device's own table, not that of a bridge above it
  Message message(type, flags);
  message.header(header).put_mac(NDA_LLADDR, entry.mac);
  // Named by its destination, an entry with a port of its own would stay, without an error.
  if (entry.remote && type != RTM_DELNEIGH) message.put_address(NDA_DST, *entry.remote);
  return message;
}

}  // namespace

Message vxlan_message(const VxlanSpec& spec) {
  Message message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  message.header(ifinfomsg{})
      .put_text(IFLA_IFNAME, spec.name)
      .put_mac(IFLA_ADDRESS, spec.mac)
      .put_u32(IFLA_GROUP, spec.group)
      .put_u32(IFLA_MTU, spec.mtu)
      .begin(IFLA_LINKINFO)
      .put_text(IFLA_INFO_KIND, "vxlan")
      .begin(IFLA_INFO_DATA)
      .put_u32(IFLA_VXLAN_ID, spec.tunnel.id)
      .put_be16(IFLA_VXLAN_PORT, spec.tunnel.port)
      .put_u8(IFLA_VXLAN_LEARNING, spec.tunnel.learning ? 1 : 0);
  const auto put = [&message](const std::optional<IpAddress>& address, int v4, int v6) {
    if (address) message.put_address(address->is_v4() ? v4 : v6, *address);
  };
  put(spec.tunnel.local, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6);
  put(spec.tunnel.remote, IFLA_VXLAN_GROUP, IFLA_VXLAN_GROUP6);
  message.end().end();
  return message;
}

Result<Link> create_vxlan(Channel& channel, const VxlanSpec& spec) {
  const std::string what = "create vxlan " + spec.name;
  if (!valid_link_name(spec.name)) return fail(ErrorCode::kInvalid, what + ": no name for a link");
  auto status = channel.change(vxlan_message(spec), what);
  if (!status && status.error().sys_errno == EOPNOTSUPP) {
    status.error().code = ErrorCode::kUnsupported;
  }
  CHECK_OK(std::move(status));
  auto made = find_link(channel, spec.name);
  if (made && *made) return **std::move(made);
  const auto removed = delete_link(channel, spec.name);
  if (!made && !removed) return std::unexpected(std::move(made).error().in(what + ", left behind"));
  if (!made) return std::unexpected(std::move(made).error().in(what));
  return fail(ErrorCode::kNotFound, what + ": gone again");
}

Message fdb_message(const FdbEntry& entry) {
  return fdb_change(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, entry);
}

std::optional<FdbEntry> decode_fdb(ByteView content) {
  const auto header = read_host<ndmsg>(content);
  if (!header || header->ndm_family != kAfBridge) return std::nullopt;
  const Attributes<NDA_MAX + 1> attributes(after(content, sizeof(ndmsg)));
  FdbEntry entry;
  const ByteView mac = attributes.bytes(NDA_LLADDR);
  if (mac.size() != entry.mac.bytes.size()) return std::nullopt;
  std::memcpy(entry.mac.bytes.data(), mac.data(), mac.size());
  entry.ifindex = header->ndm_ifindex;
  entry.remote = read_address(attributes.bytes(NDA_DST));
  entry.permanent = (header->ndm_state & NUD_PERMANENT) != 0;
  for (const int other : {NDA_PORT, NDA_VNI, NDA_SRC_VNI, NDA_IFINDEX, NDA_NH_ID}) {
    if (attributes.has(static_cast<std::size_t>(other))) entry.plain = false;
  }
  return entry;
}

Result<std::vector<FdbEntry>> list_fdb(Channel& channel, int ifindex) {
  Message message(RTM_GETNEIGH, 0);
  message.header(fdb_header(ifindex));
  bool too_many = false;
  std::vector<FdbEntry> entries;
  const auto listed = channel.dump(
      std::move(message), "list forwarding entries",
      [&] {
        entries.clear();
        too_many = false;
      },
      [&](std::uint16_t type, ByteView content) {
        const auto entry = type == RTM_NEWNEIGH ? decode_fdb(content) : std::nullopt;
        if (!entry || entry->ifindex != ifindex) return;
        if (entries.size() < kMaxFdb) {
          entries.push_back(*entry);
        } else {
          too_many = true;
        }
      });
  if (!listed && listed.error().sys_errno == ENODEV) return std::vector<FdbEntry>();
  CHECK_OK(listed);
  if (too_many) {
    return fail(ErrorCode::kExhausted, "list forwarding entries: link #" + std::to_string(ifindex) +
                                           " has more than " + std::to_string(kMaxFdb));
  }
  return entries;
}

Result<FdbDifference> ensure_fdb(Channel& channel, int ifindex, std::span<const FdbEntry> wanted) {
  FdbDifference difference;
  std::multimap<Mac, FdbEntry> have;
  for (auto& entry : TRY(list_fdb(channel, ifindex))) have.emplace(entry.mac, entry);
  for (const FdbEntry& want : wanted) {
    const auto [first, last] = have.equal_range(want.mac);
    const bool is_right = std::distance(first, last) == 1 && first->second == want;
    if (!is_right) {
      CHECK_OK(channel.change(fdb_message(want), "add " + want.to_string()));
      difference.written.push_back(want);
    }
    have.erase(first, last);  // what stood there is replaced
  }
  for (auto& [mac, entry] : have) difference.unwanted.push_back(entry);
  return difference;
}

Result<bool> delete_fdb(Channel& channel, const FdbEntry& entry) {
  const auto status =
      channel.change(fdb_change(RTM_DELNEIGH, 0, entry), "delete " + entry.to_string());
  if (status) return true;
  const int error = status.error().sys_errno;
  if (error == ENOENT || error == ENODEV) return false;
  return std::unexpected(status.error());
}

std::string FdbEntry::to_string() const {
  std::string text = "forwarding entry " + mac.to_string();
  if (remote) text += " to " + remote->to_string();
  return text;
}

}  // namespace meshd::netlink
