// What the controller is told at its start, how it reaches a node, and what it says of one.
//
// Threads: values; a NodeStream is used from the controller's loop only.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "policy/outside_ports.h"
#include "proto/controller.pb.h"
#include "proxy/target.h"

namespace meshd::controller {

// The way to one node. Messages go in order; after close() none does.
class NodeStream {
 public:
  virtual ~NodeStream() = default;
  virtual void send(mesh::v1::ToNode message) = 0;
  virtual void close() = 0;
};

// A port on demand that nobody has used for so long is shut. A person who reads a page for longer
// than that opens it again.
inline constexpr auto kOpenIdle = std::chrono::minutes(10);

struct ControllerOptions {
  std::string name;  // what nodes are told they speak with
  bool node_declarations = false;
  // A node without a session: its workloads are marked after the first, given up, with its
  // block, after the second. Longer than any restart, partition or upgrade that is to be
  // survived without a change of names.
  Duration stale_after = std::chrono::seconds(10);
  Duration dismiss_after = std::chrono::hours(1);
  std::string instance = {};            // of this process alone, among the controllers of one store
  std::vector<Prefix> proxies = {};     // that nodes admit to `http` publications
  policy::PortSpan gateway_ports = {};  // outside ports; none: there are no gateways
  std::set<std::string> gateway_nodes = {};  // that may be one; none: any
  std::optional<proxy::Site> web = {};       // how it is called from outside; absent: not at all
  std::string proxy_node = {};               // that the proxy before this controller runs on
  bool arvados = false;                      // what its API lists is its own to say
  Duration open_idle = kOpenIdle;            // the same at all controllers of one store
};

// How whoever declares for others fares; of an Arvados site.
struct LaunchReport {
  std::string trouble{};                          // empty: all is well
  std::map<std::string, std::string> problems{};  // by id: why it is not as its author wrote it
  std::uint64_t readings = 0;                     // of everything
};

// How long an attach may wait for its declaration here; the node's own deadline is shorter.
inline constexpr auto kAwaitLimit = std::chrono::minutes(2);
// ... and for what stands in its way and may pass: another node's word that the container has
// left it, which comes after that node has answered the detach; or the store.
inline constexpr auto kMoveLimit = std::chrono::seconds(5);
inline constexpr std::size_t kMaxAwaited = 1024;  // of one node
// What a node has more, for each of the cluster's, when a controller starts and all come at once:
// several times the CPU that this takes, most of it TLS.
inline constexpr auto kComeBack = std::chrono::milliseconds(20);
// After a slice was refused, and while the store is away.
inline constexpr auto kRetryAfter = std::chrono::seconds(1);
// Reports of one node that the store has not taken yet; beyond it the session ends and begins
// with a report of everything.
inline constexpr std::size_t kMaxKeptReports = 64;
// Decisions that others were quicker with, one after the other.
inline constexpr int kMaxAttempts = 20;

struct NodeStatus {
  std::string name;
  bool connected = false, stale = false;  // connected: with whichever controller
  std::string version;
  std::uint64_t revision = 0;    // sent
  std::uint64_t generation = 0;  // of its last report
  std::string trouble;           // why it refused its last slice
};

struct AwaitedAttach {
  std::uint64_t call = 0;
  TimePoint until;                      // its client has gone long ago
  std::optional<TimePoint> refused_at;  // unless what stands in its way has passed
};
struct NodeSession {
  NodeStream* stream = nullptr;
  bool greeted = false;
  std::uint64_t last_report = 0;
  std::deque<mesh::v1::Report> kept;             // not stored yet
  std::map<std::string, AwaitedAttach> awaited;  // by id
  std::optional<TimePoint> retry_at;             // of a slice that was refused
  std::optional<TimePoint> refused_at;           // when it told of refused flows last
  NodeStatus status;
};

}  // namespace meshd::controller
