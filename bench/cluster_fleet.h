// Nodes that are nothing but their side of the protocol: each joins with the ticket, has a
// certificate and a connection of its own, says hello, reports, and answers what it is sent at
// once. Thousands of them on one thread and one completion queue.
//
// Threads: the caller's; gRPC's own carry bytes only.
// Errors:  what a controller should never do ends the program with a word (bench/must.h).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/cluster_world.h"
#include "pki/join_ticket.h"

namespace meshd::bench {

using Clock = std::chrono::steady_clock;

// What the nodes are sent, told as it arrives.
class FleetEvents {
 public:
  virtual ~FleetEvents() = default;
  virtual void item(int node, std::string_view id) = 0;  // a workload's
  virtual void confirmed(int node, std::string_view consumer, std::string_view provider) = 0;
  virtual void taken(int node) = 0;    // all that it has reported
  virtual void started(int node) = 0;  // its container may be attached
  virtual void applied(int what) = 0;  // an apply was acknowledged
};

class Fleet {
 public:
  struct Counts {
    std::uint64_t changes = 0, items = 0, bytes = 0;  // slices, as messages
    std::uint64_t lost = 0;                           // sessions that ended
  };
  // The identity declares, the ticket lets nodes join.
  [[nodiscard]] static std::unique_ptr<Fleet> make(ClusterWorld& world, pki::JoinTicket ticket,
                                                   std::string identity, FleetEvents& events);
  virtual ~Fleet() = default;

  // Handles what has arrived, at most until then.
  virtual void run_until(Clock::time_point until) = 0;
  // All, as many at once as one thread can play: those without a certificate ask for one first.
  // Who is cut off comes again, until stay_away().
  virtual void connect_all() = 0;
  virtual void stay_away() = 0;
  [[nodiscard]] virtual int connected() const = 0;
  [[nodiscard]] virtual int busy() const = 0;  // connected, or about to be
  // How many have all that is theirs: every other node, their workloads, every flow confirmed,
  // their report taken.
  [[nodiscard]] virtual int complete() const = 0;
  [[nodiscard]] virtual const Counts& counts() const = 0;
  [[nodiscard]] virtual const std::string& last_loss() const = 0;  // why a session ended

  virtual void apply(const std::string& yaml, int what) = 0;
  // What a node reports of a container that is attached there; with a new address or the old.
  virtual void report(int container, bool draining, bool new_address) = 0;
  virtual void report_gone(int container) = 0;
  virtual void start(int node, int container) = 0;
};

}  // namespace meshd::bench
