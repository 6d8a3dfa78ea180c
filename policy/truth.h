// The truth function: C may reach S on (protocol, port) iff some peer entry of C resolves
// to S and lists the port or lists none, S serves the port, and S admits C.
//
// The compiler, the DNS views, `explain` and the reports all ask here and nowhere else.
// Pure; says nothing about whether the two are attached, ready or draining.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "policy/types.h"

namespace meshd::policy {

// The service that a peer entry of `consumer` names; absent for a peer by id.
[[nodiscard]] std::optional<ServiceKey> peer_service(const Declaration& consumer, const Peer& peer);
[[nodiscard]] bool resolves_to(const Declaration& consumer, const Peer& peer,
                               const Declaration& provider);
[[nodiscard]] bool admits(const Declaration& provider, const Declaration& consumer);

// What `consumer` may reach of `provider`: sorted by protocol and port, disjoint, adjacent
// ranges joined. Empty: nothing. A workload grants itself what its service's VIP may lead
// back to itself.
[[nodiscard]] std::vector<PortRange> granted_ranges(const Declaration& consumer,
                                                    const Declaration& provider);
// The same where it is known which of the consumer's entries resolve to the provider.
[[nodiscard]] std::vector<PortRange> granted_ranges(const Declaration& consumer,
                                                    std::span<const Peer* const> peers,
                                                    const Declaration& provider);

// Sorts, joins what overlaps or touches.
[[nodiscard]] std::vector<PortRange> normalise(std::vector<PortRange> ranges);
// `from` without what `minus` covers; both normalised.
[[nodiscard]] std::vector<PortRange> without(const std::vector<PortRange>& from,
                                             const std::vector<PortRange>& minus);

enum class Ruling {
  kAllowed,
  kNoPeer,         // the consumer declares no peer that is this provider
  kPortNotListed,  // it does, but without this port
  kNotServed,      // the provider does not serve the port
  kNotAdmitted,    // the provider does not admit the consumer
};
struct Decision {
  Ruling ruling = Ruling::kNoPeer;
  std::size_t peer = 0;  // index of the deciding peer entry, unless kNoPeer
  std::string reason;    // "worker declares no peer db"
};
[[nodiscard]] Decision decide(const Declaration& consumer, const Declaration& provider, Proto proto,
                              std::uint16_t port);

}  // namespace meshd::policy
