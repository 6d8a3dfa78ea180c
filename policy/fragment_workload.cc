#include <algorithm>

#include "policy/fragment.h"
#include "policy/truth.h"

namespace meshd::policy {
namespace {

// The elements of one workload that is placed, here or elsewhere.
class WorkloadBuilder {
 public:
  WorkloadBuilder(const World& world, const Index& index, const std::string& id, Profiles& profiles)
      : world_(world),
        index_(index),
        workload_(world.workloads.find(id)->second),
        declaration_(workload_.declaration),
        providers_(providers_of(world, index, declaration_)),
        profiles_(profiles) {
    if (is_here()) granted_ = granted_units(index, declaration_, providers_);
  }

  [[nodiscard]] ViewPlan view() const {
    return view_of(world_, index_, declaration_.id, providers_, granted_);
  }

  Fragment build() {
    if (is_here()) identity();
    if (workload_.drains()) closing();
    for (const auto& provider : providers_) edges(*provider.workload, provider.ranges);
    if (is_here()) {
      holds();
      egress();
      publications();
    }
    auto& elements = fragment_.elements;
    std::ranges::sort(elements);
    elements.erase(std::ranges::unique(elements).begin(), elements.end());
    for (const auto& element : elements) {
      if (is_allow(element.set)) ++fragment_.room[static_cast<std::size_t>(element.set)];
    }
    elements.shrink_to_fit();  // it is kept as long as the workload is
    return std::move(fragment_);
  }

 private:
  [[nodiscard]] bool is_here() const { return workload_.attachment.has_value(); }

  void add(const ElementBuilder& builder) { fragment_.elements.push_back(builder.build()); }

  void identity() {
    for (const auto family : kFamilies) {
      if (!workload_.address(family)) continue;
      const auto& address = *workload_.address(family);
      add(ElementBuilder(pick(family, SetId::kBind4, SetId::kBind6))
              .ifname(workload_.attachment->host_ifname)
              .ether(workload_.attachment->mac)
              .addr(address));
      add(ElementBuilder(pick(family, SetId::kLocal4, SetId::kLocal6)).addr(address));
      add(ElementBuilder(pick(family, SetId::kSelf4, SetId::kSelf6)).addr(address).addr(address));
    }
  }

  // Wherever it is: a consumer's node refuses what the provider's cannot, see overtaken().
  void closing() {
    for (const auto family : kFamilies) {
      const auto& address = workload_.address(family);
      if (!address) continue;
      add(ElementBuilder(pick(family, SetId::kDrain4, SetId::kDrain6)).addr(*address));
    }
  }

  // What this workload may send to one provider. Each of their two nodes has the flow, and
  // nobody else: the provider's at once, the consumer's when that is confirmed.
  void edges(const Workload& provider, const std::vector<PortRange>& granted) {
    if (!is_here() && !provider.attachment) return;
    for (const auto family : kFamilies) {
      const auto& from = workload_.address(family);
      const auto& to = provider.address(family);
      if (!from || !to) continue;
      if (provider.attachment) {
        allow(family, *from, *to, granted);
        continue;
      }
      const auto confirmed = confirmed_ranges(world_, workload_, provider, granted, family);
      const auto held = without(granted, confirmed);
      allow(family, *from, *to, confirmed);
      for (const auto& unit : units_of(held)) {
        add(ElementBuilder(hold_set(unit, family))
                .addr(*from)
                .addr(*to)
                .proto(unit.proto)
                .port(unit.first));
      }
      make_room_elsewhere(family, granted, confirmed, held);
    }
  }

  // Confirmations come and go without a command: all of them, or none. One in part has more
  // single ports than the whole where it breaks a block.
  void make_room_elsewhere(Family family, const std::vector<PortRange>& granted,
                           const std::vector<PortRange>& confirmed,
                           const std::vector<PortRange>& held) {
    for (const bool block : {false, true}) {
      const auto count = [block](const std::vector<PortRange>& ranges) {
        const auto units = units_of(ranges);
        return static_cast<std::uint32_t>(std::ranges::count(units, block, &PortUnit::block));
      };
      const auto all = count(granted), open = count(confirmed);
      const PortUnit kind{.block = block};
      fragment_.room[static_cast<std::size_t>(hold_set(kind, family))] +=
          std::max(all, count(held));
      // Those that are open are counted with the elements.
      fragment_.room[static_cast<std::size_t>(allow_set(kind, family))] +=
          std::max(all, open) - open;
    }
  }

  static bool is_allow(SetId set) {
    return set == SetId::kAllow4 || set == SetId::kAllow6 || set == SetId::kAllow4Block ||
           set == SetId::kAllow6Block;
  }

  static SetId allow_set(const PortUnit& unit, Family family) {
    return unit.block ? pick(family, SetId::kAllow4Block, SetId::kAllow6Block)
                      : pick(family, SetId::kAllow4, SetId::kAllow6);
  }

  void allow(Family family, const IpAddress& from, const IpAddress& to,
             const std::vector<PortRange>& ranges) {
    if (ranges.empty()) return;
    for (const auto& unit : units_of(ranges)) {
      add(ElementBuilder(allow_set(unit, family))
              .addr(from)
              .addr(to)
              .proto(unit.proto)
              .port(unit.first));
    }
    add(ElementBuilder(pick(family, SetId::kPair4, SetId::kPair6)).addr(from).addr(to));
  }

  // Services that nobody is ready to answer for yet: wait, but not for ever.
  void holds() {
    for (const auto& [key, units] : granted_) {
      const auto service = world_.services.find(key);
      if (service == world_.services.end() || units.empty()) continue;
      const auto& members = index_.members.find(key)->second;
      const auto& first = world_.workloads.find(*members.begin())->second.declaration;
      if (first.hold > std::chrono::seconds(0)) make_room(service->second, units);
      const auto until = std::max({workload_.attachment->attached_at, service->second.declared_at,
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
      if (!workload_.address(family) || !service.vip(family)) continue;
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
        if (!workload_.address(family) || !service.vip(family)) continue;
        add(ElementBuilder(hold_set(unit, family))
                .addr(*workload_.address(family))
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
      const auto& own = workload_.address(family);
      if (own) fragment_.elements.push_back(egress_count(*own, row));
    }
    for (const auto family : kFamilies) {
      if (!workload_.address(family)) continue;
      add(ElementBuilder(pick(family, SetId::kEgressProfile4, SetId::kEgressProfile6))
              .addr(*workload_.address(family))
              .data()
              .number(number));
    }
  }

  void publications() {
    for (const auto& publication : publications_of(workload_)) {
      const auto port =
          world_.node_ports.find({declaration_.id, publication.proto, publication.port});
      if (port == world_.node_ports.end()) continue;
      const auto sources = normalise(admitted_to(world_, publication));
      const auto number = profile(content_of(sources));
      add_sources(number, sources, fragment_.elements);
      publish(publication, port->second, number);
    }
  }

  void publish(const Publication& publication, std::uint16_t node_port, std::uint32_t number) {
    for (const auto family : kFamilies) {
      if (!workload_.address(family)) continue;
      const auto& own = *workload_.address(family);
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
  const Declaration& declaration_;
  const std::vector<GrantedProvider> providers_;
  GrantedUnits granted_;  // empty elsewhere
  Profiles& profiles_;
  Fragment fragment_;
};

}  // namespace

Fragment workload_fragment(const World& world, const Index& index, const std::string& id,
                           Profiles& profiles) {
  const auto found = world.workloads.find(id);
  if (found == world.workloads.end() || !found->second.is_placed()) return {};
  WorkloadBuilder builder(world, index, id, profiles);
  auto fragment = builder.build();
  if (found->second.attachment) fragment.view = std::make_shared<const ViewPlan>(builder.view());
  return fragment;
}

}  // namespace meshd::policy
