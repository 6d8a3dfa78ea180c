// The cluster as people see it: pure conversions to the messages of proto/node.proto.
//
// Invariant: the order is stable: by id, by name, by port.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "controller/controller.h"
#include "proto/node.pb.h"

namespace meshd::controller {

[[nodiscard]] mesh::v1::WorkloadList workload_list(const Controller& controller);
// `stale`: nodes that have not been heard of for a while.
[[nodiscard]] mesh::v1::ServiceList service_list(const Cluster& cluster,
                                                 const std::set<std::string>& stale);
// `web`: how the cluster is called from outside; null: it is not.
[[nodiscard]] mesh::v1::PublishedList published_list(const Cluster& cluster,
                                                     const proxy::Site* web = nullptr);
[[nodiscard]] mesh::v1::NodeList node_list(const Cluster& cluster,
                                           const std::vector<NodeStatus>& status);
// Healthy: the store answers, no node is missed, none refused its slice.
[[nodiscard]] mesh::v1::StatusReply status_reply(const Controller& controller);

}  // namespace meshd::controller
