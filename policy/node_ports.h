// Which node port each publication has: declared ones, those that are kept, and new choices.
// Pure.
//
// Invariant: a port is one publication's, and none that a process of the node listens on. A
//            chosen one stays for as long as its publication exists.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "policy/allocate.h"
#include "policy/types.h"

namespace meshd::policy {

struct NodePorts {
  std::map<PublishKey, std::uint16_t> given;  // new or changed
  std::vector<PublishKey> gone;               // of publications that are no more
  // What cannot have its port, sorted as it was found; "workload ID: publish: REASON".
  std::vector<std::pair<PublishKey, Error>> refused;
};

// `after`: the workloads that change, as they will be. Of those that ask for the same port the
// one that has it keeps it, else the first by id gets it.
[[nodiscard]] NodePorts settle_node_ports(
    const World& world, const std::map<std::string, Declaration, std::less<>>& after,
    const ListeningPorts& listening);

}  // namespace meshd::policy
