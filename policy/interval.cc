#include "policy/interval.h"

#include <algorithm>

namespace meshd::policy {

std::vector<Interval> join(std::vector<Interval> intervals) {
  std::ranges::sort(intervals);
  std::vector<Interval> result;
  for (const auto& interval : intervals) {
    if (!result.empty() && interval.first <= result.back().last + 1) {
      result.back().last = std::max(result.back().last, interval.last);
    } else {
      result.push_back(interval);
    }
  }
  return result;
}

std::vector<Interval> subtract(const std::vector<Interval>& from,
                               const std::vector<Interval>& minus) {
  std::vector<Interval> result;
  for (auto rest : from) {
    for (const auto& hole : minus) {
      if (hole.last < rest.first || hole.first > rest.last) continue;
      if (hole.first > rest.first) result.push_back({rest.first, hole.first - 1});
      rest.first = hole.last + 1;
      if (rest.first > rest.last) break;
    }
    if (rest.first <= rest.last) result.push_back(rest);
  }
  return result;
}

}  // namespace meshd::policy
