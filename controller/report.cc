#include "controller/report.h"

#include <utility>

#include "controller/openings.h"
#include "controller/outside.h"
#include "policy/from_proto.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;

pb::WorkloadState::Value state_of(const policy::Workload& workload) {
  if (!workload.remote) return pb::WorkloadState::DECLARED;
  if (workload.drains()) return pb::WorkloadState::DRAINING;
  return workload.ready ? pb::WorkloadState::READY : pb::WorkloadState::ATTACHED;
}

template <class Message>
void add_addresses(const policy::Remote& remote, Message& message) {
  for (const auto family : kFamilies) {
    if (remote.address(family)) message.add_addresses(remote.address(family)->to_string());
  }
}

// Where a raw publication is reached from outside, as far as gateways take connections to it.
void add_gateways(const Cluster& cluster, const policy::Declaration& declaration,
                  pb::PublishedInfo& entry) {
  for (const auto& holder : holders_of(declaration, OutsideUse::kGateway)) {
    const auto protocol = holder.proto == Proto::kUdp ? pb::Protocol::UDP : pb::Protocol::TCP;
    if (entry.http() || holder.port != entry.port() || protocol != entry.protocol()) continue;
    const auto key = cluster.outside(OutsideUse::kGateway).find(holder);
    if (!key || !outside_target(cluster, *key)) return;
    for (const auto& [name, node] : cluster.nodes()) {
      for (const auto& address : node.gateway_addresses) {
        if (node.gateway) entry.add_gateway_addresses(address.to_string());
      }
    }
    if (!entry.gateway_addresses().empty()) entry.set_gateway_port(key->port);
    return;
  }
}

}  // namespace

pb::WorkloadList workload_list(const Controller& controller) {
  const auto& cluster = controller.cluster();
  const auto& launches = controller.launch_report();
  pb::WorkloadList list;
  for (const auto& [id, workload] : cluster.world().workloads) {
    auto& entry = *list.add_workloads();
    *entry.mutable_declaration() = policy::to_proto(workload.declaration);
    entry.set_state(state_of(workload));
    if (launches) {
      const auto problem = launches->problems.find(id);
      if (problem != launches->problems.end()) entry.add_problems(problem->second);
    }
    const auto& launch = cluster.launch(id);
    if (!launch.request.empty()) {
      entry.mutable_launch()->set_request(launch.request);
      entry.mutable_launch()->set_service(launch.is_service);
    }
    if (!workload.remote) continue;
    entry.mutable_attachment()->set_node(workload.remote->node);
    add_addresses(*workload.remote, *entry.mutable_attachment());
  }
  return list;
}

pb::ServiceList service_list(const Cluster& cluster, const std::set<std::string>& stale) {
  pb::ServiceList list;
  for (const auto& [key, service] : cluster.world().services) {
    auto& entry = *list.add_services();
    entry.set_name(key.name);
    entry.set_scope(key.scope == policy::Scope::kCluster ? pb::Scope::CLUSTER
                                                         : pb::Scope::WORKFLOW);
    entry.set_workflow(key.workflow);
    entry.set_owner(service.owner);
    for (const auto family : kFamilies) {
      if (service.vip(family)) entry.add_vips(service.vip(family)->to_string());
    }
    const auto members = cluster.index().members.find(key);
    if (members == cluster.index().members.end()) continue;
    for (const auto& id : members->second) {
      const auto& workload = cluster.world().workloads.find(id)->second;
      if (!workload.remote) continue;
      auto& endpoint = *entry.add_endpoints();
      endpoint.set_id(id);
      endpoint.set_node(workload.remote->node);
      add_addresses(*workload.remote, endpoint);
      endpoint.set_ready(workload.ready && !workload.drains());
      endpoint.set_stale(stale.contains(workload.remote->node));
    }
  }
  return list;
}

pb::PublishedList published_list(const Cluster& cluster, const proxy::Site* web) {
  pb::PublishedList list;
  for (const auto& [id, workload] : cluster.world().workloads) {
    const auto* placement = cluster.placement(id);
    if (!workload.remote || placement == nullptr) continue;
    for (const auto& published : placement->reported.published()) {
      auto& entry = *list.add_published();
      entry = published;
      entry.clear_gateway_addresses();  // not a node's to say
      entry.clear_gateway_port();
      entry.clear_urls();
      add_gateways(cluster, workload.declaration, entry);
      if (web == nullptr || !entry.http() || entry.port() > 65535) continue;
      for (auto& url : web_urls(cluster, *web, id, static_cast<std::uint16_t>(entry.port()))) {
        entry.add_urls(std::move(url));
      }
    }
  }
  return list;
}

pb::NodeList node_list(const Cluster& cluster, const std::vector<NodeStatus>& status) {
  pb::NodeList list;
  for (const auto& node : status) {
    auto& entry = *list.add_nodes();
    entry.set_name(node.name);
    entry.set_connected(node.connected);
    entry.set_stale(node.stale);
    entry.set_version(node.version);
    entry.set_revision(node.revision);
    entry.set_generation(node.generation);
    entry.set_problem(node.trouble);
    const auto& state = cluster.nodes().at(node.name);
    for (const auto& block : state.blocks) entry.add_blocks(block.to_string());
    for (const auto& address : state.underlay) entry.add_underlay(address.to_string());
    std::uint32_t attached = 0;
    for (const auto& id : cluster.placed_on(node.name)) {
      if (!cluster.placement(id)->reported.addresses().empty()) ++attached;
    }
    entry.set_workloads(attached);
  }
  return list;
}

pb::StatusReply status_reply(const Controller& controller) {
  pb::StatusReply reply;
  const auto problem = [&](const std::string& subject, const std::string& detail) {
    auto& entry = *reply.add_problems();
    entry.set_subject(subject);
    entry.set_detail(detail);
  };
  if (!controller.store_trouble().empty()) problem("store", controller.store_trouble());
  const auto& launches = controller.launch_report();
  if (launches && !launches->trouble.empty()) problem("arvados", launches->trouble);
  for (const auto& node : controller.node_status()) {
    if (!node.connected) problem("node " + node.name, "is not connected");
    if (!node.trouble.empty()) problem("node " + node.name, "refused its slice: " + node.trouble);
  }
  reply.set_healthy(reply.problems().empty());
  reply.set_controller(controller.name());
  reply.mutable_generations()->set_stored(controller.revision());
  const auto& world = controller.cluster().world();
  reply.set_zone(world.settings.zone);
  reply.set_workloads(static_cast<std::uint32_t>(world.workloads.size()));
  std::uint32_t attached = 0;
  for (const auto& [id, workload] : world.workloads) attached += workload.remote ? 1 : 0;
  reply.set_attached(attached);
  return reply;
}

}  // namespace meshd::controller
