#include "netlink/address_route.h"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <initializer_list>

namespace meshd::netlink {
namespace {

constexpr std::uint8_t kAfUnspec = 0;
constexpr std::uint8_t kAfInet = 2;
constexpr std::uint8_t kAfInet6 = 10;
constexpr std::uint32_t kForever = 0xffff'ffff;  // INFINITY_LIFE_TIME

std::uint8_t number_of(Family family) { return family == Family::kV4 ? kAfInet : kAfInet6; }

// Of a dump: nothing there to list.
bool is_empty_answer(const Error& error, std::initializer_list<int> absences) {
  return std::ranges::find(absences, error.sys_errno) != absences.end();
}

Result<bool> remove(Channel& channel, Message message, const std::string& object,
                    std::initializer_list<int> absences) {
  const Status status = channel.change(std::move(message), "delete " + object);
  if (status) return true;
  if (is_empty_answer(status.error(), absences)) return false;
  return std::unexpected(status.error());
}

Message address_message(std::uint16_t type, std::uint16_t flags, const Address& address) {
  ifaddrmsg header{};
  header.ifa_family = number_of(address.address.family());
  header.ifa_prefixlen = static_cast<std::uint8_t>(address.prefix_length);
  header.ifa_scope = static_cast<std::uint8_t>(address.scope);
  header.ifa_index = static_cast<std::uint32_t>(address.ifindex);
  Message message(type, flags);
  message.header(header)
      .put_address(IFA_LOCAL, address.address)
      .put_address(IFA_ADDRESS, address.address);
  if (type == RTM_DELADDR) return message;
  const std::uint32_t bits =
      (address.nodad ? IFA_F_NODAD : 0U) | (address.no_prefix_route ? IFA_F_NOPREFIXROUTE : 0U);
  message.put_u32(IFA_FLAGS, bits).put_u8(IFA_PROTO, kOurProtocol);
  if (address.deprecated) {
    ifa_cacheinfo lifetimes{};
    lifetimes.ifa_prefered = 0;
    lifetimes.ifa_valid = kForever;
    message.put(IFA_CACHEINFO, std::as_bytes(std::span(&lifetimes, 1)));
  }
  return message;
}

// `have`: the same address as it is now, if it is there.
Status write_address(Channel& channel, const Address& want, const Address* have) {
  std::uint16_t flags = NLM_F_CREATE | NLM_F_EXCL;
  if (have != nullptr && want.address.is_v6()) flags = NLM_F_CREATE | NLM_F_REPLACE;
  if (have != nullptr && want.address.is_v4()) {
    // IPv4 changes neither scope nor flags of an address that exists.
    CHECK_OK(delete_address(channel, *have));
  }
  return channel.change(address_message(RTM_NEWADDR, flags, want), "add " + want.to_string());
}

Message route_message(std::uint16_t type, std::uint16_t flags, const Route& route) {
  rtmsg header{};
  header.rtm_family = number_of(route.destination.family());
  header.rtm_dst_len = static_cast<std::uint8_t>(route.destination.length());
  // Tables beyond 255 are told by RTA_TABLE alone.
  header.rtm_table = static_cast<std::uint8_t>(route.table < 256 ? route.table : 0);
  header.rtm_protocol = route.protocol;
  header.rtm_scope = static_cast<std::uint8_t>(route.scope);
  header.rtm_type = static_cast<std::uint8_t>(route.type);
  if (route.onlink) header.rtm_flags = RTNH_F_ONLINK;
  Message message(type, flags);
  message.header(header);
  if (route.destination.length() > 0) message.put_address(RTA_DST, route.destination.address());
  if (route.ifindex != 0) message.put_u32(RTA_OIF, static_cast<std::uint32_t>(route.ifindex));
  if (route.gateway) message.put_address(RTA_GATEWAY, *route.gateway);
  if (route.source) message.put_address(RTA_PREFSRC, *route.source);
  if (route.metric != 0) message.put_u32(RTA_PRIORITY, route.metric);
  message.put_u32(RTA_TABLE, route.table);
  return message;
}

Message rule_message(std::uint16_t type, std::uint16_t flags, const SourceRule& rule) {
  fib_rule_hdr header{};
  header.family = number_of(rule.from.family());
  header.src_len = static_cast<std::uint8_t>(rule.from.length());
  header.action = FR_ACT_TO_TBL;
  Message message(type, flags);
  message.header(header)
      .put_address(FRA_SRC, rule.from.address())
      .put_u32(FRA_TABLE, rule.table)
      .put_u32(FRA_PRIORITY, rule.priority)
      .put_u8(FRA_PROTOCOL, rule.protocol);
  return message;
}

Message neighbour_message(std::uint16_t type, std::uint16_t flags, const Neighbour& neighbour) {
  ndmsg header{};
  header.ndm_family = number_of(neighbour.address.family());
  header.ndm_ifindex = neighbour.ifindex;
  header.ndm_state = neighbour.permanent ? NUD_PERMANENT : NUD_REACHABLE;
  Message message(type, flags);
  message.header(header).put_address(NDA_DST, neighbour.address);
  if (type == RTM_DELNEIGH) return message;
  message.put_mac(NDA_LLADDR, neighbour.mac).put_u8(NDA_PROTOCOL, neighbour.protocol);
  return message;
}

// Appends the routes of one family that pass `filter`. The kernel filters too, but only
// when it checks requests strictly, and not by everything.
Status append_routes(Channel& channel, Family family, const RouteFilter& filter,
                     std::vector<Route>& routes) {
  rtmsg header{};
  header.rtm_family = number_of(family);
  header.rtm_protocol = filter.protocol.value_or(RTPROT_UNSPEC);
  Message message(RTM_GETROUTE, 0);
  message.header(header);
  if (filter.table) message.put_u32(RTA_TABLE, *filter.table);
  if (filter.ifindex) message.put_u32(RTA_OIF, static_cast<std::uint32_t>(*filter.ifindex));
  const auto wanted = [&filter](const Route& route) {
    return filter.protocol.value_or(route.protocol) == route.protocol &&
           filter.table.value_or(route.table) == route.table &&
           filter.ifindex.value_or(route.ifindex) == route.ifindex;
  };
  auto found = dump_all<Route>(
      channel, std::move(message), "list routes", [&wanted](std::uint16_t type, ByteView content) {
        auto route = type == RTM_NEWROUTE ? decode_route(content) : std::nullopt;
        if (route && !wanted(*route)) route.reset();
        return route;
      });
  if (!found) {
    // ENOENT: no such table. ENODEV: no such link. The last two: no IPv6 here.
    if (is_empty_answer(found.error(), {ENOENT, ENODEV, EAFNOSUPPORT, EOPNOTSUPP})) return {};
    return std::unexpected(std::move(found).error());
  }
  routes.insert(routes.end(), std::make_move_iterator(found->begin()),
                std::make_move_iterator(found->end()));
  return {};
}

bool same_place(const Route& a, const Route& b) {
  return a.destination == b.destination && a.table == b.table && a.metric == b.metric;
}

// The link all of them are on, or 0.
template <class T>
int common_link(std::span<const T> objects) {
  if (objects.empty()) return 0;
  const int first = objects.front().ifindex;
  const bool same =
      std::ranges::all_of(objects, [first](const T& one) { return one.ifindex == first; });
  return same ? first : 0;
}

template <class T>
auto by_link_and_address(const T& one) {
  return std::pair(one.ifindex, one.address);
}

}  // namespace

Result<std::vector<Address>> list_addresses(Channel& channel, int ifindex) {
  ifaddrmsg header{};
  header.ifa_family = kAfUnspec;
  header.ifa_index = static_cast<std::uint32_t>(ifindex);
  Message message(RTM_GETADDR, 0);
  message.header(header);
  auto found = dump_all<Address>(channel, std::move(message), "list addresses",
                                 [ifindex](std::uint16_t type, ByteView content) {
                                   auto address =
                                       type == RTM_NEWADDR ? decode_address(content) : std::nullopt;
                                   if (address && ifindex != 0 && address->ifindex != ifindex)
                                     address.reset();
                                   return address;
                                 });
  if (!found && is_empty_answer(found.error(), {ENODEV})) return std::vector<Address>();
  return found;
}

Result<std::vector<Route>> list_routes(Channel& channel, const RouteFilter& filter) {
  std::vector<Route> routes;
  for (const Family family : kFamilies) {
    CHECK_OK(append_routes(channel, family, filter, routes));
  }
  return routes;
}

Result<std::vector<SourceRule>> list_rules(Channel& channel) {
  std::vector<SourceRule> rules;
  for (const Family family : kFamilies) {
    fib_rule_hdr header{};
    header.family = number_of(family);
    Message message(RTM_GETRULE, 0);
    message.header(header);
    const auto found = dump_all<SourceRule>(
        channel, std::move(message), "list policy rules", [](std::uint16_t type, ByteView content) {
          return type == RTM_NEWRULE ? decode_rule(content) : std::nullopt;
        });
    if (found) {
      rules.insert(rules.end(), found->begin(), found->end());
    } else if (!is_empty_answer(found.error(), {EAFNOSUPPORT, EOPNOTSUPP})) {
      return std::unexpected(found.error());
    }
  }
  return rules;
}

Result<std::vector<Neighbour>> list_neighbours(Channel& channel, int ifindex) {
  ndmsg header{};
  header.ndm_family = kAfUnspec;
  Message message(RTM_GETNEIGH, 0);
  message.header(header);
  if (ifindex != 0) message.put_u32(NDA_IFINDEX, static_cast<std::uint32_t>(ifindex));
  auto found = dump_all<Neighbour>(
      channel, std::move(message), "list neighbours",
      [ifindex](std::uint16_t type, ByteView content) {
        auto neighbour = type == RTM_NEWNEIGH ? decode_neighbour(content) : std::nullopt;
        if (neighbour && ifindex != 0 && neighbour->ifindex != ifindex) neighbour.reset();
        return neighbour;
      });
  if (!found && is_empty_answer(found.error(), {ENODEV})) return std::vector<Neighbour>();
  return found;
}

Result<std::vector<Address>> ensure_addresses(Channel& channel, std::span<const Address> wanted) {
  std::vector<Address> written;
  if (wanted.empty()) return written;
  std::vector<Address> have = TRY(list_addresses(channel, common_link(wanted)));
  const auto key = by_link_and_address<Address>;
  std::ranges::sort(have, {}, key);
  for (const Address& want : wanted) {
    const auto candidates = std::ranges::equal_range(have, key(want), {}, key);
    const auto found = std::ranges::find(candidates, want.prefix_length, &Address::prefix_length);
    const Address* present = found == candidates.end() ? nullptr : &*found;
    if (present != nullptr && same_address(*present, want)) continue;
    CHECK_OK(write_address(channel, want, present));
    written.push_back(want);
  }
  return written;
}

Result<std::vector<Route>> ensure_routes(Channel& channel, std::span<const Route> wanted) {
  std::vector<Route> written;
  if (wanted.empty()) return written;
  // Not filtered by protocol: a foreign route in the same place must be seen to differ.
  const std::uint32_t table = wanted.front().table;
  const bool one_table =
      std::ranges::all_of(wanted, [table](const Route& route) { return route.table == table; });
  RouteFilter filter;
  if (one_table) filter.table = table;
  const std::vector<Route> have = TRY(list_routes(channel, filter));
  // Sorted by destination, then as listed: of several in one place the first counts for the
  // kernel.
  std::vector<const Route*> sorted;
  for (const Route& route : have) sorted.push_back(&route);
  const auto key = [](const Route* route) { return route->destination; };
  std::ranges::sort(sorted, {}, [&key](const Route* r) { return std::pair(key(r), r); });
  for (const Route& one : wanted) {
    const Route want = canonical(one);
    const auto candidates = std::ranges::equal_range(sorted, want.destination, {}, key);
    const auto found = std::ranges::find_if(
        candidates, [&want](const Route* route) { return same_place(*route, want); });
    if (found != candidates.end() && **found == want) continue;
    CHECK_OK(put_routes(channel, std::span(&want, 1)));
    written.push_back(one);
  }
  return written;
}

Result<std::vector<SourceRule>> ensure_rules(Channel& channel, std::span<const SourceRule> wanted) {
  std::vector<SourceRule> written;
  if (wanted.empty()) return written;
  const std::vector<SourceRule> have = TRY(list_rules(channel));
  for (const SourceRule& want : wanted) {
    if (std::ranges::find(have, want) != have.end()) continue;
    // Added before the old one goes: a gap would send packets to the main table.
    CHECK_OK(channel.change(rule_message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, want),
                            "add " + want.to_string()));
    for (const SourceRule& old : have) {
      if (old.from == want.from && old.priority == want.priority) {
        CHECK_OK(delete_rule(channel, old));
      }
    }
    written.push_back(want);
  }
  return written;
}

Result<std::vector<Neighbour>> ensure_neighbours(Channel& channel,
                                                 std::span<const Neighbour> wanted) {
  std::vector<Neighbour> written;
  if (wanted.empty()) return written;
  std::vector<Neighbour> have = TRY(list_neighbours(channel, common_link(wanted)));
  const auto key = by_link_and_address<Neighbour>;
  std::ranges::sort(have, {}, key);
  for (const Neighbour& want : wanted) {
    const auto found = std::ranges::lower_bound(have, key(want), {}, key);
    if (found != have.end() && *found == want) continue;
    CHECK_OK(put_neighbours(channel, std::span(&want, 1)));
    written.push_back(want);
  }
  return written;
}

Status put_routes(Channel& channel, std::span<const Route> wanted) {
  for (const Route& one : wanted) {
    const Route want = canonical(one);
    CHECK_OK(channel.change(route_message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, want),
                            "add " + want.to_string()));
  }
  return {};
}

Status put_neighbours(Channel& channel, std::span<const Neighbour> wanted) {
  for (const Neighbour& want : wanted) {
    CHECK_OK(channel.change(neighbour_message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, want),
                            "add " + want.to_string()));
  }
  return {};
}

Result<bool> delete_address(Channel& channel, const Address& address) {
  return remove(channel, address_message(RTM_DELADDR, 0, address), address.to_string(),
                {EADDRNOTAVAIL, ENODEV});
}

Result<bool> delete_route(Channel& channel, const Route& route) {
  return remove(channel, route_message(RTM_DELROUTE, 0, canonical(route)), route.to_string(),
                {ESRCH, ENODEV, ENOENT});
}

Result<bool> delete_rule(Channel& channel, const SourceRule& rule) {
  return remove(channel, rule_message(RTM_DELRULE, 0, rule), rule.to_string(), {ENOENT});
}

Result<bool> delete_neighbour(Channel& channel, const Neighbour& neighbour) {
  return remove(channel, neighbour_message(RTM_DELNEIGH, 0, neighbour), neighbour.to_string(),
                {ENOENT, ENODEV});
}

}  // namespace meshd::netlink
