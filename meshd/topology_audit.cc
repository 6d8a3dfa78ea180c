// The second half of Topology: what is compared again and again, and what a purge removes.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <ranges>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "meshd/pools.h"
#include "meshd/topology.h"
#include "meshd/topology_parts.h"
#include "meshd/underlay.h"
#include "netlink/netns.h"
#include "netlink/uplink.h"
#include "policy/base_table.h"

namespace meshd {

namespace nl = netlink;

namespace {

constexpr const char* kForwarding4 = "net/ipv4/ip_forward";
constexpr const char* kForwarding6 = "net/ipv6/conf/all/forwarding";

bool is_gone(const Error& error) {
  return error.code == ErrorCode::kNotFound || error.sys_errno == ENOENT ||
         error.sys_errno == ENODEV;
}

// A link is ours by its group; one that lost the group by its name and what else it is.
bool is_ours(const nl::Link& link, const std::unordered_set<std::string_view>& planned) {
  if (link.group == kLinkGroup) return true;
  return link.kind == "veth" && link.mac == kHostMac && planned.contains(link.name);
}

// By the mark, where the kernel keeps it; else by what no other address on lo looks like.
bool is_resolver_address(const nl::Address& one) {
  if (one.protocol == nl::kOurProtocol) return true;
  const bool as_made = one.address.is_v4()
                           ? one.prefix_length == 32 && one.scope == nl::Scope::kHost
                           : one.prefix_length == 128 && one.deprecated && one.nodad;
  return as_made && looks_like_resolver(one.address);
}

}  // namespace

// --- sysctls -------------------------------------------------------------------------

void Topology::set_memory(std::map<std::string, std::string> known, RememberSysctls remember) {
  sysctls_before_ = std::move(known);
  remember_ = std::move(remember);
}

bool Topology::forwarding_was_off(Family family) const {
  const auto found = sysctls_before_.find(family == Family::kV4 ? kForwarding4 : kForwarding6);
  return found != sysctls_before_.end() && found->second == "0";
}

// Said before anything fails for want of it: the kernel's own words do not name the cause.
Status Topology::check_ipv6() const {
  if (!settings_.pool6) return {};
  constexpr std::string_view kMend = "switch IPv6 on, or set pool.ipv6 to off";
  const auto off = nl::read_sysctl("net/ipv6/conf/lo/disable_ipv6");
  if (!off && is_gone(off.error())) {
    return fail(ErrorCode::kUnsupported,
                fmt::format("pool.ipv6 is on, but this kernel runs without IPv6: {}", kMend));
  }
  if (!off) return std::unexpected(off.error());
  if (*off == "0") return {};
  return fail(ErrorCode::kUnsupported,
              fmt::format("pool.ipv6 is on, but IPv6 is switched off on lo "
                          "(net.ipv6.conf.lo.disable_ipv6 = {}): {}",
                          *off, kMend));
}

// What was is stored before it is changed: after a crash in between it would be lost that
// forwarding was off, and with it that others are not forwarded.
Status Topology::ensure_sysctls(const std::vector<nl::Link>& all, Repairs& repairs) {
  std::vector<std::pair<std::string, std::string>> writes;
  std::vector<OldSysctl> fresh;
  const auto want = [&](std::string key, const char* value) -> Status {
    auto before = nl::read_sysctl(key);
    const bool is_too_early =
        (key == kForwarding4 && !forwards4_) || (key == kForwarding6 && !forwards6_);
    if (!before && key.ends_with("/accept_ra") && is_gone(before.error())) return {};
    if (!before) return std::unexpected(std::move(before).error());
    const bool is_right = *before == value;
    const bool is_known = sysctls_before_.contains(key);
    if (is_known && !is_right && !is_too_early)
      repairs.what.push_back(fmt::format("sysctl {} was {}", key, *before));
    // Also what was right: switched off later, it was not so before us.
    if (!is_known) fresh.push_back({key, *std::move(before)});
    if (!is_right && !is_too_early) writes.emplace_back(std::move(key), value);
    return {};
  };
  if (settings_.pool6) {
    CHECK_OK(want(kForwarding6, "1"));
    // Forwarding ends router advertisements, and with them the default route, on links that
    // take them only while not forwarding. Where it was on before us it did so already.
    const bool was_off =
        forwarding_was_off(Family::kV6) || (!fresh.empty() && fresh[0].value == "0");
    const bool any = std::ranges::any_of(all, [](const auto& l) { return l.accept_ra == 1; });
    if (was_off && any) {
      const auto routes = TRY(nl::list_routes(channel_, {.table = nl::kMainTable}));
      for (const auto& link : nl::links_losing_router(all, routes)) {
        CHECK_OK(want("net/ipv6/conf/" + link.name + "/accept_ra", "2"));
      }
    }
  }
  CHECK_OK(want(kForwarding4, "1"));
  if (!fresh.empty()) CHECK_OK(remember_(fresh));
  for (auto& old : fresh) sysctls_before_.emplace(std::move(old.key), std::move(old.value));
  // In reverse: accept_ra before the forwarding that makes it needed.
  for (const auto& [key, value] : writes | std::views::reverse) {
    const auto written = nl::write_sysctl(key, value);
    const bool vanished = !written && key.ends_with("/accept_ra") && is_gone(written.error());
    if (!written && !vanished) return written;
  }
  return {};
}

Status Topology::begin_forwarding() {
  const auto begin = [](bool& forwards, const char* key) -> Status {
    if (!std::exchange(forwards, true)) CHECK_OK(nl::ensure_sysctl(key, "1"));
    return {};
  };
  if (settings_.pool6) CHECK_OK(begin(forwards6_, kForwarding6));
  return begin(forwards4_, kForwarding4);
}

// --- audit ---------------------------------------------------------------------------

Status Topology::sweep_strangers(const std::vector<LinkPlan>& links,
                                 const std::vector<nl::Link>& have, Repairs& repairs) {
  std::unordered_set<std::string_view> known;
  for (const auto& plan : links) known.insert(plan.host_ifname);
  for (const auto& link : have) {
    if (known.contains(link.name)) continue;
    if (TRY(nl::delete_link(channel_, link.index))) {
      repairs.what.push_back("link " + link.name + " belonged to nobody");
    }
  }
  return {};
}

Status Topology::repair_links(const std::vector<LinkPlan>& links, const std::vector<nl::Link>& have,
                              Repairs& repairs) {
  std::vector<nl::Neighbour> neighbours;
  auto routes = mesh_routes();
  std::unordered_map<std::string_view, const nl::Link*> by_name;
  for (const auto& link : have) by_name.emplace(link.name, &link);
  for (const auto& plan : links) {
    const auto found = by_name.find(plan.host_ifname);
    if (found == by_name.end()) {
      repairs.missing.push_back(plan.host_ifname);
      continue;
    }
    const auto* link = found->second;
    const auto changed =
        TRY(nl::ensure_link(channel_, *link, host_wish(*link, plan.v6.has_value())));
    if (!changed.empty()) {
      repairs.what.push_back("link " + plan.host_ifname + " had another " + changed);
    }
    for (const auto& address : addresses_of(plan)) {
      neighbours.push_back({link->index, address, plan.mac});
      routes.push_back(host_route(address, link->index));
    }
  }
  for (const auto& neighbour : TRY(nl::ensure_neighbours(channel_, neighbours))) {
    repairs.what.push_back(neighbour.to_string() + " was missing");
  }
  for (const auto& route : TRY(nl::ensure_routes(channel_, routes))) {
    repairs.what.push_back(route.to_string() + " was missing");
  }
  return sweep_routes(routes, repairs);
}

// Routes with our number that lead where nobody is any more. Those to other nodes are not of
// this part (underlay.h).
Status Topology::sweep_routes(const std::vector<nl::Route>& wanted, Repairs& repairs) {
  nl::RouteFilter filter;
  filter.protocol = nl::kOurProtocol;
  filter.table = nl::kMainTable;
  std::multimap<Prefix, nl::Route> known;
  for (const auto& want : wanted) known.emplace(want.destination, nl::canonical(want));
  for (const auto& route : TRY(nl::list_routes(channel_, filter))) {
    if (is_underlay_route(route)) continue;
    const auto [first, last] = known.equal_range(route.destination);
    const bool is_known =
        std::any_of(first, last, [&](const auto& want) { return want.second == route; });
    if (is_known || !TRY(nl::delete_route(channel_, route))) continue;
    if (holds_route(mesh_former_, route)) continue;
    repairs.what.push_back(route.to_string() + " belonged to nobody");
  }
  mesh_former_.clear();
  return {};
}

// Networks that an engine has given to a container since it was attached. A port that stays open
// stops nothing else: rules come before it.
void Topology::isolate_ports(const std::vector<LinkPlan>& links, const std::vector<nl::Link>& all,
                             Repairs& repairs) {
  std::unordered_set<std::string_view> planned;
  for (const auto& plan : links) planned.insert(plan.host_ifname);
  containers_.clear();
  for (const auto& link : all) {
    if (link.peer_netnsid && planned.contains(link.name) && is_ours(link, planned)) {
      containers_.insert(*link.peer_netnsid);
    }
  }
  for (const auto& port : open_ports(all, containers_)) {
    const auto isolated = nl::isolate_port(channel_, port);
    if (!isolated) {
      repairs.trouble.push_back(isolated.error().what);
    } else if (*isolated) {
      repairs.what.push_back("bridge port " + port.name + " was not isolated");
    }
  }
}

Result<Repairs> Topology::audit(const std::vector<LinkPlan>& links) {
  auto have = TRY(nl::list_links(channel_));
  auto repairs = TRY(ensure_node(have));
  isolate_ports(links, have, repairs);
  std::unordered_set<std::string_view> planned;
  for (const auto& plan : links) planned.insert(plan.host_ifname);
  std::erase_if(have, [&](const nl::Link& link) { return !is_ours(link, planned); });
  CHECK_OK(sweep_strangers(links, have, repairs));
  CHECK_OK(repair_links(links, have, repairs));
  return repairs;
}

// --- purge ---------------------------------------------------------------------------

Status Topology::restore(const std::vector<OldSysctl>& before) {
  std::string failures;
  for (const auto& old : before) {
    const auto restored = nl::ensure_sysctl(old.key, old.value);
    // The link can be gone, or IPv6 off for the whole node: nothing to put back.
    if (restored || is_gone(restored.error())) continue;
    if (!failures.empty()) failures += "; ";
    failures += restored.error().what;
  }
  if (failures.empty()) return {};
  return fail(ErrorCode::kSystem, failures);
}

Status Topology::purge(const std::vector<IpAddress>& resolvers) {
  auto channel = TRY(nl::Channel::open(nl::Channel::Protocol::kRoute));
  std::string failures;
  // What cannot be removed is no reason to leave the rest behind.
  const auto note = [&failures](const auto& outcome) {
    if (outcome) return;
    if (!failures.empty()) failures += "; ";
    failures += outcome.error().what;
  };
  const auto links = nl::list_links(channel);
  note(links);
  if (links) {
    for (const auto& link : *links) {
      const bool is_ours = link.group == kLinkGroup || link.group == policy::kTunnelGroup;
      if (is_ours) note(nl::delete_link(channel, link.index));
    }
  }
  const auto routes = nl::list_routes(channel, {.protocol = nl::kOurProtocol});
  note(routes);
  if (routes) {
    for (const auto& route : *routes) note(nl::delete_route(channel, route));
  }
  const auto addresses = nl::list_addresses(channel, nl::kLoopbackIndex);
  note(addresses);
  if (addresses) {
    for (const auto& one : *addresses) {
      const bool known = std::ranges::find(resolvers, one.address) != resolvers.end();
      if (known || is_resolver_address(one)) note(nl::delete_address(channel, one));
    }
  }
  if (failures.empty()) return {};
  return fail(ErrorCode::kSystem, failures);
}

}  // namespace meshd
