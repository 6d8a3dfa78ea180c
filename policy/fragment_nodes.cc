// What the settings' fragment has of other nodes: where their containers are, and by which
// addresses each of them may speak for these.
#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <span>
#include <utility>

#include "policy/fragment.h"

namespace meshd::policy {
namespace {

struct Origin {
  IpAddress first, last;
  std::uint32_t node = 0;  // number
};
using Origins = std::map<IpAddress, Origin>;  // by the first address; apart from each other

// Of sources that are not the mesh's: any node may have them.
constexpr std::uint32_t kAnyNode = 0;

bool overlaps_any(const Origins& origins, const Prefix& block) {
  const auto next = origins.lower_bound(block.address());
  if (next != origins.end() && next->first <= block.last()) return true;
  return next != origins.begin() && std::prev(next)->second.last >= block.address();
}

bool may_be_anothers(const Settings& settings, const Prefix& block) {
  const auto& pool = settings.pool(block.family());
  const auto& own = block.family() == Family::kV4 ? settings.block4 : settings.block6;
  return pool && pool->contains(block) && !(own && own->overlaps(block));
}

IpAddress before(const IpAddress& address) {
  std::array<std::uint8_t, 16> bytes{};
  const auto size = address.bytes().size();
  std::ranges::copy(address.bytes(), bytes.begin());
  for (std::size_t i = size; i-- > 0;) {
    if (bytes[i]-- != 0) break;  // nothing to borrow
  }
  return address.is_v4() ? IpAddress::v4(std::span(bytes).first<4>()) : IpAddress::v6(bytes);
}

// What lies between the mesh's ranges, which are sorted and apart from each other.
void add_outside(Family family, const std::vector<Prefix>& mesh, Origins& origins) {
  const auto all = Prefix::of(
      family == Family::kV4 ? IpAddress() : IpAddress::v6(std::array<std::uint8_t, 16>{}), 0);
  auto first = all.address();
  for (const auto& range : mesh) {
    if (range.family() != family) continue;
    if (first < range.address()) origins.emplace(first, Origin{first, before(range.address())});
    if (range.last() == all.last()) return;
    first = range.last().plus(1);
  }
  origins.emplace(first, Origin{first, all.last()});
}

Element interval(SetId set, const Origin& origin) {
  return ElementBuilder(set).addr(origin.first).end().addr(origin.last).build();
}

Element spoken_for(const Origin& origin) {
  return ElementBuilder(pick(origin.first.family(), SetId::kOrigin4, SetId::kOrigin6))
      .addr(origin.first)
      .end()
      .addr(origin.last)
      .data()
      .number(origin.node)
      .build();
}

}  // namespace

std::vector<Prefix> mesh_ranges(const Settings& settings) {
  std::vector<Prefix> ranges;
  for (const auto& range :
       {settings.pool4, settings.vip_pool4, settings.pool6, settings.vip_pool6}) {
    if (range) ranges.push_back(*range);
  }
  return normalise(std::move(ranges));
}

// Two nodes that claim the same must not make the kernel refuse everything: the first by its
// name has it, as in the underlay's plan.
void add_other_nodes(const World& world, std::vector<Element>& elements) {
  const auto& settings = world.settings;
  const bool by_tunnel = settings.in_cluster && settings.tunnel;
  Origins origins;
  Profiles numbers;  // from the name alone, unless two meet
  for (const auto& [name, node] : world.nodes) {
    if (name == settings.node_name) continue;
    const auto number = numbers.acquire(name);
    for (const auto& block : node.blocks) {
      if (!may_be_anothers(settings, block) || overlaps_any(origins, block)) continue;
      const Origin origin{block.address(), block.last(), number};
      origins.emplace(origin.first, origin);
      elements.push_back(interval(pick(block.family(), SetId::kRemote4, SetId::kRemote6), origin));
    }
    if (!by_tunnel) continue;
    for (const auto& address : node.underlay) {
      const auto peers = pick(address.family(), SetId::kPeers4, SetId::kPeers6);
      for (const auto which : {kAnyNode, number}) {
        elements.push_back(ElementBuilder(peers).number(which).addr(address).build());
      }
    }
  }
  if (!by_tunnel) return;
  for (const auto family : kFamilies) add_outside(family, mesh_ranges(settings), origins);
  for (const auto& [first, origin] : origins) elements.push_back(spoken_for(origin));
}

}  // namespace meshd::policy
