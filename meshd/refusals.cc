#include "meshd/refusals.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace meshd {

bool Refusals::add(const std::string& id, std::string line, TimePoint now) {
  if (by_container_.size() >= kContainers && !by_container_.contains(id)) {
    by_container_.erase(by_container_.begin());
  }
  auto& entries = by_container_[id];
  line.resize(std::min(line.size(), kMaxLineBytes));
  const auto known = std::ranges::find(entries, line, &Entry::line);
  if (known != entries.end()) {
    Entry entry = std::move(*known);
    ++entry.count;
    entry.last = now;
    entries.erase(known);
    entries.push_front(std::move(entry));
    return false;
  }
  entries.push_front({std::move(line), 1, now});
  if (entries.size() > kLines) entries.pop_back();
  return true;
}

std::vector<std::string> Refusals::lines(const std::string& id, TimePoint now) const {
  std::vector<std::string> result;
  const auto found = by_container_.find(id);
  if (found == by_container_.end()) return result;
  for (const auto& entry : found->second) {
    const auto age = std::chrono::duration_cast<std::chrono::seconds>(now - entry.last).count();
    result.push_back(entry.count == 1 ? fmt::format("{} ({} s ago)", entry.line, age)
                                      : fmt::format("{} ({} times, last {} s ago)", entry.line,
                                                    entry.count, age));
  }
  return result;
}

}  // namespace meshd
