// What a node reports to have installed of a publication, as far as it is believed: the node port,
// at addresses of the node that other nodes are told of. Whatever else a node says is not where
// its containers are, and nobody is sent there. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "controller/cluster.h"
#include "proto/node.pb.h"

namespace meshd::controller {

struct Installed {
  std::vector<IpAddress> addresses;  // one of each family at most, IPv4 first; never empty
  std::uint16_t node_port = 0;
  const mesh::v1::PublishedInfo* info = nullptr;  // of the placement, until that changes
};
// Absent: not attached, or not in force there.
[[nodiscard]] std::optional<Installed> installed(const Cluster& cluster, const std::string& id,
                                                 Proto proto, std::uint16_t port, bool http);

}  // namespace meshd::controller
