// Which nodes speak with which of several equal controllers, and which slice is in force there.
// Controllers tell each other, by the database and in passing: nothing of it is stored, all of it
// is told again every second, and who falls silent is gone. So a node that speaks with another
// controller is neither marked nor given up here, and flows of its containers are confirmed.
//
// Threads:   not thread-safe; one owner (the controller's loop).
// Invariant: silence is believed only while we hear ourselves: else it is us who hear nothing.
// Errors:    a line that cannot be read says nothing: another version may have written it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace meshd::controller {

inline constexpr auto kNewsEvery = std::chrono::seconds(1);
inline constexpr auto kNewsLife = std::chrono::seconds(4);
// PostgreSQL takes less than 8,000 bytes in a notification.
inline constexpr std::size_t kMaxNewsBytes = 7'000;

struct NodeNews {
  enum class Kind : char { kHolds = '=', kTook = '+', kLost = '-' };
  Kind kind = Kind::kHolds;
  std::string node;
  std::optional<std::uint64_t> in_force;  // hash of the slice that the node has in force
  bool operator==(const NodeNews&) const = default;
};

class Elsewhere {
 public:
  // `self` is of this process alone. Not shared: there is no other controller.
  Elsewhere(std::string self, bool shared, TimePoint now)
      : self_(std::move(self)), shared_(shared), heard_self_(now) {}

  // To be told to the others: lines of at most kMaxNewsBytes, also when there is no news.
  [[nodiscard]] std::vector<std::string> lines(std::span<const NodeNews> news) const;
  // What another controller says that concerns us.
  [[nodiscard]] std::vector<NodeNews> hear(std::string_view line, TimePoint now);
  // Nodes whose controller has fallen silent, and since when.
  [[nodiscard]] std::vector<std::pair<std::string, TimePoint>> expire(TimePoint now);

  [[nodiscard]] bool has(const std::string& node) const { return nodes_.contains(node); }
  // A node without a session anywhere would be known as such.
  [[nodiscard]] bool hears(TimePoint now) const {
    return !shared_ || now - heard_self_ <= kNewsLife;
  }
  [[nodiscard]] bool shared() const { return shared_; }
  // Nobody is there to be told anything at once.
  [[nodiscard]] bool alone() const { return others_.empty(); }

 private:
  struct Entry {
    std::string controller;
    TimePoint heard{};
  };
  const std::string self_;
  const bool shared_;
  TimePoint heard_self_;
  std::map<std::string, Entry> nodes_;
  std::map<std::string, TimePoint> others_;  // controllers, and when they were heard last
};

}  // namespace meshd::controller
