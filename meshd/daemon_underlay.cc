// The part of Daemon that looks after the ways to other nodes (underlay_plan.h).
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "meshd/daemon.h"
#include "meshd/slice.h"

namespace meshd {

void Daemon::follow_underlay(const std::map<std::string, policy::RemoteNode>& nodes) {
  const auto mtu = kernel_->topology().uplink_mtu();
  if (!settings_.in_cluster) {
    if (mtu && node_) node_->set_mtu(*mtu);
    return;
  }
  auto& underlay = kernel_->underlay();
  const auto self = underlay.self(settings_, config_.underlay);
  if (!self || !mtu) return;  // the next audit looks again
  auto plan = plan_underlay(nodes, *self, config_.underlay);
  // For containers to come; the others' packets find out by themselves (path MTU).
  if (node_) node_->set_mtu(std::min(*mtu, plan.mtu.value_or(*mtu)));
  auto trouble = plan.problems;
  if (plan != underlay.plan()) {
    // What is refused is in trouble(), and tried again by every audit.
    [[maybe_unused]] const auto made = kernel_->set_underlay(plan);
  }
  std::ranges::copy(underlay.trouble(), std::back_inserter(trouble));
  if (const auto routes = kernel_->topology().routes()) {
    if (auto clash = check_underlay(plan, *routes); !clash) trouble.push_back(clash.error().what);
  }
  for (const auto& one : trouble) {
    const bool is_known = std::ranges::find(underlay_trouble_, one) != underlay_trouble_.end();
    if (!is_known) log::warning("underlay: {}", one);
  }
  underlay_trouble_ = std::move(trouble);
  if (plan.trunks == settings_.trunks) return;
  settings_.trunks = std::move(plan.trunks);
  if (node_) node_->set_settings(settings_, BootClock::now());
}

void Daemon::follow_stored(const StoredState& stored) {
  if (!stored.cluster) return;
  SliceUpdate read;
  const SliceReader reader{stored.cluster->terms, settings_.node_name, BootClock::now()};
  for (const auto& [key, value] : stored.slice) {
    if (key.kind != mesh::v1::SliceKey::Kind::NODE) continue;
    // What cannot be read the controller sends again.
    [[maybe_unused]] const auto status = reader.item(key, value, read);
  }
  followed_nodes_ = std::move(read.nodes);
  follow_underlay(followed_nodes_);
}

}  // namespace meshd
