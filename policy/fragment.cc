#include "policy/fragment.h"

#include <algorithm>

#include "policy/truth.h"

namespace meshd::policy {
namespace {

Element interval(SetId set, const Prefix& prefix) {
  return ElementBuilder(set).addr(prefix.address()).end().addr(prefix.last()).build();
}

enum class Served : std::uint8_t { kNot, kInRange, kBySinglePort };

// The whole unit must be served, possibly by several entries: they do not overlap.
Served serves_whole(const Declaration& declaration, const PortUnit& unit) {
  int next = unit.first;
  bool single = false;
  for (bool found = true; found && next <= unit.last();) {
    found = false;
    for (const auto& served : declaration.serves) {
      if (next > unit.last() ||
          !served.ports.contains(unit.proto, static_cast<std::uint16_t>(next))) {
        continue;
      }
      single = single || served.ports.single();
      next = served.ports.last + 1;
      found = true;
    }
  }
  if (next <= unit.last()) return Served::kNot;
  return single ? Served::kBySinglePort : Served::kInRange;
}

// Whether the workload could be an endpoint of the unit, once it is ready.
bool may_become_endpoint(const Workload& workload, const PortUnit& unit, Family family) {
  return workload.address(family) && serves_whole(workload.declaration, unit) != Served::kNot;
}

// Nothing that belongs to the node or to the link is ever reached by egress.
// Services of a cloud that speak for the machine, to whoever asks from it, stand on the
// link, and some beside it: those of Alibaba, Azure, Oracle, Amazon (metadata and
// credentials) and Google. v4-mapped addresses are no destination of a packet, and where
// one is taken for its IPv4 address it would pass by every line above.
constexpr std::string_view kNever[] = {
    "127.0.0.0/8",        "169.254.0.0/16",   "224.0.0.0/4",      "240.0.0.0/4", "0.0.0.0/8",
    "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",   "::1/128",     "::ffff:0:0/96",
    "fd00:ec2::254/128",  "fd00:ec2::23/128", "fd20:ce::254/128", "fe80::/10",   "ff00::/8"};

}  // namespace

std::vector<PortUnit> units_of(const PortRange& range) {
  std::vector<PortUnit> units;
  for (int port = range.first; port <= range.last;) {
    const bool block = port % kBlock == 0 && port + kBlock - 1 <= range.last;
    units.push_back({range.proto, static_cast<std::uint16_t>(port), block});
    port += block ? kBlock : 1;
  }
  return units;
}

std::vector<PortUnit> units_of(const std::vector<PortRange>& ranges) {
  std::vector<PortUnit> units;
  for (const auto& range : ranges) {
    const auto more = units_of(range);
    units.insert(units.end(), more.begin(), more.end());
  }
  return units;
}

bool is_endpoint(const Workload& workload, const PortUnit& unit, Family family) {
  if (!workload.address(family) || workload.drains()) return false;
  const auto& declaration = workload.declaration;
  const auto served = serves_whole(declaration, unit);
  if (served == Served::kNot) return false;
  if (declaration.ready == ReadyMode::kNone) return true;
  const bool http = declaration.ready == ReadyMode::kHttp;
  // Ranges and UDP are ready at attach; the kernel lists listeners of TCP ports only.
  if (!http && (unit.proto == Proto::kUdp || served == Served::kInRange)) return true;
  const auto seen = workload.tcp_ready.find(http ? declaration.ready_http_port : unit.first);
  return seen != workload.tcp_ready.end() && seen->second.on(family);
}

Endpoints endpoints_of(const World& world, const Index& index, const ServiceKey& key,
                       const PortUnit& unit) {
  Endpoints endpoints;
  const auto members = index.members.find(key);
  if (members == index.members.end()) return endpoints;
  for (const auto& id : members->second) {
    const auto& workload = world.workloads.find(id)->second;
    if (is_endpoint(workload, unit, Family::kV4)) endpoints.v4.push_back(&workload);
    if (is_endpoint(workload, unit, Family::kV6)) endpoints.v6.push_back(&workload);
  }
  return endpoints;
}

FamilyReady served_on(const World& world, const Index& index, const ServiceKey& key,
                      const PortUnit& unit) {
  FamilyReady served;
  const auto members = index.members.find(key);
  if (members == index.members.end()) return served;
  for (const auto& id : members->second) {
    const auto& workload = world.workloads.find(id)->second;
    served.v4 = served.v4 || is_endpoint(workload, unit, Family::kV4);
    served.v6 = served.v6 || is_endpoint(workload, unit, Family::kV6);
    if (served.v4 && served.v6) break;
  }
  return served;
}

FamilyReady answered_on(const World& world, const Index& index, const ServiceKey& key,
                        const std::vector<PortUnit>& units) {
  FamilyReady answered;
  for (const auto& unit : units) {
    const auto served = served_on(world, index, key, unit);
    answered.v4 = answered.v4 || served.v4;
    answered.v6 = answered.v6 || served.v6;
    if (answered.v4 && answered.v6) break;
  }
  return answered.any() ? answered : FamilyReady{true, true};
}

bool waits_on(FamilyReady served, FamilyReady answered, Family family) {
  return !served.any() && answered.on(family);
}

std::vector<PortUnit> service_units(const World& world, const Index& index, const ServiceKey& key) {
  std::vector<PortUnit> units;
  const auto members = index.members.find(key);
  if (members == index.members.end()) return units;
  for (const auto& id : members->second) {
    for (const auto& served : world.workloads.find(id)->second.declaration.serves) {
      const auto more = units_of(served.ports);
      units.insert(units.end(), more.begin(), more.end());
    }
  }
  std::ranges::sort(units);
  units.erase(std::ranges::unique(units).begin(), units.end());
  return units;
}

std::vector<PortRange> confirmed_ranges(const World& world, const Workload& consumer,
                                        const Workload& provider,
                                        const std::vector<PortRange>& granted, Family family) {
  const auto of_consumer = world.confirmed.find(consumer.declaration.id);
  if (of_consumer == world.confirmed.end()) return {};
  const auto found = of_consumer->second.find(provider.declaration.id);
  if (found == of_consumer->second.end()) return {};
  const auto& said = found->second;
  const auto& from = consumer.address(family);
  const auto& to = provider.address(family);
  if (!from || !to || said.from(family) != from || said.to(family) != to) return {};
  return without(granted, without(granted, said.ranges));
}

std::vector<Prefix> never_reached(const World& world) {
  std::vector<Prefix> never;
  for (const auto text : kNever) never.push_back(Prefix::parse(text).value());
  const auto add = [&](const std::vector<IpAddress>& addresses) {
    for (const auto& address : addresses) {
      never.push_back(Prefix::of(address, address.is_v4() ? 32 : 128));
    }
  };
  add(world.settings.node_addresses);
  for (const auto& [name, node] : world.nodes) add(node.underlay);
  return normalise(std::move(never));
}

bool is_node(const Settings& settings, const IpAddress& address) {
  static const Prefix kLoopback4 = Prefix::parse("127.0.0.0/8").value();
  static const Prefix kLoopback6 = Prefix::parse("::1").value();
  for (const auto* resolver : {settings.resolver4, settings.resolver6}) {
    if (address == resolver[0] || address == resolver[1]) return true;
  }
  return kLoopback4.contains(address) || kLoopback6.contains(address) ||
         std::ranges::find(settings.node_addresses, address) != settings.node_addresses.end();
}

Fragment node_fragment(const World& world) {
  const auto& settings = world.settings;
  Fragment fragment;
  auto& elements = fragment.elements;
  for (const auto& prefix : mesh_ranges(settings)) {
    elements.push_back(interval(pick(prefix.family(), SetId::kMesh4, SetId::kMesh6), prefix));
  }
  for (const auto& prefix : never_reached(world)) {
    elements.push_back(interval(pick(prefix.family(), SetId::kNever4, SetId::kNever6), prefix));
  }
  elements.push_back(ElementBuilder(SetId::kUsers).number(0).build());
  for (const auto uid : settings.allow_uids) {
    elements.push_back(ElementBuilder(SetId::kUsers).number(uid).build());
  }
  for (const auto& name : settings.trunks) {
    elements.push_back(ElementBuilder(SetId::kTrunk).ifname(name).build());
  }
  for (const auto& name : settings.engines4) {
    elements.push_back(ElementBuilder(SetId::kEngine4).ifname(name).build());
  }
  for (const auto& name : settings.engines6) {
    elements.push_back(ElementBuilder(SetId::kEngine6).ifname(name).build());
  }
  add_other_nodes(world, elements);
  std::ranges::sort(elements);
  elements.erase(std::ranges::unique(elements).begin(), elements.end());
  return fragment;
}

Fragment service_fragment(const World& world, const Index& index, const ServiceKey& key) {
  Fragment fragment;
  const auto service = world.services.find(key);
  if (service == world.services.end()) return fragment;
  const auto members = index.members.find(key);
  for (const auto& unit : service_units(world, index, key)) {
    const auto endpoints = endpoints_of(world, index, key, unit);
    for (const auto family : kFamilies) {
      if (!service->second.vip(family)) continue;
      const auto set = unit.block ? pick(family, SetId::kVip4Block, SetId::kVip6Block)
                                  : pick(family, SetId::kVip4, SetId::kVip6);
      const bool possible = std::ranges::any_of(members->second, [&](const std::string& id) {
        return may_become_endpoint(world.workloads.find(id)->second, unit, family);
      });
      if (possible) fragment.room[static_cast<std::size_t>(set)] += kSlots;
      const auto& targets = endpoints.on(family);
      if (targets.empty()) continue;
      for (std::uint32_t slot = 0; slot < kSlots; ++slot) {
        fragment.elements.push_back(ElementBuilder(set)
                                        .addr(*service->second.vip(family))
                                        .proto(unit.proto)
                                        .port(unit.first)
                                        .number(slot)
                                        .data()
                                        .addr(*targets[slot % targets.size()]->address(family))
                                        .build());
      }
    }
  }
  std::ranges::sort(fragment.elements);
  return fragment;
}

}  // namespace meshd::policy
