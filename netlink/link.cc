#include "netlink/link.h"

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <thread>

#include "netlink/netns.h"

namespace meshd::netlink {
namespace {

// Larger than IFLA_MAX of any kernel so far (6.18: 69); attributes beyond are not ours.
constexpr std::size_t kLinkAttributes = 64;
constexpr std::uint8_t kAfUnspec = 0;
constexpr std::uint8_t kAfInet = 2;
constexpr std::uint8_t kAfInet6 = 10;
constexpr std::uint8_t kOperationallyUp = 6;               // IF_OPER_UP of linux/if.h
constexpr auto kLookEvery = std::chrono::milliseconds(1);  // while waiting for that

ifinfomsg link_header(int index) {
  ifinfomsg header{};
  header.ifi_family = kAfUnspec;
  header.ifi_index = index;
  return header;
}

Message link_request(std::uint16_t type, std::uint16_t flags, int index) {
  Message message(type, flags);
  message.header(link_header(index));
  return message;
}

// Statistics make up most of a link's answer, and nobody here reads them.
Message& without_statistics(Message& message) {
  return message.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

Mac read_mac(ByteView bytes) {
  Mac mac;
  if (bytes.size() == mac.bytes.size()) {
    std::memcpy(mac.bytes.data(), bytes.data(), mac.bytes.size());
  }
  return mac;
}

// Element `which` of an array of 32-bit numbers.
std::optional<int> setting(ByteView values, std::size_t which) {
  const std::size_t at = which * sizeof(std::int32_t);
  if (values.size() < at + sizeof(std::int32_t)) return std::nullopt;
  return read_host<std::int32_t>(values.subspan(at));
}

void decode_inet(ByteView settings, Link& link) {
  const Attributes<IFLA_INET_MAX + 1> inet(settings);
  // The kernel's numbers count from 1, its array from 0.
  const auto value = [values = inet.bytes(IFLA_INET_CONF)](std::size_t which) {
    return setting(values, which - 1);
  };
  link.rp_filter = value(IPV4_DEVCONF_RP_FILTER);
  link.send_redirects = value(IPV4_DEVCONF_SEND_REDIRECTS);
  link.accept_redirects4 = value(IPV4_DEVCONF_ACCEPT_REDIRECTS);
}

void decode_inet6(ByteView settings, Link& link) {
  const Attributes<16> inet6(settings);
  if (inet6.has(IFLA_INET6_ADDR_GEN_MODE)) {
    const auto mode = read_host<std::uint8_t>(inet6.bytes(IFLA_INET6_ADDR_GEN_MODE));
    link.no_link_local = mode.value_or(0) == IN6_ADDR_GEN_MODE_NONE;
  }
  const ByteView values = inet6.bytes(IFLA_INET6_CONF);
  link.accept_ra = setting(values, DEVCONF_ACCEPT_RA);
  link.accept_redirects6 = setting(values, DEVCONF_ACCEPT_REDIRECTS);
  link.forwarding6 = setting(values, DEVCONF_FORWARDING);
  link.disable_ipv6 = setting(values, DEVCONF_DISABLE_IPV6);
}

Vxlan decode_vxlan(ByteView data) {
  const Attributes<IFLA_VXLAN_MAX + 1> attributes(data);
  Vxlan vxlan;
  vxlan.id = attributes.host32(IFLA_VXLAN_ID);
  vxlan.port = attributes.be16(IFLA_VXLAN_PORT);
  vxlan.local = read_address(
      attributes.bytes(attributes.has(IFLA_VXLAN_LOCAL) ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6));
  vxlan.remote = read_address(
      attributes.bytes(attributes.has(IFLA_VXLAN_GROUP) ? IFLA_VXLAN_GROUP : IFLA_VXLAN_GROUP6));
  const auto is_set = [&attributes](std::size_t which) {
    return read_host<std::uint8_t>(attributes.bytes(which)).value_or(0) != 0;
  };
  vxlan.learning = is_set(IFLA_VXLAN_LEARNING);
  vxlan.external = is_set(IFLA_VXLAN_COLLECT_METADATA);
  return vxlan;
}

// What a bridge says of its port.
void decode_port(ByteView data, Link& link) {
  const Attributes<IFLA_BRPORT_MAX + 1> attributes(data);
  link.bridge_port = true;
  const auto isolated = read_host<std::uint8_t>(attributes.bytes(IFLA_BRPORT_ISOLATED));
  if (isolated) link.isolated = *isolated != 0;
}

Result<std::optional<Link>> get_link(Channel& channel, Message message, const std::string& what) {
  std::optional<Link> link;
  const bool found =
      TRY(channel.get(std::move(message), what, [&link](std::uint16_t type, ByteView content) {
        if (type == RTM_NEWLINK) link = decode_link(content);
      }));
  if (found && !link) return fail(ErrorCode::kInternal, what + ": answer not understood");
  return link;
}

std::unexpected<Error> bad_name(std::string_view name) {
  return fail(ErrorCode::kInvalid, "link name '" + std::string(name) + "'");
}

Result<bool> unless_gone(Channel& channel, Message message, const std::string& what) {
  const Status status = channel.change(std::move(message), what);
  if (status) return true;
  if (status.error().sys_errno == ENODEV) return false;
  return std::unexpected(status.error());
}

// What is not a flag: set while the link is still down, so that it never comes up with the
// old addressing.
Status set_attributes(Channel& channel, const Link& link, const LinkWish& wish) {
  Message message = link_request(RTM_SETLINK, 0, link.index);
  if (wish.mac) message.put_mac(IFLA_ADDRESS, *wish.mac);
  if (wish.mtu) message.put_u32(IFLA_MTU, *wish.mtu);
  if (wish.group) message.put_u32(IFLA_GROUP, *wish.group);
  if (wish.name) message.put_text(IFLA_IFNAME, *wish.name);
  message.begin(IFLA_AF_SPEC);
  if (wish.rp_filter || wish.send_redirects || wish.accept_redirects4) {
    message.begin(kAfInet).begin(IFLA_INET_CONF);
    const auto put = [&message](int which, const std::optional<int>& value) {
      if (value) message.put_u32(which, static_cast<std::uint32_t>(*value));
    };
    put(IPV4_DEVCONF_RP_FILTER, wish.rp_filter);
    put(IPV4_DEVCONF_SEND_REDIRECTS, wish.send_redirects);
    put(IPV4_DEVCONF_ACCEPT_REDIRECTS, wish.accept_redirects4);
    message.end().end();
  }
  if (wish.no_link_local) {
    const std::uint8_t mode =
        *wish.no_link_local ? IN6_ADDR_GEN_MODE_NONE : IN6_ADDR_GEN_MODE_EUI64;
    message.begin(kAfInet6).put_u8(IFLA_INET6_ADDR_GEN_MODE, mode).end();
  }
  message.end();
  return channel.change(std::move(message), "change link " + link.name);
}

Status set_flags(Channel& channel, const Link& link, const LinkWish& wish) {
  ifinfomsg header = link_header(link.index);
  const auto want = [&header](const std::optional<bool>& on, unsigned flag) {
    if (!on) return;
    header.ifi_change |= flag;
    if (*on) header.ifi_flags |= flag;
  };
  want(wish.up, IFF_UP);
  want(wish.arp ? std::optional(!*wish.arp) : std::nullopt, IFF_NOARP);
  Message message(RTM_SETLINK, 0);
  message.header(header);
  return channel.change(std::move(message), "change flags of link " + link.name);
}

Status set_inet6(const std::string& link, const char* key, int value) {
  return write_sysctl("net/ipv6/conf/" + link + "/" + key, std::to_string(value));
}

// Drops from a wish what is there already, and collects the names of the rest.
class Difference {
 public:
  // A setting that the kernel does not report does not exist: IPv6 is off.
  template <class T>
  bool keep(std::optional<T>& wish, const std::optional<T>& have, std::string_view name) {
    if (!have || (wish && *wish == *have)) wish.reset();
    if (!wish) return false;
    if (!names.empty()) names += ", ";
    names += name;
    return true;
  }
  std::string names;
};

}  // namespace

bool valid_link_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxLinkName || name == "." || name == "..") return false;
  // As dev_valid_name() of the kernel; '%' besides, which the kernel takes as a pattern.
  return std::ranges::none_of(name, [](char c) {
    return c == '/' || c == ':' || c == '%' || c == '\0' ||
           std::isspace(static_cast<unsigned char>(c)) != 0;
  });
}

std::optional<Link> decode_link(ByteView content) {
  const auto header = read_host<ifinfomsg>(content);
  if (!header) return std::nullopt;
  const Attributes<kLinkAttributes> attributes(after(content, sizeof(ifinfomsg)));
  Link link;
  link.index = header->ifi_index;
  link.name = attributes.text(IFLA_IFNAME);
  link.mac = read_mac(attributes.bytes(IFLA_ADDRESS));
  link.group = attributes.host32(IFLA_GROUP);
  link.mtu = attributes.host32(IFLA_MTU);
  link.master = static_cast<int>(attributes.host32(IFLA_MASTER));
  link.up = (header->ifi_flags & IFF_UP) != 0;
  link.running = (header->ifi_flags & IFF_LOWER_UP) != 0;
  link.operational = read_host<std::uint8_t>(attributes.bytes(IFLA_OPERSTATE)) == kOperationallyUp;
  link.arp = (header->ifi_flags & IFF_NOARP) == 0;
  link.loopback = (header->ifi_flags & IFF_LOOPBACK) != 0;
  const Attributes<8> info(attributes.bytes(IFLA_LINKINFO));
  link.kind = info.text(IFLA_INFO_KIND);
  if (link.kind == "vxlan") link.vxlan = decode_vxlan(info.bytes(IFLA_INFO_DATA));
  if (info.text(IFLA_INFO_SLAVE_KIND) == "bridge") {
    decode_port(info.bytes(IFLA_INFO_SLAVE_DATA), link);
  }
  link.peer_index = static_cast<int>(attributes.host32(IFLA_LINK));
  if (attributes.has(IFLA_LINK_NETNSID)) {
    link.peer_netnsid = static_cast<int>(attributes.host32(IFLA_LINK_NETNSID));
  }
  for_each_attribute(attributes.bytes(IFLA_AF_SPEC), [&link](std::uint16_t type, ByteView data) {
    if (type == kAfInet) decode_inet(data, link);
    if (type == kAfInet6) decode_inet6(data, link);
  });
  return link;
}

Result<Link> create_veth(Channel& channel, const VethSpec& spec) {
  if (!valid_link_name(spec.host_name)) return bad_name(spec.host_name);
  if (!valid_link_name(spec.peer_name)) return bad_name(spec.peer_name);
  Message message = link_request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
  message.put_text(IFLA_IFNAME, spec.host_name)
      .put_mac(IFLA_ADDRESS, spec.host_mac)
      .put_u32(IFLA_GROUP, spec.host_group)
      .put_u32(IFLA_MTU, spec.mtu)
      .begin(IFLA_LINKINFO)
      .put_text(IFLA_INFO_KIND, "veth")
      .begin(IFLA_INFO_DATA)
      .begin(VETH_INFO_PEER)
      .header(link_header(0))
      .put_text(IFLA_IFNAME, spec.peer_name)
      .put_mac(IFLA_ADDRESS, spec.peer_mac)
      .put_u32(IFLA_MTU, spec.mtu)
      .put_u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(spec.peer_netns_fd))
      .end()
      .end()
      .end();
  const std::string what = "create veth " + spec.host_name + " with peer " + spec.peer_name;
  CHECK_OK(channel.change(std::move(message), what));
  auto made = find_link(channel, spec.host_name);
  if (made && *made) return **std::move(made);
  // Made, yet not to be read: it would be in nobody's books.
  const auto removed = delete_link(channel, spec.host_name);
  if (!made && !removed) return std::unexpected(std::move(made).error().in(what + ", left behind"));
  if (!made) return std::unexpected(std::move(made).error().in(what));
  return fail(ErrorCode::kNotFound, what + ": gone again");
}

Result<std::optional<Link>> find_link(Channel& channel, std::string_view name) {
  if (!valid_link_name(name)) return bad_name(name);
  Message message = link_request(RTM_GETLINK, 0, 0);
  without_statistics(message).put_text(IFLA_IFNAME, name);
  return get_link(channel, std::move(message), "find link " + std::string(name));
}

Result<std::optional<Link>> find_link(Channel& channel, int index) {
  const std::string what = "find link with index " + std::to_string(index);
  if (index <= 0) return fail(ErrorCode::kInvalid, what);
  Message message = link_request(RTM_GETLINK, 0, index);
  without_statistics(message);
  return get_link(channel, std::move(message), what);
}

Result<std::vector<Link>> list_links(Channel& channel) {
  Message message = link_request(RTM_GETLINK, 0, 0);
  without_statistics(message);
  return dump_all<Link>(channel, std::move(message), "list links",
                        [](std::uint16_t type, ByteView content) -> std::optional<Link> {
                          if (type != RTM_NEWLINK) return std::nullopt;
                          return decode_link(content);
                        });
}

Result<std::vector<Link>> list_links(Channel& channel, std::uint32_t group) {
  std::vector<Link> links = TRY(list_links(channel));
  std::erase_if(links, [group](const Link& link) { return link.group != group; });
  return links;
}

Result<std::string> ensure_link(Channel& channel, const Link& link, const LinkWish& wish) {
  if (wish.name && !valid_link_name(*wish.name)) return bad_name(*wish.name);
  LinkWish rest = wish;
  Difference difference;
  // Not one expression: each has to be looked at.
  const bool attributes[] = {
      difference.keep(rest.name, std::optional(link.name), "name"),
      difference.keep(rest.mac, std::optional(link.mac), "address"),
      difference.keep(rest.mtu, std::optional(link.mtu), "mtu"),
      difference.keep(rest.group, std::optional(link.group), "group"),
      difference.keep(rest.no_link_local, link.no_link_local, "addr_gen_mode"),
      difference.keep(rest.rp_filter, link.rp_filter, "rp_filter"),
      difference.keep(rest.send_redirects, link.send_redirects, "send_redirects"),
      difference.keep(rest.accept_redirects4, link.accept_redirects4, "accept_redirects"),
  };
  if (difference.keep(rest.accept_ra, link.accept_ra, "accept_ra")) {
    CHECK_OK(set_inet6(link.name, "accept_ra", *rest.accept_ra));
  }
  if (difference.keep(rest.accept_redirects6, link.accept_redirects6, "accept_redirects (IPv6)")) {
    CHECK_OK(set_inet6(link.name, "accept_redirects", *rest.accept_redirects6));
  }
  if (std::ranges::find(attributes, true) != std::end(attributes)) {
    CHECK_OK(set_attributes(channel, link, rest));
  }
  // After addr_gen_mode: switched on, the kernel would make a link-local address.
  if (difference.keep(rest.disable_ipv6, link.disable_ipv6, "disable_ipv6")) {
    CHECK_OK(set_inet6(link.name, "disable_ipv6", *rest.disable_ipv6));
  }
  const bool flags[] = {difference.keep(rest.up, std::optional(link.up), "up"),
                        difference.keep(rest.arp, std::optional(link.arp), "arp")};
  if (flags[0] || flags[1]) CHECK_OK(set_flags(channel, link, rest));
  return std::move(difference.names);
}

Status await_operational(Channel& channel, int ifindex) {
  const auto end = std::chrono::steady_clock::now() + kSettle;
  for (;;) {
    const auto link = TRY(find_link(channel, ifindex));
    if (!link) return fail(ErrorCode::kNotFound, "link #" + std::to_string(ifindex) + " vanished");
    if (link->operational || std::chrono::steady_clock::now() >= end) return {};
    std::this_thread::sleep_for(kLookEvery);
  }
}

Result<bool> ensure_loopback_up(Channel& channel) {
  const std::optional<Link> lo = TRY(find_link(channel, kLoopbackIndex));
  if (!lo) return fail(ErrorCode::kNotFound, "bring lo up: no such link");
  return !TRY(ensure_link(channel, *lo, {.up = true})).empty();
}

Result<bool> isolate_port(Channel& channel, const Link& port) {
  const std::string what = "isolate bridge port " + port.name;
  if (!port.isolated) return fail(ErrorCode::kUnsupported, what + ": this kernel cannot");
  Message message = link_request(RTM_NEWLINK, 0, port.index);
  message.begin(IFLA_LINKINFO)
      .put_text(IFLA_INFO_SLAVE_KIND, "bridge")
      .begin(IFLA_INFO_SLAVE_DATA)
      .put_u8(IFLA_BRPORT_ISOLATED, 1)
      .end()
      .end();
  return unless_gone(channel, std::move(message), what);
}

Result<bool> delete_link(Channel& channel, std::string_view name) {
  if (!valid_link_name(name)) return bad_name(name);
  Message message = link_request(RTM_DELLINK, 0, 0);
  message.put_text(IFLA_IFNAME, name);
  return unless_gone(channel, std::move(message), "delete link " + std::string(name));
}

Result<bool> delete_link(Channel& channel, int index) {
  const std::string what = "delete link with index " + std::to_string(index);
  if (index <= 0) return fail(ErrorCode::kInvalid, what);
  return unless_gone(channel, link_request(RTM_DELLINK, 0, index), what);
}

}  // namespace meshd::netlink
