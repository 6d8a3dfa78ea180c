// The world as the local API shows it: pure conversions to the messages of proto/node.proto.
//
// Invariant: the order is stable: by id, by name, by port.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "dns/forwarder.h"
#include "meshd/kernel.h"
#include "policy/changes.h"
#include "policy/plan.h"
#include "policy/types.h"
#include "proto/controller.pb.h"
#include "proto/node.pb.h"

namespace meshd {

using Problems = std::map<std::string, std::vector<std::string>>;  // by workload id

[[nodiscard]] mesh::v1::AttachReply attach_reply(const policy::World& world, const std::string& id,
                                                 std::uint32_t mtu);
[[nodiscard]] mesh::v1::DetachReply detach_reply(const policy::Attachment& attachment);
[[nodiscard]] mesh::v1::WorkloadList workload_list(const policy::World& world,
                                                   const Problems& problems);
[[nodiscard]] mesh::v1::ServiceList service_list(const policy::World& world);
[[nodiscard]] mesh::v1::PublishedList published_list(const policy::World& world);
// One that is attached here, as the controller is told of it.
[[nodiscard]] mesh::v1::NodeEndpoint node_endpoint(const policy::World& world,
                                                   const std::string& id);
// This node alone: what it has of the pools and how many containers are attached.
[[nodiscard]] mesh::v1::NodeList node_list(const policy::World& world);
// Flows between attached workloads, publications and egress, with what their elements
// have counted. `counts` holds the elements of every set
// that counts.
[[nodiscard]] mesh::v1::FlowList flow_list(const policy::World& world,
                                           const std::vector<ElementCount>& counts);

// Whom the resolver asks, and the problem with one that would only ask back.
void add_upstreams(const std::vector<dns::UpstreamState>& states, mesh::v1::StatusReply& reply);

// What no rule of ours sees to on this node as it is now, one line each.
[[nodiscard]] std::vector<std::string> limits_of(const policy::World& world);

[[nodiscard]] mesh::v1::Change change_message(const policy::Change& change);
[[nodiscard]] mesh::v1::WorkloadState::Value state_of(const policy::Workload& workload);

}  // namespace meshd
