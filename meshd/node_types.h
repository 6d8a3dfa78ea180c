// What the node is told and what it tells, beside the messages of the API; and how long it
// waits for what.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "meshd/api.h"
#include "meshd/store.h"
#include "policy/allocate.h"
#include "policy/plan.h"
#include "policy/types.h"

namespace meshd {

// How long a command waits for the kernel before it is answered "stored, not in force".
inline constexpr auto kInForceLimit = std::chrono::seconds(5);
// An address is not given out again this long after its last use: clients' caches (our
// TTL is 5 s, but libraries keep answers longer) and half-dead connections fade meanwhile.
inline constexpr auto kQuarantine = std::chrono::seconds(60);
// Rested addresses are dropped together: each time is a write to the disk.
inline constexpr auto kRestSweep = std::chrono::seconds(5);
// Between attempts while the kernel refuses; doubled each time up to the second.
inline constexpr auto kRetryFirst = std::chrono::milliseconds(50);
inline constexpr auto kRetryLast = std::chrono::seconds(5);
// After a write that failed and that nobody waits for.
inline constexpr auto kRetryIdle = std::chrono::minutes(1);
// The same for what has happened already and would be lost with the process.
inline constexpr auto kRetryStore = std::chrono::seconds(1);
// Between comparisons of the whole table because of foreign changes: each takes tens of
// milliseconds with many flows, and repairs are promised within 250.
inline constexpr auto kDriftEvery = std::chrono::milliseconds(50);
// Addresses tried whose link's name is somebody else's; nobody names that many links so.
inline constexpr int kMaxPicks = 256;
// Commands `wait` at the same time, and the longest that one waits.
inline constexpr std::size_t kMaxReadyWaiters = 1024;
inline constexpr auto kMaxWait = std::chrono::hours(24);
// Prepared namespaces that their clients have not removed; more than a node has containers.
inline constexpr std::size_t kMaxLeftNetns = 8192;
// Lines of `plan` and `apply` that name cut connections; one more says that there are others.
inline constexpr std::size_t kMaxCuts = 100;

struct AttachSpec {
  std::string id;
  int netns_fd = -1;  // borrowed for the call
  policy::Netns netns;
  std::string netns_path, ifname;
  bool default_route = true;
  bool prepared = false;
  TimePoint deadline = TimePoint::max();  // nobody waits for the answer any longer
};

// Of a node that is to be part of a cluster.
struct ClusterOptions {
  std::string version;                   // of meshd, for people
  std::vector<IpAddress> underlay = {};  // by which other nodes reach this one
  bool gateway = false;
  // How long an attach waits for its declaration; a caller's own deadline may be sooner.
  Duration declaration_limit = std::chrono::seconds(30);
  // The shell makes room for the cluster (table, names); refused, the node stays out of it.
  std::function<Status(const policy::Settings&)> adopt = {};
};

struct NodeGenerations {
  std::uint64_t stored = 0, planned = 0, installed = 0, named = 0;
};

struct NodeOptions {
  // A CLUSTER name that nobody has declared for so long is released; 0: never.
  std::chrono::days idle_release{0};
  std::function<std::chrono::system_clock::time_point()> wall_clock =
      std::chrono::system_clock::now;
  std::optional<ClusterOptions> cluster = {};  // absent: a node by itself, unless stored otherwise
};

// --- of Node alone ---------------------------------------------------------------------

struct Waiting {  // a command whose change is stored
  TimePoint deadline;
  std::move_only_function<void(Status)> done;
};
struct WaitTarget {  // a service, or one workload
  std::string id;
  std::optional<policy::ServiceKey> service;
};
struct ReadyWaiter {
  std::uint64_t call = 0;
  std::string text;  // as the caller wrote it
  WaitTarget target;
  TimePoint deadline;
  Reply<mesh::v1::WaitReply> reply;
};

// A change of the world, compiled and not stored yet.
struct Compiled {
  policy::Touched touched;
  policy::PlanDelta delta;
  std::vector<StoreChange> changes;                        // what follows for the store
  std::map<policy::ServiceKey, policy::Service> services;  // as they were, of those
  // Consumer, provider: as they were, of those that say less now.
  std::map<std::pair<std::string, std::string>, policy::Confirmation> confirmed;
};
struct Trial : Compiled {  // of an outcome
  policy::Outcome back;
  policy::Quarantine resting;
};

}  // namespace meshd
