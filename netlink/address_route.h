// Addresses, routes, policy rules and neighbours of a network namespace: listing them and
// making them as wanted.
//
// Threads:    not thread-safe, as Channel is.
// Invariants: ensure_ functions read first and write only what differs; they return what
//             they wrote, so that an empty answer means that all was right. Removing what
//             is not there is no error (false).
// Errors:     kSystem with errno and the kernel's words, naming the object.
// Source:     rtnetlink(7), linux/rtnetlink.h, linux/if_addr.h, linux/neighbour.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "netlink/channel.h"

namespace meshd::netlink {

// By this number our routes, rules, neighbours and addresses are recognised; `ip route` prints it
// as "proto 213". Free in iproute2's rt_protos and in the kernel's list up to 6.18.
inline constexpr std::uint8_t kOurProtocol = 213;

inline constexpr std::uint32_t kMainTable = 254;
// IP6_RT_PRIO_USER: what the kernel makes of metric 0 on IPv6.
inline constexpr std::uint32_t kDefaultMetric6 = 1024;

enum class Scope : std::uint8_t { kGlobal = 0, kSite = 200, kLink = 253, kHost = 254 };

struct Address {
  int ifindex = 0;
  IpAddress address = {};
  int prefix_length = 0;
  Scope scope = Scope::kGlobal;  // of an IPv6 address the kernel decides it
  bool deprecated = false;       // preferred_lft 0: never chosen as a source by itself
  bool nodad = false;            // IPv6 only
  bool no_prefix_route = false;  // the kernel makes no route of the prefix
  // Only told by the kernel, not part of what is wanted.
  bool tentative = false;     // duplicate detection runs or has failed
  bool temporary = false;     // IPv6 privacy, or a secondary IPv4 address
  std::uint8_t protocol = 0;  // kOurProtocol: made by us, where the kernel keeps that (5.18)
  [[nodiscard]] std::string to_string() const;
};

enum class RouteType : std::uint8_t {
  kUnicast = 1,
  kLocal = 2,
  kBlackhole = 6,
  kUnreachable = 7,
  kProhibit = 8,
  kOther = 0xff,
};

struct Route {
  Prefix destination = {};
  int ifindex = 0;  // of a multipath route: the first next hop's
  std::optional<IpAddress> gateway = {};
  bool onlink = false;  // the gateway is reached by the link, whatever the addresses say
  Scope scope =
      Scope::kGlobal;  // IPv4 only; the gateway of a kGlobal route needs a kLink route to it
  std::uint32_t metric = 0;
  RouteType type = RouteType::kUnicast;
  std::uint32_t table = kMainTable;
  std::uint8_t protocol = kOurProtocol;
  std::optional<IpAddress> source = {};  // RTA_PREFSRC
  std::vector<int> further_links = {};   // of the other next hops of a multipath route; read only
  bool operator==(const Route&) const = default;
  [[nodiscard]] std::string to_string() const;
};

struct SourceRule {  // packets from `from` look into `table`
  Prefix from = {};
  std::uint32_t table = kMainTable;
  std::uint32_t priority = 0;
  std::uint8_t protocol = kOurProtocol;
  bool operator==(const SourceRule&) const = default;
  [[nodiscard]] std::string to_string() const;
};

struct Neighbour {
  int ifindex = 0;
  IpAddress address = {};
  Mac mac = {};
  bool permanent = true;
  std::uint8_t protocol = kOurProtocol;
  bool operator==(const Neighbour&) const = default;
  [[nodiscard]] std::string to_string() const;
};

// Absent: everything.
struct RouteFilter {
  std::optional<std::uint8_t> protocol = {};
  std::optional<std::uint32_t> table = {};
  std::optional<int> ifindex = {};
};

[[nodiscard]] Result<std::vector<Address>> list_addresses(Channel& channel, int ifindex = 0);
[[nodiscard]] Result<std::vector<Route>> list_routes(Channel& channel, const RouteFilter& filter);
[[nodiscard]] Result<std::vector<SourceRule>> list_rules(Channel& channel);  // with a source
[[nodiscard]] Result<std::vector<Neighbour>> list_neighbours(Channel& channel, int ifindex = 0);

// Each reads once, whatever the number wanted, and returns what it had to write. The first
// refusal ends it; what was written before stays.
[[nodiscard]] Result<std::vector<Address>> ensure_addresses(Channel& channel,
                                                            std::span<const Address> wanted);
[[nodiscard]] Result<std::vector<Route>> ensure_routes(Channel& channel,
                                                       std::span<const Route> wanted);
[[nodiscard]] Result<std::vector<SourceRule>> ensure_rules(Channel& channel,
                                                           std::span<const SourceRule> wanted);
[[nodiscard]] Result<std::vector<Neighbour>> ensure_neighbours(Channel& channel,
                                                               std::span<const Neighbour> wanted);

// Written without reading: for a link just made, where a dump would only show the others'.
[[nodiscard]] Status put_routes(Channel& channel, std::span<const Route> wanted);
[[nodiscard]] Status put_neighbours(Channel& channel, std::span<const Neighbour> wanted);

[[nodiscard]] Result<bool> delete_address(Channel& channel, const Address& address);
[[nodiscard]] Result<bool> delete_route(Channel& channel, const Route& route);
[[nodiscard]] Result<bool> delete_rule(Channel& channel, const SourceRule& rule);
[[nodiscard]] Result<bool> delete_neighbour(Channel& channel, const Neighbour& neighbour);

// Whether what the kernel has is what is wanted; the fields that only the kernel decides
// do not count.
[[nodiscard]] bool same_address(const Address& have, const Address& want);
// As the kernel will list it: IPv6 knows no scope and no metric 0.
[[nodiscard]] Route canonical(Route route);

// Content of RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWRULE and RTM_NEWNEIGH (or RTM_DEL...).
[[nodiscard]] std::optional<Address> decode_address(ByteView content);
[[nodiscard]] std::optional<Route> decode_route(ByteView content);
[[nodiscard]] std::optional<SourceRule> decode_rule(ByteView content);
[[nodiscard]] std::optional<Neighbour> decode_neighbour(ByteView content);

}  // namespace meshd::netlink
