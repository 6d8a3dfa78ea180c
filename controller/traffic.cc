#include "controller/traffic.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace meshd::controller {
namespace {

constexpr std::uint32_t kMaxOverMs = 3'600'000;
constexpr std::size_t kMaxIdBytes = 63;
// A second of the fastest network there is, times an hour, and far from an overflow.
constexpr std::uint64_t kMaxCount = 1ULL << 50U;

bool is_on(const Cluster& cluster, const std::string& id, const std::string& node) {
  const auto* const placement = cluster.placement(id);
  return placement != nullptr && placement->node == node;
}

// Why it is no flow; empty: it is one.
std::string shape_problem(const mesh::v1::FlowTraffic& flow) {
  for (const auto* who : {&flow.consumer(), &flow.provider()}) {
    if (who->empty() || who->size() > kMaxIdBytes) return "ids of 1 to 63 bytes";
  }
  const auto& port = flow.port();
  if (port.port() < 1 || port.port() > 65535 || port.end_port() != 0) return "port: 1 to 65535";
  if (flow.packets() > kMaxCount || flow.bytes() > kMaxCount) return "counts: up to 2^50";
  return {};
}

// At least one where there was any: it shall be seen that something passes.
std::uint64_t rate(std::uint64_t count, std::uint32_t over_ms) {
  if (count == 0) return 0;
  return std::max<std::uint64_t>(1, count * 1000 / over_ms);
}

}  // namespace

void TrafficTable::forget(const std::string& node) {
  const auto found = by_node_.find(node);
  if (found == by_node_.end()) return;
  count_ -= found->second.rates.size();
  by_node_.erase(found);
}

void TrafficTable::clear() {
  by_node_.clear();
  count_ = 0;
}

std::optional<std::string> TrafficTable::take(const Cluster& cluster, const std::string& node,
                                              const mesh::v1::Traffic& traffic, TimePoint now) {
  const auto before = by_node_.find(node);
  if (before != by_node_.end() && now - before->second.at < kTrafficPause) return "too often";
  if (traffic.over_ms() < 1 || traffic.over_ms() > kMaxOverMs) return "over_ms: 1 to 3600000";
  if (traffic.flows().size() > kMaxTrafficFlows) {
    return fmt::format("at most {} flows at once", kMaxTrafficFlows);
  }
  forget(node);
  std::optional<std::string> problem;
  Said said{now, {}};
  for (const auto& flow : traffic.flows()) {
    if (auto why = shape_problem(flow); !why.empty()) {
      problem = std::move(why);
    } else if (!is_on(cluster, flow.consumer(), node)) {
      // It may have left a moment ago: no more than a word in the counts.
      problem = fmt::format("{} is not on it", flow.consumer());
    } else if (count_ + said.rates.size() < kMaxTrafficRates) {
      const bool udp = flow.port().protocol() == mesh::v1::Protocol::UDP;
      said.rates.push_back({flow.consumer(), flow.provider(), udp ? Proto::kUdp : Proto::kTcp,
                            static_cast<std::uint16_t>(flow.port().port()),
                            rate(flow.bytes(), traffic.over_ms()),
                            rate(flow.packets(), traffic.over_ms())});
    }
  }
  count_ += said.rates.size();
  by_node_.insert_or_assign(node, std::move(said));
  return problem;
}

std::vector<proxy::FlowRate> TrafficTable::rates(TimePoint now) {
  std::vector<proxy::FlowRate> all;
  for (auto at = by_node_.begin(); at != by_node_.end();) {
    if (now - at->second.at > kTrafficLapses) {
      count_ -= at->second.rates.size();
      at = by_node_.erase(at);
      continue;
    }
    all.insert(all.end(), at->second.rates.begin(), at->second.rates.end());
    ++at;
  }
  std::ranges::sort(all);
  return all;
}

}  // namespace meshd::controller
