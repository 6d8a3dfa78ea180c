// What a declaration, a delete or a release does to the world: checks a whole apply
// against what is declared already, and gives out VIPs and node ports. Pure: the outcome
// is a value that the daemon stores first and adopts afterwards.
//
// Invariants: all or nothing: an Outcome is complete and free of conflicts, or there is
//             an error and no Outcome. A VIP and a chosen node port stay the same for as
//             long as their name or publication exists.
// Errors:     kInvalid, kConflict (somebody else's name, workflow, port), kExhausted.
//             The text is "workload ID: FIELD: REASON".
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "policy/address_runs.h"
#include "policy/types.h"

namespace meshd::policy {

struct Outcome {
  std::map<std::string, Declaration> declarations;  // new or changed, by id
  std::vector<std::string> unchanged;               // named in the apply, the same as before
  std::map<ServiceKey, Service> services;           // new, or declared again after a pause
  std::vector<ServiceKey> services_gone;
  std::map<PublishKey, std::uint16_t> node_ports;  // new or changed
  std::vector<PublishKey> node_ports_gone;
  Quarantine quarantine;                   // addresses that begin to rest
  std::vector<IpAddress> quarantine_gone;  // that rest no longer; only in what adopt() returns
  std::vector<std::string> forgotten;      // workloads deleted
};

// Ports on which the node's own processes listen.
using ListeningPorts = std::set<std::pair<Proto, std::uint16_t>>;

// What the world says, found without a walk through it. Who has many thousand workloads keeps it
// up with each change, and an apply costs what it names; for others it is made of the world.
using Members = std::map<ServiceKey, std::set<std::string>>;
struct Directory {
  const Members& members;                                         // ids by service
  const std::map<std::string, std::set<std::string>>& workflows;  // ids by workflow
  const AddressRuns& vips;                                        // that services have
};

// No `listening`: node ports are not given out here but where the workload runs.
[[nodiscard]] Result<Outcome> declare(const World& world, std::vector<Declaration> declarations,
                                      const Quarantine& resting, const ListeningPorts* listening,
                                      Duration quarantine_time,
                                      const Directory* directory = nullptr);
// The workload exists and is not attached.
[[nodiscard]] Outcome forget(const World& world, const std::string& id, Duration quarantine_time,
                             const Directory* directory = nullptr);
// Gives a CLUSTER name up: refused while a workload declares it.
[[nodiscard]] Result<Outcome> release(const World& world, const ServiceKey& key,
                                      Duration quarantine_time);

// Returns what takes it back to the last entry, as long as nothing else was adopted since.
Outcome adopt(World& world, Quarantine& resting, Outcome outcome);

// Ids of the workloads that declare this service, sorted.
[[nodiscard]] std::vector<std::string> members(const World& world, const ServiceKey& key);

}  // namespace meshd::policy
