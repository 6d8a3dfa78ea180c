// What Daemon does while somebody looks at the controller's page: reads the table's counters, and
// says what has passed.
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "meshd/daemon.h"

namespace meshd {
namespace {

constexpr policy::SetId kFlowSets[] = {policy::SetId::kAllow4, policy::SetId::kAllow6,
                                       policy::SetId::kAllow4Block, policy::SetId::kAllow6Block};

Result<std::vector<ElementCount>> flow_counters(LinuxKernel& kernel) {
  std::vector<ElementCount> counts;
  for (const auto set : kFlowSets) {
    auto some = TRY(kernel.counters(set));
    std::ranges::move(some, std::back_inserter(counts));
  }
  return counts;
}

}  // namespace

// After each message of the controller.
void Daemon::follow_look(TimePoint now) {
  const auto* const cluster = node_->cluster();
  const bool wanted = cluster != nullptr && cluster->looked_until() > now;
  if (!wanted || looking_) return;
  looking_ = true;
  read_traffic();  // what there has been until now
}

void Daemon::read_traffic() {
  auto* const cluster = node_->cluster();
  const auto begin = BootClock::now();
  if (cluster == nullptr || cluster->looked_until() <= begin || !cluster->is_connected()) {
    looking_ = false;
    traffic_ = {};
    traffic_at_.reset();
    return;
  }
  const auto counts = flow_counters(*kernel_);
  if (counts) {
    auto now = traffic_counts(node_->world(), *counts);
    if (traffic_at_) cluster->tell_traffic(traffic_since(traffic_, now, begin - *traffic_at_));
    traffic_ = std::move(now);
    traffic_at_ = begin;
  } else {
    log::warning("traffic: {}", counts.error().what);
  }
  const auto end = BootClock::now();
  traffic_timer_->set(end + std::max<Duration>(kTrafficEvery, (end - begin) * kTrafficShare));
}

}  // namespace meshd
