// The other controllers on the same store, as they say themselves: which nodes speak with them.
// A node whose session is elsewhere is as good as connected here.
//
// Threads:   not thread-safe; one owner (the controller's loop).
// Invariant: what a controller said counts from when it was heard here, by our own clock.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "proto/record.pb.h"

namespace meshd::controller {

// Between two words of one controller, and the least pause before it tells of a flow between a
// node of its own and one of another's.
inline constexpr Duration kBeat = std::chrono::seconds(3);
inline constexpr Duration kLeastBeat = std::chrono::milliseconds(50);
// While the store is away nobody can say anything: whoever was heard so shortly before is there.
inline constexpr Duration kExcused = std::chrono::seconds(30);

class Peers {
 public:
  // Null: its object is gone.
  void heard(const std::string& controller, const mesh::v1::StoredController* said, TimePoint now);
  // When the node was last said to be connected elsewhere.
  [[nodiscard]] std::optional<TimePoint> node_heard(const std::string& node) const;
  void excuse(TimePoint now);
  // Not heard of since then.
  [[nodiscard]] std::vector<std::string> silent_since(TimePoint then) const;

 private:
  struct Peer {
    TimePoint heard{};
    std::set<std::string> nodes;
  };
  std::map<std::string, Peer> peers_;
};

}  // namespace meshd::controller
