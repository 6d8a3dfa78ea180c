// What was refused to each container, for people: the last lines per container, with
// repeats counted. Feeds `watch`, TXT why.<zone> and the log.
//
// Threads:   the main loop only.
// Invariant: bounded: kLines per container, kContainers in all; the oldest goes first.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"

namespace meshd {

class Refusals {
 public:
  static constexpr std::size_t kLines = 10;          // what why.<zone> promises
  static constexpr std::size_t kContainers = 8192;   // as many as the table's sets hold
  static constexpr std::size_t kMaxLineBytes = 200;  // a TXT string holds 255

  // True when the line is new, false when it repeats one that is still listed.
  bool add(const std::string& id, std::string line, TimePoint now);
  // Newest first: "db tcp/6379: you declare no peer db (3 times, last 12 s ago)".
  [[nodiscard]] std::vector<std::string> lines(const std::string& id, TimePoint now) const;
  void forget(const std::string& id) { by_container_.erase(id); }

 private:
  struct Entry {
    std::string line;
    std::uint64_t count;
    TimePoint last;
  };
  std::map<std::string, std::deque<Entry>> by_container_;
};

}  // namespace meshd
