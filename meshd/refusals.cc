#include "meshd/refusals.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace meshd {

std::string rfc3339(WallTime when) {
  const auto seconds = std::chrono::system_clock::to_time_t(when);
  tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

bool RepeatFilter::admit(const Flow& flow, TimePoint now) {
  if (now - begin_ >= std::chrono::seconds(1)) {
    seen_.clear();
    begin_ = now;
  }
  if (seen_.size() >= kFlows) return false;
  return seen_.insert(flow).second;
}

mesh::v1::RefusedFlows refused_flows(
    const std::vector<std::pair<policy::RefusedPair, policy::RefusedPairs::Entry>>& pairs) {
  mesh::v1::RefusedFlows flows;
  for (const auto& [pair, entry] : pairs) {
    auto& flow = *flows.add_flows();
    flow.set_consumer(pair.consumer);
    flow.set_provider(pair.provider);
    flow.mutable_port()->set_port(pair.port);
    flow.mutable_port()->set_protocol(pair.proto == Proto::kUdp ? mesh::v1::Protocol::UDP
                                                                : mesh::v1::Protocol::TCP);
    flow.set_missing(entry.missing);
    flow.set_count(entry.untold);
  }
  return flows;
}

bool Refusals::add(const std::string& id, std::string line, WallTime when) {
  if (by_container_.size() >= kContainers && !by_container_.contains(id)) {
    // Whose last refusal is the longest ago.
    by_container_.erase(std::ranges::min_element(
        by_container_, {}, [](const auto& entry) { return entry.second.front().last; }));
  }
  auto& entries = by_container_[id];
  line.resize(std::min(line.size(), kMaxLineBytes));
  const auto known = std::ranges::find(entries, line, &Entry::line);
  if (known != entries.end()) {
    Entry entry = std::move(*known);
    ++entry.count;
    entry.last = when;
    entries.erase(known);
    entries.push_front(std::move(entry));
    return false;
  }
  entries.push_front({std::move(line), 1, when});
  if (entries.size() > kLines) entries.pop_back();
  return true;
}

std::vector<std::string> Refusals::lines(const std::string& id) const {
  std::vector<std::string> result;
  const auto found = by_container_.find(id);
  if (found == by_container_.end()) return result;
  for (const auto& entry : found->second) {
    const auto when = rfc3339(entry.last);
    result.push_back(entry.count == 1
                         ? fmt::format("{} ({})", entry.line, when)
                         : fmt::format("{} ({} times, {})", entry.line, entry.count, when));
  }
  return result;
}

}  // namespace meshd
