#include "policy/fragment.h"

#include <algorithm>

#include "policy/truth.h"

namespace meshd::policy {
namespace {

SetId pick(Family family, SetId v4, SetId v6) { return family == Family::kV4 ? v4 : v6; }

Element interval(SetId set, const Prefix& prefix) {
  return ElementBuilder(set).addr(prefix.address()).end().addr(prefix.last()).build();
}

// The elements of one attached workload.
class WorkloadBuilder {
 public:
  WorkloadBuilder(const World& world, const Index& index, const std::string& id, Profiles& profiles)
      : world_(world),
        index_(index),
        workload_(world.workloads.find(id)->second),
        attachment_(*workload_.attachment),
        declaration_(workload_.declaration),
        providers_(providers_of(world, index, declaration_)),
        granted_(granted_units(index, declaration_, providers_)),
        profiles_(profiles) {}

  [[nodiscard]] ViewPlan view() const {
    return view_of(world_, index_, declaration_.id, providers_, granted_);
  }

  Fragment build() {
    identity();
    for (const auto& provider : providers_) edges(*provider.workload, provider.ranges);
    holds();
    egress();
    publications();
    auto& elements = fragment_.elements;
    std::ranges::sort(elements);
    elements.erase(std::ranges::unique(elements).begin(), elements.end());
    elements.shrink_to_fit();  // it is kept as long as the workload is
    return std::move(fragment_);
  }

 private:
  void add(const ElementBuilder& builder) { fragment_.elements.push_back(builder.build()); }

  void identity() {
    for (const auto family : kFamilies) {
      if (!attachment_.address(family)) continue;
      const auto& address = *attachment_.address(family);
      add(ElementBuilder(pick(family, SetId::kBind4, SetId::kBind6))
              .ifname(attachment_.host_ifname)
              .ether(attachment_.mac)
              .addr(address));
      add(ElementBuilder(pick(family, SetId::kLocal4, SetId::kLocal6)).addr(address));
      add(ElementBuilder(pick(family, SetId::kSelf4, SetId::kSelf6)).addr(address).addr(address));
      if (workload_.draining) {
        add(ElementBuilder(pick(family, SetId::kDrain4, SetId::kDrain6)).addr(address));
      }
    }
  }

  // What this workload may send to one provider on the node.
  void edges(const Workload& provider, const std::vector<PortRange>& granted) {
    if (!provider.attachment) return;
    for (const auto family : kFamilies) {
      const auto& from = attachment_.address(family);
      const auto& to = provider.attachment->address(family);
      if (!from || !to) continue;
      for (const auto& range : granted) {
        for (const auto& unit : units_of(range)) {
          const auto set = unit.block ? pick(family, SetId::kAllow4Block, SetId::kAllow6Block)
                                      : pick(family, SetId::kAllow4, SetId::kAllow6);
          add(ElementBuilder(set).addr(*from).addr(*to).proto(unit.proto).port(unit.first));
        }
      }
      add(ElementBuilder(pick(family, SetId::kPair4, SetId::kPair6)).addr(*from).addr(*to));
    }
  }

  // Services that nobody is ready to answer for yet: wait, but not for ever.
  void holds() {
    for (const auto& [key, units] : granted_) {
      const auto service = world_.services.find(key);
      if (service == world_.services.end() || units.empty()) continue;
      const auto& members = index_.members.find(key)->second;
      const auto& first = world_.workloads.find(*members.begin())->second.declaration;
      if (first.hold > std::chrono::seconds(0)) make_room(service->second, units);
      const auto until = std::max({attachment_.attached_at, service->second.declared_at,
                                   service->second.endpoint_lost_at}) +
                         first.hold;
      if (world_.now >= until) continue;
      if (hold(key, service->second, units)) {
        fragment_.deadline = std::min(until, fragment_.deadline.value_or(until));
      }
    }
  }

  static SetId hold_set(const PortUnit& unit, Family family) {
    return unit.block ? pick(family, SetId::kHold4Block, SetId::kHold6Block)
                      : pick(family, SetId::kHold4, SetId::kHold6);
  }

  // All of them are held at once when the last endpoint goes.
  void make_room(const Service& service, const std::vector<PortUnit>& units) {
    for (const auto family : kFamilies) {
      if (!attachment_.address(family) || !service.vip(family)) continue;
      for (const auto& unit : units) {
        ++fragment_.room[static_cast<std::size_t>(hold_set(unit, family))];
      }
    }
  }

  // True when something is held.
  bool hold(const ServiceKey& key, const Service& service, const std::vector<PortUnit>& units) {
    bool held = false;
    const auto answered = answered_on(world_, index_, key, units);
    for (const auto& unit : units) {
      const auto served = served_on(world_, index_, key, unit);
      for (const auto family : kFamilies) {
        if (!waits_on(served, answered, family)) continue;
        held = true;
        if (!attachment_.address(family) || !service.vip(family)) continue;
        add(ElementBuilder(hold_set(unit, family))
                .addr(*attachment_.address(family))
                .addr(*service.vip(family))
                .proto(unit.proto)
                .port(unit.first));
      }
    }
    return held;
  }

  std::uint32_t profile(const std::string& content) {
    const auto number = profiles_.acquire(content);
    fragment_.profiles.push_back(number);
    return number;
  }

  void egress() {
    const auto pieces = pieces_by_row(declaration_.egress);
    if (pieces.empty()) return;
    const auto number = profile(content_of(pieces));
    for (const auto& [piece, row] : pieces) {
      const auto family = piece.prefix.family();
      add(ElementBuilder(pick(family, SetId::kEgress4, SetId::kEgress6))
              .number(number)
              .addr(piece.prefix.address())
              .proto(piece.proto)
              .port(piece.first)
              .end()
              .number(number)
              .addr(piece.prefix.last())
              .proto(piece.proto)
              .port(piece.last)
              .data()
              .number(row));
      const auto& own = attachment_.address(family);
      if (own) fragment_.elements.push_back(egress_count(*own, row));
    }
    for (const auto family : kFamilies) {
      if (!attachment_.address(family)) continue;
      add(ElementBuilder(pick(family, SetId::kEgressProfile4, SetId::kEgressProfile6))
              .addr(*attachment_.address(family))
              .data()
              .number(number));
    }
  }

  void publications() {
    for (const auto& publication : declaration_.publish) {
      const auto port =
          world_.node_ports.find({declaration_.id, publication.proto, publication.port});
      if (port == world_.node_ports.end()) continue;
      const auto sources = normalise(sources_of(world_.settings, publication));
      const auto number = profile(content_of(sources));
      for (const auto& source : sources) {
        add(ElementBuilder(pick(source.family(), SetId::kSource4, SetId::kSource6))
                .number(number)
                .addr(source.address())
                .end()
                .number(number)
                .addr(source.last()));
      }
      publish(publication, port->second, number);
    }
  }

  void publish(const Publication& publication, std::uint16_t node_port, std::uint32_t number) {
    for (const auto family : kFamilies) {
      if (!attachment_.address(family)) continue;
      const auto& own = *attachment_.address(family);
      add(ElementBuilder(pick(family, SetId::kPubProfile4, SetId::kPubProfile6))
              .addr(own)
              .proto(publication.proto)
              .port(publication.port)
              .data()
              .number(number));
      fragment_.elements.push_back(publication_count(own, publication.proto, publication.port));
      for (const auto& address : world_.settings.publish_addresses) {
        if (address.family() != family) continue;
        add(ElementBuilder(pick(family, SetId::kPub4, SetId::kPub6))
                .addr(address)
                .proto(publication.proto)
                .port(node_port)
                .data()
                .addr(own)
                .port(publication.port));
      }
    }
  }

  const World& world_;
  const Index& index_;
  const Workload& workload_;
  const Attachment& attachment_;
  const Declaration& declaration_;
  const std::vector<GrantedProvider> providers_;
  const GrantedUnits granted_;
  Profiles& profiles_;
  Fragment fragment_;
};

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
  return workload.attachment && workload.attachment->address(family) &&
         serves_whole(workload.declaration, unit) != Served::kNot;
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

bool is_endpoint(const Workload& workload, const PortUnit& unit, Family family) {
  if (!workload.attachment || !workload.attachment->address(family) || workload.draining) {
    return false;
  }
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

std::vector<Prefix> never_reached(const Settings& settings) {
  std::vector<Prefix> never;
  for (const auto text : kNever) never.push_back(Prefix::parse(text).value());
  for (const auto& address : settings.node_addresses) {
    never.push_back(Prefix::of(address, address.is_v4() ? 32 : 128));
  }
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

Fragment settings_fragment(const Settings& settings) {
  Fragment fragment;
  auto& elements = fragment.elements;
  std::vector<Prefix> mesh;
  for (const auto& range :
       {settings.pool4, settings.vip_pool4, settings.pool6, settings.vip_pool6}) {
    if (range) mesh.push_back(*range);
  }
  for (const auto& prefix : normalise(std::move(mesh))) {
    elements.push_back(interval(pick(prefix.family(), SetId::kMesh4, SetId::kMesh6), prefix));
  }
  for (const auto& prefix : never_reached(settings)) {
    elements.push_back(interval(pick(prefix.family(), SetId::kNever4, SetId::kNever6), prefix));
  }
  elements.push_back(ElementBuilder(SetId::kUsers).number(0).build());
  for (const auto uid : settings.allow_uids) {
    elements.push_back(ElementBuilder(SetId::kUsers).number(uid).build());
  }
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
        fragment.elements.push_back(
            ElementBuilder(set)
                .addr(*service->second.vip(family))
                .proto(unit.proto)
                .port(unit.first)
                .number(slot)
                .data()
                .addr(*targets[slot % targets.size()]->attachment->address(family))
                .build());
      }
    }
  }
  std::ranges::sort(fragment.elements);
  return fragment;
}

Fragment workload_fragment(const World& world, const Index& index, const std::string& id,
                           Profiles& profiles) {
  const auto found = world.workloads.find(id);
  if (found == world.workloads.end() || !found->second.attachment) return {};
  WorkloadBuilder builder(world, index, id, profiles);
  auto fragment = builder.build();
  fragment.view = std::make_shared<const ViewPlan>(builder.view());
  return fragment;
}

}  // namespace meshd::policy
