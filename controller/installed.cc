#include "controller/installed.h"

#include <algorithm>

namespace meshd::controller {

std::optional<Installed> installed(const Cluster& cluster, const std::string& id, Proto proto,
                                   std::uint16_t port, bool http) {
  const auto found = cluster.world().workloads.find(id);
  const auto* placement = cluster.placement(id);
  if (found == cluster.world().workloads.end() || !found->second.remote || placement == nullptr) {
    return std::nullopt;
  }
  const auto node = cluster.nodes().find(placement->node);
  if (node == cluster.nodes().end()) return std::nullopt;
  const auto protocol = proto == Proto::kUdp ? mesh::v1::Protocol::UDP : mesh::v1::Protocol::TCP;
  for (const auto& info : placement->reported.published()) {
    if (info.http() != http || info.port() != port || info.protocol() != protocol) continue;
    if (info.node_port() < 1 || info.node_port() > 65535) continue;
    Installed result{{}, static_cast<std::uint16_t>(info.node_port()), &info};
    for (const auto family : kFamilies) {
      const auto address = std::ranges::find_if(node->second.underlay, [&](const IpAddress& one) {
        return one.family() == family &&
               std::ranges::find(info.node_addresses(), one.to_string()) !=
                   info.node_addresses().end();
      });
      if (address != node->second.underlay.end()) result.addresses.push_back(*address);
    }
    if (result.addresses.empty()) return std::nullopt;
    return result;
  }
  return std::nullopt;
}

}  // namespace meshd::controller
