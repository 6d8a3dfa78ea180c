// The part of Daemon that a monitor reads (docs/metrics.md).
#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "meshd/daemon.h"
#include "meshd/report.h"

namespace meshd {
namespace {

DnsCounts dns_counts(const dns::ServerStats& stats) {
  DnsCounts counts;
  counts.queries = stats.queries;
  counts.forwarded = stats.forwarded;
  counts.dropped = stats.dropped;
  counts.withheld = stats.refused;
  std::ranges::copy(stats.answers, counts.answers.begin());
  return counts;
}

std::string state_word(mesh::v1::WorkloadState::Value state) {
  std::string word = mesh::v1::WorkloadState::Value_Name(state);
  std::ranges::transform(word, word.begin(),
                         [](char c) { return static_cast<char>(c - 'A' + 'a'); });
  return word;
}

}  // namespace

Status Daemon::start_metrics() {
  if (!config_.metrics) return {};
  metrics_ = TRY(metrics::Endpoint::open(*config_.metrics, [this] { return metrics_text(); }));
  metrics_timer_ = TRY(loop_->make_timer([this] { serve_metrics(); }));
  sources_.push_back(TRY(loop_->on_readable(metrics_->fd(), [this] { serve_metrics(); })));
  log::info("metrics: at {}, port {}", config_.metrics->address.to_string(), metrics_->port());
  return {};
}

void Daemon::serve_metrics() {
  const auto again = metrics_->serve();
  metrics_timer_->set(again ? std::optional(BootClock::now() + *again) : std::nullopt);
}

std::string Daemon::metrics_text() {
  NodeMetrics m;
  m.version = kVersion;
  m.node = config_.node_name;
  m.counts = counts_;
  for (const auto* const state : {"declared", "attached", "ready", "draining"}) {
    m.workloads[state] = 0;
  }
  for (const auto& [id, workload] : node_->world().workloads) {
    if (!workload.remote) ++m.workloads[state_word(state_of(workload))];
  }
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    const auto set = static_cast<policy::SetId>(i);
    const auto count = node_->compiler().element_count(set);
    m.elements += count;
    if (policy::set_name(set).starts_with("allow")) m.flows += count;
  }
  if (auto dropped = kernel_->dropped()) {
    m.dropped = *std::move(dropped);
  } else {
    log::warning("metrics: {}", dropped.error().what);
  }
  m.dns = dns_counts(dns_->stats());
  m.upstreams = dns_->upstream_states();
  const auto status = status_reply();
  m.generations = node_->generations();
  m.reported = status.generations().reported();
  m.healthy = status.healthy();
  m.behind = !node_->behind().empty();
  m.problems = static_cast<std::uint64_t>(status.problems().size());
  m.repairs = node_->repairs();
  m.watching = status.watching();
  m.refused_consumers = pairs_.consumers();
  m.refused_lost = pairs_.lost();
  if (const auto* const cluster = node_->cluster()) {
    m.cluster =
        ClusterCounts{cluster->is_connected(), cluster->sessions(), cluster->slices_applied(),
                      cluster->slices_refused(), cluster->revision()};
  }
  return render(m);
}

}  // namespace meshd
