#include "controller/events.h"

#include <fmt/format.h>

#include <utility>

namespace meshd::controller {

using EventKind = mesh::v1::Event::Kind;

mesh::v1::Event make_event(EventKind::Value kind, std::string id, std::string node,
                           std::string detail) {
  mesh::v1::Event event;
  event.set_kind(kind);
  event.set_id(std::move(id));
  event.set_node(std::move(node));
  event.set_detail(std::move(detail));
  return event;
}

Shown shown(const Cluster& cluster, const std::string& id) {
  Shown result;
  result.declared = cluster.declaration(id) != nullptr;
  const auto* const placement = cluster.placement(id);
  if (placement == nullptr) return result;
  result.node = placement->node;
  const auto& reported = placement->reported;
  result.attached = !reported.addresses().empty();
  result.draining = result.attached && (reported.draining() || cluster.launch(id).drained);
  result.ready = result.attached && reported.ready();
  result.addresses = fmt::format("{}", fmt::join(reported.addresses(), " "));
  return result;
}

std::vector<mesh::v1::Event> events_between(const std::string& id, const Shown& before,
                                            const Shown& after) {
  std::vector<mesh::v1::Event> events;
  const auto add = [&](EventKind::Value kind, const std::string& node, std::string detail = {}) {
    events.push_back(make_event(kind, id, node, std::move(detail)));
  };
  const bool moved = !before.node.empty() && !after.node.empty() && before.node != after.node;
  if (!before.declared && after.declared) add(EventKind::DECLARED, {});
  const bool left = before.attached && (!after.attached || moved);
  if (left) add(EventKind::DETACHED, before.node);
  if (moved)
    add(EventKind::MOVED, after.node, fmt::format("from {} to {}", before.node, after.node));
  if (after.attached && (left || !before.attached)) {
    add(EventKind::ATTACHED, after.node, after.addresses);
  }
  if (after.ready && (left || !before.ready)) add(EventKind::READY, after.node);
  if (after.draining && (left || !before.draining)) add(EventKind::DRAINING, after.node);
  if (before.declared && !after.declared) add(EventKind::DELETED, before.node);
  return events;
}

}  // namespace meshd::controller
