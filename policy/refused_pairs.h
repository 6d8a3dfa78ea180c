// Pairs that were refused, and how often: what is known of them on a node, what a node tells a
// controller, and what a controller shows. Pure.
//
// Threads:   not thread-safe; one owner.
// Invariant: bounded: so many consumers, kPerConsumer pairs of each; who was refused the longest
//            ago goes first, of the same consumer where that one has too many. So a container
//            that tries all there is pushes nobody else out. What goes is counted as lost.
// Units:     wall time in milliseconds since 1970: for people.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/ip.h"

namespace meshd::policy {

// Each is a workload's id, a service's full name or, where it is neither, an address.
struct RefusedPair {
  std::string consumer, provider;
  Proto proto = Proto::kTcp;
  std::uint16_t port = 0;
  auto operator<=>(const RefusedPair&) const = default;
};

class RefusedPairs {
 public:
  // What one workflow's author reads; a scan of ports is told by its first lines as well.
  static constexpr std::size_t kPerConsumer = 32;

  struct Entry {
    std::string missing;          // the declaration that would allow it
    std::string node;             // that refused it last
    std::string owner, workflow;  // of the consumer, then
    std::uint64_t count = 0;
    std::uint64_t untold = 0;  // of them, since take_untold()
    std::int64_t last_ms = 0;
  };

  explicit RefusedPairs(std::size_t consumers) : limit_(consumers) {}

  // Counts it; the entry is valid until the next call.
  Entry& add(const RefusedPair& pair, std::uint64_t count, std::int64_t wall_ms);
  // Whoever bears the id next has been refused nothing.
  void forget(const std::string& consumer);

  [[nodiscard]] std::size_t consumers() const { return by_consumer_.size(); }
  [[nodiscard]] std::uint64_t lost() const { return lost_; }
  // By consumer, provider, port.
  [[nodiscard]] std::vector<std::pair<RefusedPair, Entry>> all() const;

  [[nodiscard]] bool has_untold() const { return !untold_.empty(); }
  // At most so many of those that were refused since they were taken last.
  [[nodiscard]] std::vector<std::pair<RefusedPair, Entry>> take_untold(std::size_t most);

 private:
  struct Consumer {
    std::map<RefusedPair, Entry> pairs;
    std::uint64_t turn = 0;  // of all, when it was refused something last
  };
  void drop_pair(Consumer& consumer, std::map<RefusedPair, Entry>::iterator pair);
  void make_room(const RefusedPair& pair);

  const std::size_t limit_;
  std::map<std::string, Consumer> by_consumer_;
  std::map<std::uint64_t, std::string> turns_;  // by Consumer::turn
  std::set<RefusedPair> untold_;
  std::uint64_t last_turn_ = 0, lost_ = 0;
};

}  // namespace meshd::policy
