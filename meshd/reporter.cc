#include "meshd/reporter.h"

#include <utility>

#include "meshd/report.h"

namespace meshd {

void Reporter::begin() {
  sent_.clear();
  refused_.clear();
  all_ = true;
  number_ = taken_ = 0;
}

void Reporter::check(const policy::World& world, const std::string& id, mesh::v1::Report& report) {
  const auto found = world.workloads.find(id);
  if (found == world.workloads.end() || !found->second.attachment) {
    refused_.erase(id);
    if (sent_.erase(id) > 0) report.add_gone(id);
    return;
  }
  auto endpoint = node_endpoint(world, id);
  auto bytes = endpoint.SerializeAsString();
  auto& before = sent_[id];
  if (before == bytes) return;
  before = std::move(bytes);
  refused_.erase(id);
  *report.add_endpoints() = std::move(endpoint);
}

std::optional<mesh::v1::Report> Reporter::next(const policy::World& world,
                                               std::uint64_t generation) {
  mesh::v1::Report report;
  if (std::exchange(all_dirty_, false) || all_) {
    for (const auto& [id, bytes] : sent_) dirty_.insert(id);
    for (const auto& [id, workload] : world.workloads) dirty_.insert(id);
  }
  for (const auto& id : std::exchange(dirty_, {})) check(world, id, report);
  covered_ = generation;
  if (!all_ && report.endpoints().empty() && report.gone().empty()) {
    if (taken_ == number_) reported_ = covered_;
    return std::nullopt;
  }
  report.set_all(std::exchange(all_, false));
  report.set_number(++number_);
  report.set_generation(generation);
  return report;
}

void Reporter::taken(const mesh::v1::ReportTaken& taken) {
  if (taken.number() <= taken_ || taken.number() > number_) return;
  taken_ = taken.number();
  if (taken_ == number_) reported_ = covered_;
  for (const auto& problem : taken.refused()) {
    sent_.erase(problem.subject());
    refused_[problem.subject()] = problem.detail();
  }
}

}  // namespace meshd
