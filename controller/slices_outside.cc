// Outside ports in the slices of gateways: each as soon as, and for as long as, its publication is
// installed where it leads to.
#include "controller/outside.h"
#include "controller/slices.h"

namespace meshd::controller {
namespace {

using KeyKind = mesh::v1::SliceKey::Kind;

ItemKey outside_key(const policy::OutsideKey& key) {
  return {KeyKind::OUTSIDE, policy::outside_key_text(key)};
}

}  // namespace

void Slices::refresh_gateway(const std::string& name, bool is_one) {
  if (is_one ? !gateways_.insert(name).second : gateways_.erase(name) == 0) return;
  for (const auto& [key, id] : outside_ids_) use_item(name, outside_key(key), is_one ? 1 : -1);
}

void Slices::refresh_outside(const Cluster& cluster, const Touched& touched) {
  auto keys = touched.outside;
  // Those that lead there, and those that may now.
  const auto add = [&](const std::string& id) {
    const auto known = outside_of_.find(id);
    if (known != outside_of_.end()) keys.insert(known->second.begin(), known->second.end());
    const auto* declaration = cluster.declaration(id);
    if (declaration == nullptr) return;
    for (const auto& holder : holders_of(*declaration, OutsideUse::kGateway)) {
      if (const auto key = cluster.outside(OutsideUse::kGateway).find(holder)) keys.insert(*key);
    }
  };
  for (const auto& id : touched.workloads) add(id);
  for (const auto& name : touched.nodes) {
    for (const auto& id : cluster.placed_on(name)) add(id);
  }
  for (const auto& key : keys) refresh_outside(cluster, key);
}

void Slices::refresh_outside(const Cluster& cluster, const policy::OutsideKey& key) {
  const auto item = outside_key(key);
  const auto target = outside_target(cluster, key);
  const auto known = outside_ids_.find(key);
  const bool was_there = known != outside_ids_.end();
  if (was_there) {
    auto& others = outside_of_[known->second];
    others.erase(key);
    if (others.empty()) outside_of_.erase(known->second);
    outside_ids_.erase(known);
  }
  if (!target) {
    if (!was_there) return;
    for (const auto& gateway : gateways_) use_item(gateway, item, -1);
    return refresh(item, {});
  }
  outside_ids_.emplace(key, target->id);
  outside_of_[target->id].insert(key);
  refresh(item, Item{{}, target->item.SerializeAsString()});
  if (was_there) return;
  for (const auto& gateway : gateways_) use_item(gateway, item, 1);
}

}  // namespace meshd::controller
