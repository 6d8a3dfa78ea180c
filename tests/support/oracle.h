// The truth function a second time, written from its definition and from nothing of
// policy/ but the declared values: what the compiler, the views and the packets must match.
//
//   C may reach S on (protocol, port) iff some peer entry of C resolves to S and lists the
//   port or lists none, S serves the port, and S admits C.
#pragma once

#include <string>

#include "policy/types.h"

namespace meshd::oracle {

inline bool in(const policy::PortRange& range, Proto proto, int port) {
  return range.proto == proto && port >= range.first && port <= range.last;
}

inline bool peer_means(const policy::Declaration& c, const policy::Peer& peer,
                       const policy::Declaration& s) {
  if (!peer.id.empty()) return peer.id == s.id;
  if (s.name != peer.name) return false;
  if (peer.scope == policy::Scope::kCluster) return s.scope == policy::Scope::kCluster;
  return s.scope == policy::Scope::kWorkflow && s.workflow == c.workflow;
}

inline bool admits(const policy::Declaration& s, const policy::Declaration& c) {
  for (const auto& owner : s.admit_owners) {
    if (owner == c.owner) return true;
  }
  const bool same_owner = s.owner == c.owner;
  const bool same_run = same_owner && !s.workflow.empty() && s.workflow == c.workflow;
  if (s.admit == policy::Admit::kCluster) return true;
  return s.admit == policy::Admit::kOwner ? same_owner : same_run;
}

inline bool may_reach(const policy::Declaration& c, const policy::Declaration& s, Proto proto,
                      int port) {
  bool served = false;
  for (const auto& entry : s.serves) served = served || in(entry.ports, proto, port);
  if (!served || !oracle::admits(s, c)) return false;
  for (const auto& peer : c.peers) {
    if (!peer_means(c, peer, s)) continue;
    bool listed = peer.ports.empty();
    for (const auto& range : peer.ports) listed = listed || in(range, proto, port);
    if (listed) return true;
  }
  return false;
}

// Whether C sees S's names: on some port it may reach it.
inline bool sees(const policy::Declaration& c, const policy::Declaration& s) {
  for (const auto& entry : s.serves) {
    for (int port = entry.ports.first; port <= entry.ports.last; ++port) {
      if (may_reach(c, s, entry.ports.proto, port)) return true;
    }
  }
  return false;
}

}  // namespace meshd::oracle
