// The pure half of address_route.h: bytes in, values out, and values as text.
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include "netlink/address_route.h"

namespace meshd::netlink {
namespace {

// linux/socket.h; sys/socket.h would bring libc's view of the same structures.
constexpr std::uint8_t kAfInet = 2;
constexpr std::uint8_t kAfInet6 = 10;

std::optional<Family> family_of(std::uint8_t number) {
  if (number == kAfInet) return Family::kV4;
  if (number == kAfInet6) return Family::kV6;
  return std::nullopt;
}

IpAddress zero_of(Family family) {
  static constexpr std::array<std::uint8_t, 16> kZeros{};
  return family == Family::kV4 ? IpAddress() : IpAddress::v6(kZeros);
}

// A prefix whose address is left out when its length is 0.
std::optional<Prefix> read_prefix(Family family, ByteView bytes, int length) {
  if (length > (family == Family::kV4 ? 32 : 128)) return std::nullopt;
  const auto address = read_address(bytes);
  if (!address) {
    if (length != 0) return std::nullopt;
    return Prefix::of(zero_of(family), 0);
  }
  if (address->family() != family) return std::nullopt;
  return Prefix::of(*address, length);
}

RouteType route_type(std::uint8_t number) {
  switch (static_cast<RouteType>(number)) {
    case RouteType::kUnicast:
    case RouteType::kLocal:
    case RouteType::kBlackhole:
    case RouteType::kUnreachable:
    case RouteType::kProhibit:
      return static_cast<RouteType>(number);
    case RouteType::kOther:
      break;
  }
  return RouteType::kOther;
}

std::optional<IpAddress> read_gateway(const Attributes<32>& attributes) {
  if (attributes.has(RTA_GATEWAY)) return read_address(attributes.bytes(RTA_GATEWAY));
  // An IPv4 route by an IPv6 gateway: the family, then the address.
  const ByteView via = attributes.bytes(RTA_VIA);
  return via.size() > 2 ? read_address(via.subspan(2)) : std::nullopt;
}

// Next hops: a struct rtnexthop each, whose length includes its attributes.
void decode_hops(ByteView hops, Route& route) {
  bool first = true;
  while (const auto hop = read_host<rtnexthop>(hops)) {
    if (hop->rtnh_len < sizeof(rtnexthop) || hop->rtnh_len > hops.size()) return;
    if (first) {
      route.ifindex = hop->rtnh_ifindex;
      route.gateway =
          read_gateway(Attributes<32>(hops.first(hop->rtnh_len).subspan(sizeof(rtnexthop))));
      route.onlink = (hop->rtnh_flags & RTNH_F_ONLINK) != 0;
    } else {
      route.further_links.push_back(hop->rtnh_ifindex);
    }
    first = false;
    hops = after(hops, hop->rtnh_len);
  }
}

// As the calling thread's namespace names it: what is printed is about that one.
std::string link_text(int ifindex) {
  char name[IF_NAMESIZE];
  if (ifindex > 0 && if_indextoname(static_cast<unsigned>(ifindex), name) != nullptr) {
    return std::string(" dev ") + name;
  }
  return " dev #" + std::to_string(ifindex);
}

}  // namespace

std::optional<Address> decode_address(ByteView content) {
  const auto header = read_host<ifaddrmsg>(content);
  if (!header) return std::nullopt;
  const Attributes<16> attributes(after(content, sizeof(ifaddrmsg)));
  // On a point-to-point link IFA_ADDRESS is the other end's.
  const auto address =
      read_address(attributes.bytes(attributes.has(IFA_LOCAL) ? IFA_LOCAL : IFA_ADDRESS));
  if (!address || family_of(header->ifa_family) != address->family()) return std::nullopt;
  const std::uint32_t flags =
      attributes.has(IFA_FLAGS) ? attributes.host32(IFA_FLAGS) : header->ifa_flags;
  const auto lifetimes = read_host<ifa_cacheinfo>(attributes.bytes(IFA_CACHEINFO));
  Address decoded;
  decoded.ifindex = static_cast<int>(header->ifa_index);
  decoded.address = *address;
  decoded.prefix_length = header->ifa_prefixlen;
  decoded.scope = static_cast<Scope>(header->ifa_scope);
  decoded.deprecated =
      (flags & IFA_F_DEPRECATED) != 0 || (lifetimes && lifetimes->ifa_prefered == 0);
  decoded.nodad = (flags & IFA_F_NODAD) != 0;
  decoded.no_prefix_route = (flags & IFA_F_NOPREFIXROUTE) != 0;
  decoded.tentative = (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0;
  decoded.temporary = (flags & IFA_F_TEMPORARY) != 0;
  decoded.protocol = read_host<std::uint8_t>(attributes.bytes(IFA_PROTO)).value_or(0);
  return decoded;
}

std::optional<Route> decode_route(ByteView content) {
  const auto header = read_host<rtmsg>(content);
  if (!header || (header->rtm_flags & RTM_F_CLONED) != 0) return std::nullopt;  // a cached one
  const auto family = family_of(header->rtm_family);
  if (!family || header->rtm_src_len != 0) return std::nullopt;
  const Attributes<32> attributes(after(content, sizeof(rtmsg)));
  const auto destination = read_prefix(*family, attributes.bytes(RTA_DST), header->rtm_dst_len);
  if (!destination) return std::nullopt;
  Route route;
  route.destination = *destination;
  route.ifindex = static_cast<int>(attributes.host32(RTA_OIF));
  route.gateway = read_gateway(attributes);
  route.onlink = (header->rtm_flags & RTNH_F_ONLINK) != 0;
  route.scope = static_cast<Scope>(header->rtm_scope);
  route.metric = attributes.host32(RTA_PRIORITY);
  route.type = route_type(header->rtm_type);
  route.table = attributes.has(RTA_TABLE) ? attributes.host32(RTA_TABLE) : header->rtm_table;
  route.protocol = header->rtm_protocol;
  route.source = read_address(attributes.bytes(RTA_PREFSRC));
  decode_hops(attributes.bytes(RTA_MULTIPATH), route);
  return route;
}

std::optional<SourceRule> decode_rule(ByteView content) {
  const auto header = read_host<fib_rule_hdr>(content);
  if (!header || header->action != FR_ACT_TO_TBL || header->dst_len != 0 ||
      (header->flags & FIB_RULE_INVERT) != 0) {
    return std::nullopt;
  }
  const auto family = family_of(header->family);
  const Attributes<32> attributes(after(content, sizeof(fib_rule_hdr)));
  // A rule that looks at more than the source is not one of this kind.
  for (const int other : {FRA_IIFNAME, FRA_OIFNAME, FRA_FWMARK, FRA_UID_RANGE, FRA_IP_PROTO,
                          FRA_SPORT_RANGE, FRA_DPORT_RANGE, FRA_TUN_ID}) {
    if (attributes.has(static_cast<std::size_t>(other))) return std::nullopt;
  }
  if (!family || !attributes.has(FRA_SRC)) return std::nullopt;
  const auto from = read_prefix(*family, attributes.bytes(FRA_SRC), header->src_len);
  if (!from) return std::nullopt;
  return SourceRule{
      .from = *from,
      .table = attributes.has(FRA_TABLE) ? attributes.host32(FRA_TABLE) : header->table,
      .priority = attributes.host32(FRA_PRIORITY),
      .protocol = read_host<std::uint8_t>(attributes.bytes(FRA_PROTOCOL)).value_or(0)};
}

std::optional<Neighbour> decode_neighbour(ByteView content) {
  const auto header = read_host<ndmsg>(content);
  if (!header) return std::nullopt;
  const Attributes<16> attributes(after(content, sizeof(ndmsg)));
  const auto address = read_address(attributes.bytes(NDA_DST));
  if (!address || family_of(header->ndm_family) != address->family()) return std::nullopt;
  Neighbour neighbour;
  neighbour.ifindex = header->ndm_ifindex;
  neighbour.address = *address;
  const ByteView mac = attributes.bytes(NDA_LLADDR);
  if (mac.size() == neighbour.mac.bytes.size()) {
    std::memcpy(neighbour.mac.bytes.data(), mac.data(), mac.size());
  }
  neighbour.permanent = (header->ndm_state & NUD_PERMANENT) != 0;
  neighbour.protocol = read_host<std::uint8_t>(attributes.bytes(NDA_PROTOCOL)).value_or(0);
  return neighbour;
}

bool same_address(const Address& have, const Address& want) {
  const bool v4 = want.address.is_v4();
  return have.ifindex == want.ifindex && have.address == want.address &&
         have.prefix_length == want.prefix_length && have.deprecated == want.deprecated &&
         have.no_prefix_route == want.no_prefix_route &&
         (v4 ? have.scope == want.scope : have.nodad == want.nodad);
}

Route canonical(Route route) {
  if (route.destination.family() == Family::kV6) {
    route.scope = Scope::kGlobal;
    if (route.metric == 0) route.metric = kDefaultMetric6;
  }
  return route;
}

std::string Address::to_string() const {
  return "address " + address.to_string() + "/" + std::to_string(prefix_length) +
         link_text(ifindex);
}

std::string Route::to_string() const {
  std::string text = "route " + destination.to_string();
  if (gateway) text += " via " + gateway->to_string();
  text += link_text(ifindex);
  if (metric != 0) text += " metric " + std::to_string(metric);
  if (table != kMainTable) text += " table " + std::to_string(table);
  return text;
}

std::string SourceRule::to_string() const {
  return "rule " + std::to_string(priority) + " from " + from.to_string() + " table " +
         std::to_string(table);
}

std::string Neighbour::to_string() const {
  return "neighbour " + address.to_string() + " at " + mac.to_string() + link_text(ifindex);
}

}  // namespace meshd::netlink
