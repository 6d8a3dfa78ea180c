// What a gateway has of an outside port: it leads to the node port of the workload's node, and
// sources are judged by what the packet is addressed to after that. Where the workload is here, it
// is one more node port of its publication, and judged as that.
#include <algorithm>

#include "policy/fragment.h"

namespace meshd::policy {
namespace {

struct Target {
  IpAddress address;
  std::uint16_t port = 0;
  bool here = false;
};

std::optional<Target> target_of(const World& world, const OutsideKey& key, const Outside& outside,
                                Family family) {
  const auto found = world.workloads.find(outside.id);
  if (found != world.workloads.end() && found->second.attachment) {
    const auto& own = found->second.address(family);
    const bool published = world.node_ports.contains({outside.id, key.proto, outside.port});
    if (!own || !published) return std::nullopt;
    return Target{*own, outside.port, true};
  }
  const auto& address = outside.address(family);
  if (!address) return std::nullopt;
  return Target{*address, outside.node_port, false};
}

}  // namespace

void add_sources(std::uint32_t profile, const std::vector<Prefix>& sources,
                 std::vector<Element>& elements) {
  for (const auto& source : sources) {
    elements.push_back(ElementBuilder(pick(source.family(), SetId::kSource4, SetId::kSource6))
                           .number(profile)
                           .addr(source.address())
                           .end()
                           .number(profile)
                           .addr(source.last())
                           .build());
  }
}

Fragment outside_fragment(const World& world, const OutsideKey& key, Profiles& profiles) {
  Fragment fragment;
  const auto found = world.outside.find(key);
  if (!world.settings.gateway || found == world.outside.end()) return fragment;
  const auto& outside = found->second;
  auto& elements = fragment.elements;
  const auto sources = normalise(outside.allow_from);
  for (const auto family : kFamilies) {
    const auto target = target_of(world, key, outside, family);
    if (!target) continue;
    for (const auto& address : world.settings.publish_addresses) {
      if (address.family() != family) continue;
      elements.push_back(ElementBuilder(pick(family, SetId::kGate4, SetId::kGate6))
                             .addr(address)
                             .proto(key.proto)
                             .port(key.port)
                             .data()
                             .addr(target->address)
                             .port(target->port)
                             .build());
    }
    if (target->here) continue;
    if (fragment.profiles.empty()) {
      fragment.profiles.push_back(profiles.acquire(content_of(sources)));
      add_sources(fragment.profiles.front(), sources, elements);
    }
    const auto at_target = [&](SetId v4, SetId v6) {
      return ElementBuilder(pick(family, v4, v6))
          .addr(target->address)
          .proto(key.proto)
          .port(target->port);
    };
    elements.push_back(at_target(SetId::kGated4, SetId::kGated6).build());
    elements.push_back(at_target(SetId::kPubCount4, SetId::kPubCount6).build());
    elements.push_back(at_target(SetId::kPubProfile4, SetId::kPubProfile6)
                           .data()
                           .number(fragment.profiles.front())
                           .build());
  }
  std::ranges::sort(elements);
  return fragment;
}

}  // namespace meshd::policy
