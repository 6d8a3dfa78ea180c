// Sets of port numbers as sorted, disjoint intervals: joined, and one without the other.
//
// Units: int, so that 65535 + 1 does not wrap.
#pragma once

#include <compare>
#include <vector>

namespace meshd::policy {

struct Interval {
  int first = 0, last = 0;
  auto operator<=>(const Interval&) const = default;
};

// Sorts, joins what overlaps or touches.
[[nodiscard]] std::vector<Interval> join(std::vector<Interval> intervals);
// `from` without what `minus` covers; both sorted and disjoint.
[[nodiscard]] std::vector<Interval> subtract(const std::vector<Interval>& from,
                                             const std::vector<Interval>& minus);

}  // namespace meshd::policy
