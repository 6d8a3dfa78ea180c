// Sets of prefixes (and ports) that several containers share: whom a publication admits,
// where a container may go. Each becomes a profile, a number that stands for its content,
// so that equal ones are kept in the kernel once.
//
// Invariant: a number stands for one content at a time: two contents whose hashes meet get
//            different numbers. The intervals of one profile are disjoint, since the kernel
//            refuses overlapping ones.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "policy/ruleset.h"
#include "policy/types.h"

namespace meshd::policy {

// Without those that another one contains; sorted.
[[nodiscard]] std::vector<Prefix> normalise(std::vector<Prefix> prefixes);

// Whom a publication admits: its own list, or what the settings say.
[[nodiscard]] const std::vector<Prefix>& sources_of(const Settings& settings,
                                                    const Publication& publication);

// One disjoint piece of an egress profile. Protocols by IANA number, ICMP among them.
struct EgressPiece {
  Prefix prefix;
  std::uint8_t proto = 0;
  std::uint16_t first = 0, last = 0;
  auto operator<=>(const EgressPiece&) const = default;
};
// A prefix inside another one keeps only the ports that the other lacks.
[[nodiscard]] std::vector<EgressPiece> normalise(const std::vector<EgressRule>& rules);

class Profiles {
 public:
  // The number for this content, counted once more. Never 0.
  [[nodiscard]] std::uint32_t acquire(const std::string& content);
  void release(std::uint32_t number);

 private:
  struct Entry {
    std::string content;
    std::size_t users;
  };
  std::map<std::uint32_t, Entry> by_number_;
};

// Text that is equal for equal contents only.
[[nodiscard]] std::string content_of(const std::vector<Prefix>& sources);
[[nodiscard]] std::string content_of(const std::vector<EgressPiece>& pieces);

}  // namespace meshd::policy
