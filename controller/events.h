// What `watch` at a controller tells: the difference that a change of the cluster makes to a
// workload, in the words of a node's own events. Pure.
#pragma once

#include <string>
#include <vector>

#include "controller/cluster.h"
#include "proto/node.pb.h"

namespace meshd::controller {

// Of one workload, what people hear of.
struct Shown {
  bool declared = false, attached = false, draining = false, ready = false;
  std::string node;       // attached or assigned to
  std::string addresses;  // "10.213.1.2 fd00::1"
};
[[nodiscard]] Shown shown(const Cluster& cluster, const std::string& id);
// In the order in which they happened, as far as that can be told.
[[nodiscard]] std::vector<mesh::v1::Event> events_between(const std::string& id,
                                                          const Shown& before, const Shown& after);
[[nodiscard]] mesh::v1::Event make_event(mesh::v1::Event::Kind::Value kind, std::string id,
                                         std::string node, std::string detail = {});

}  // namespace meshd::controller
