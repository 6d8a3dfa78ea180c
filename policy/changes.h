// What an apply changes, for people: workloads, flows, names, published ports, connections
// that end, and peers that nobody declares yet. Made before the outcome is adopted, so that
// `plan` shows the same as `apply`.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ip.h"
#include "policy/allocate.h"
#include "policy/types.h"

namespace meshd::policy {

struct Change {
  enum class Kind {
    kWorkloadAdded,
    kWorkloadChanged,
    kWorkloadUnchanged,
    kFlowAdded,
    kFlowRemoved,
    kNameAdded,
    kNameRemoved,
    kPortPublished,
    kPortWithdrawn,
    kConnectionCut,
    kPeerUndeclared,
  };
  Kind kind = Kind::kWorkloadAdded;
  std::string subject;  // "worker -> db-1 tcp/6379"
  std::string detail;
  auto operator<=>(const Change&) const = default;
};

// Sorted by kind, then subject. Without connections, which only the kernel knows.
[[nodiscard]] std::vector<Change> describe(const World& before, const Outcome& outcome);

// One open connection as connection tracking has it.
struct LiveConnection {
  Proto proto = Proto::kTcp;
  IpAddress source;              // who opened it: source of the original direction
  IpAddress asked;               // its destination: a VIP, the node's address, or the server's
  std::uint16_t asked_port = 0;  // as the client wrote it
  IpAddress server;              // who answers: source of the reply direction
  std::uint16_t port = 0;        // of the server, after translation
  auto operator<=>(const LiveConnection&) const = default;
};

// False: the outcome can end no connection, and reading them is not worth the walk.
[[nodiscard]] bool may_cut(const World& before, const Outcome& outcome);

// The connections that the world before permitted and the one after does not, joined by what
// they go by: kind kConnectionCut, "worker -> db-1 tcp/6379", "2 open connections end".
// Sorted. Others among `live` are nobody's business here: what is not ours, what goes on.
[[nodiscard]] std::vector<Change> cut_connections(const World& before, const Outcome& outcome,
                                                  std::span<const LiveConnection> live);

}  // namespace meshd::policy
