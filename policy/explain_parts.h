// Inside explain: what was asked about, and the ways that have one end outside the mesh.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "policy/explain.h"
#include "policy/types.h"

namespace meshd::policy {

// A workload, a service, or neither: then the address alone, of the outside or of nobody.
struct Target {
  const Workload* workload = nullptr;
  const Service* service = nullptr;
  ServiceKey key;                    // of service
  std::optional<IpAddress> address;  // as asked, when an address was
};

[[nodiscard]] Explanation refused(std::string reason);
[[nodiscard]] bool in_mesh(const Settings& settings, const IpAddress& address);
// "{port: 53, protocol: UDP}", as it is declared.
[[nodiscard]] std::string port_entry(Proto proto, std::uint16_t port);

// Both, or that of the address.
[[nodiscard]] FamilyReady families_of(const std::optional<IpAddress>& asked);
// From one container to another by the truth function and the state of both, over any of the
// families. By way of a VIP or a node port a container may come back to itself.
[[nodiscard]] Explanation judge(const World& world, const Workload& consumer,
                                const Workload& provider, Proto proto, std::uint16_t port,
                                FamilyReady families, const IsConfirmed& is_confirmed = {});

[[nodiscard]] Explanation to_outside(const World& world, const Workload& consumer,
                                     const IpAddress& address, Proto proto, std::uint16_t port);
[[nodiscard]] Explanation from_outside(const World& world, const IpAddress& source,
                                       const Target& target, Proto proto, std::uint16_t port);
// From a process of the node itself. Absent: the way concerns no container.
[[nodiscard]] std::optional<Explanation> from_node(const World& world, const Target& target,
                                                   Proto proto, std::uint16_t port);

}  // namespace meshd::policy
