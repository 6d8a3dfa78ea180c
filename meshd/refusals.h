// What was refused to each container, for people: the last lines per container, with
// repeats counted. Feeds `watch`, TXT why.<zone> and the log.
//
// Threads:   the main loop only.
// Invariant: bounded: kLines per container, kContainers in all; the oldest goes first.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "policy/refused_pairs.h"
#include "proto/controller.pb.h"

namespace meshd {

using WallTime = std::chrono::system_clock::time_point;

// "2026-01-31T09:30:00Z" (RFC 3339, UTC).
[[nodiscard]] std::string rfc3339(WallTime when);

// Lets each refused flow through once a second: a flood repeats itself, and to explain each
// of its packets would keep the daemon from its work.
class RepeatFilter {
 public:
  struct Flow {
    IpAddress source, destination;
    std::uint8_t proto = 0;
    std::uint16_t port = 0;
    auto operator<=>(const Flow&) const = default;
  };
  // Different flows within one second; what comes on top is left out too.
  static constexpr std::size_t kFlows = 1024;

  [[nodiscard]] bool admit(const Flow& flow, TimePoint now);

 private:
  std::set<Flow> seen_;  // in this second
  TimePoint begin_{};
};

// Containers whose refused pairs are kept for `list refused`: with all of their pairs 6 MiB.
inline constexpr std::size_t kRefusedConsumers = 512;
// Pairs in one report to the controller; more go with the next one.
inline constexpr std::size_t kMaxReportedPairs = 256;
[[nodiscard]] mesh::v1::RefusedFlows refused_flows(
    const std::vector<std::pair<policy::RefusedPair, policy::RefusedPairs::Entry>>& pairs);

class Refusals {
 public:
  static constexpr std::size_t kLines = 10;          // what why.<zone> promises
  static constexpr std::size_t kContainers = 8192;   // as many as the table's sets hold
  static constexpr std::size_t kMaxLineBytes = 190;  // a TXT string holds 255

  // True when the line is new, false when it repeats one that is still listed.
  bool add(const std::string& id, std::string line, WallTime when);
  // Newest first: "db tcp/6379: you declare no peer db (3 times, 2026-01-31T09:30:00Z)". The
  // time of the last one and not its age: the text is published once and read later.
  [[nodiscard]] std::vector<std::string> lines(const std::string& id) const;
  void forget(const std::string& id) { by_container_.erase(id); }
  [[nodiscard]] std::size_t size() const { return by_container_.size(); }

 private:
  struct Entry {
    std::string line;
    std::uint64_t count;
    WallTime last;
  };
  std::map<std::string, std::deque<Entry>> by_container_;
};

}  // namespace meshd
