#include "meshd/lost_endpoints.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>
#include <utility>

#include "meshd/addressing.h"

namespace meshd {
namespace {

using policy::Element;

// What `first` does and `second` does not take back.
std::vector<Element> without(const std::vector<Element>& first,
                             const std::vector<Element>& second) {
  std::vector<Element> result;
  std::ranges::set_difference(first, second, std::back_inserter(result));
  return result;
}

std::vector<Element> joined(std::vector<Element> first, const std::vector<Element>& second) {
  first.insert(first.end(), second.begin(), second.end());
  std::ranges::sort(first);
  return first;
}

}  // namespace

std::set<policy::ServiceKey> lost_endpoints(const policy::World& world,
                                            const policy::Compiler& compiler,
                                            const policy::Delta& delta) {
  using Port = std::tuple<IpAddress, Proto, std::uint16_t>;
  std::set<Port> removed;  // a port of a VIP has many slots
  for (const auto& element : delta.remove) {
    if (const auto slot = vip_slot(element)) removed.emplace(slot->from, slot->proto, slot->first);
  }
  std::set<policy::ServiceKey> lost;
  if (removed.empty()) return lost;
  std::map<IpAddress, policy::ServiceKey> by_vip;
  for (const auto& [key, service] : world.services) {
    for (const auto family : kFamilies) {
      if (service.vip(family)) by_vip.emplace(*service.vip(family), key);
    }
  }
  for (const auto& [vip, proto, port] : removed) {
    const auto service = by_vip.find(vip);
    if (service == by_vip.end()) continue;  // it went with its last declaration
    bool any = false;
    for (const auto family : kFamilies) {
      any |= !compiler.endpoints(world, service->second, proto, port, family).empty();
    }
    if (!any) lost.insert(service->second);
  }
  return lost;
}

void merge(policy::PlanDelta& into, policy::PlanDelta later) {
  auto& first = into.elements;
  auto& second = later.elements;
  auto add = joined(without(first.add, second.remove), without(second.add, first.remove));
  auto remove = joined(without(first.remove, second.add), without(second.remove, first.add));
  first = {std::move(remove), std::move(add)};
  std::ranges::move(later.views, std::back_inserter(into.views));
  std::ranges::move(later.views_gone, std::back_inserter(into.views_gone));
}

}  // namespace meshd
