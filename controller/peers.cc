#include "controller/peers.h"

#include <algorithm>

namespace meshd::controller {

void Peers::heard(const std::string& controller, const mesh::v1::StoredController* said,
                  TimePoint now) {
  if (said == nullptr) {
    peers_.erase(controller);
    return;
  }
  auto& peer = peers_[controller];
  peer.heard = now;
  peer.nodes.clear();
  for (const auto& node : said->nodes()) peer.nodes.insert(node.name());
}

std::optional<TimePoint> Peers::node_heard(const std::string& node) const {
  std::optional<TimePoint> last;
  for (const auto& [name, peer] : peers_) {
    if (peer.nodes.contains(node)) last = std::max(last.value_or(peer.heard), peer.heard);
  }
  return last;
}

void Peers::excuse(TimePoint now) {
  for (auto& [name, peer] : peers_) {
    if (now - peer.heard < kExcused) peer.heard = now;
  }
}

std::vector<std::string> Peers::silent_since(TimePoint then) const {
  std::vector<std::string> silent;
  for (const auto& [name, peer] : peers_) {
    if (peer.heard <= then) silent.push_back(name);
  }
  return silent;
}

}  // namespace meshd::controller
