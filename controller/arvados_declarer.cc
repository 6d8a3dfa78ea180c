#include "controller/arvados_declarer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "policy/refused_list.h"

namespace meshd::controller {
namespace {

using arvados::Listed;

Launch launch_of(const Listed& item) { return {item.draining, item.request, item.is_service}; }

// Nothing that the author could write otherwise: it is tried again later.
bool is_of_store(const Error& error) {
  return error.code == ErrorCode::kSystem || error.code == ErrorCode::kNotInForce;
}

// "workload ID: FIELD: REASON" of a list that has the id beside it.
std::string without_id(const std::string& text, const std::string& id) {
  const auto prefix = fmt::format("workload {}: ", id);
  return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
}

}  // namespace

std::map<std::string, arvados::Declared> ArvadosDeclarer::have() const {
  const auto& cluster = controller_.cluster();
  const auto author = arvados_author().text();
  std::map<std::string, arvados::Declared> have;
  for (const auto& [id, workload] : cluster.world().workloads) {
    if (cluster.author(id) != author) continue;
    const auto& launch = cluster.launch(id);
    have.emplace(id, arvados::Declared{workload.declaration, launch.drained, launch.request,
                                       launch.is_service});
  }
  return have;
}

std::set<std::string> ArvadosDeclarer::known() const {
  const auto& cluster = controller_.cluster();
  const auto author = arvados_author().text();
  std::set<std::string> known;
  for (const auto& [id, workload] : cluster.world().workloads) {
    if (cluster.author(id) == author) known.insert(known.end(), id);
  }
  return known;
}

void ArvadosDeclarer::take(const arvados::Listing& listing, const arvados::Site& site,
                           const Moment& now) {
  ++report_.readings;
  // Those of whoever is gone go with them; the others say it again.
  const auto before = std::exchange(problems_, {});
  carry_out(site, listing.ended, now);
  note_links(site);
  for (const auto& [id, why] : problems_) {
    const auto told = before.find(id);
    if (told == before.end() || told->second != why) log::warning("arvados: {}: {}", id, why);
  }
  tell();
}

void ArvadosDeclarer::take(const arvados::Found& found, const Moment& now) {
  const auto site = arvados::site_of({found.requests, {}, {}});
  if (site.workloads.empty()) return;  // nobody knows them
  for (const auto& [id, by_owner] : site.workloads) problems_.erase(id);
  carry_out(site, {}, now);
  for (const auto& [id, by_owner] : site.workloads) {
    const auto problem = problems_.find(id);
    if (problem != problems_.end()) log::warning("arvados: {}: {}", id, problem->second);
  }
  tell();
}

void ArvadosDeclarer::set_trouble(const std::string& why, const Moment& now) {
  if (why == trouble_) return;
  if (why.empty()) {
    log::info("arvados: the API answers again");
    report_.trouble.clear();
  } else {
    log::warning("arvados: the API is away: {}", why);
    // It is the same pause when the reason is another one.
    if (trouble_.empty()) since_ = policy::time_text(now.wall_ms);
    report_.trouble = fmt::format("the API is away since {}: {}", since_, why);
  }
  trouble_ = why;
  tell();
}

// --- one change set ------------------------------------------------------------------

void ArvadosDeclarer::carry_out(const arvados::Site& site, const std::set<std::string>& ended,
                                const Moment& now) {
  have_ = have();
  counts_ = {};
  auto steps = arvados::difference(have_, site, ended);
  for (auto& [id, why] : steps.problems) note_problem(id, std::move(why));
  std::span<const Listed> items = steps.declare;
  bool goes_on = true;
  while (goes_on && !items.empty()) {
    const auto some = items.first(std::min(items.size(), kLaunchesPerCommit));
    goes_on = declare(some, now);
    items = items.subspan(some.size());
  }
  if (goes_on) forget(steps.forget, now);
  audit();
}

// Together where that goes, which is one commit; else by halves, so that the one that is refused
// is found and the others are declared.
bool ArvadosDeclarer::declare(std::span<const Listed> items, const Moment& now) {
  std::vector<policy::Declaration> declarations;
  Launches launches;
  for (const auto& item : items) {
    declarations.push_back(item.declaration);
    launches.emplace(item.declaration.id, launch_of(item));
  }
  const auto status =
      controller_.declare(arvados_author(), std::move(declarations), "", now, launches);
  if (status) {
    for (const auto& item : items) count(item);
    return true;
  }
  if (is_of_store(status.error())) {
    log::warning("arvados: {}", status.error().what);
    return false;
  }
  if (items.size() > 1) {
    const auto half = items.size() / 2;
    return declare(items.first(half), now) && declare(items.subspan(half), now);
  }
  const auto& id = items.front().declaration.id;
  note_problem(id, fmt::format("container request {}: {}", items.front().request,
                               without_id(status.error().what, id)));
  return declare_closed(items.front(), now);
}

bool ArvadosDeclarer::declare_closed(const Listed& item, const Moment& now) {
  auto closed = item;
  closed.declaration = arvados::closed(item.declaration);
  const auto& id = closed.declaration.id;
  const auto before = have_.find(id);
  const bool same = before != have_.end() && before->second.declaration == closed.declaration &&
                    before->second.draining == closed.draining &&
                    before->second.request == closed.request &&
                    before->second.is_service == closed.is_service;
  if (same) return true;
  const auto status = controller_.declare(arvados_author(), {closed.declaration}, "", now,
                                          {{id, launch_of(closed)}});
  if (status) {
    ++counts_.closed;
    return true;
  }
  if (is_of_store(status.error())) return false;
  // Somebody else has declared that id.
  note_problem(id, fmt::format("container request {}: {}", item.request,
                               without_id(status.error().what, id)));
  return true;
}

void ArvadosDeclarer::forget(const std::vector<std::string>& ids, const Moment& now) {
  std::size_t done = 0;
  for (const auto& id : ids) {
    const auto* placement = controller_.cluster().placement(id);
    if (placement != nullptr && !placement->reported.addresses().empty()) {
      if (!drain_ended(id, std::string(placement->node), now)) return;
      continue;
    }
    if (++done > kForgottenPerReading) return;
    const auto status = controller_.forget(arvados_author(), id, false, now);
    if (status) {
      ++counts_.forgotten;
    } else if (is_of_store(status.error())) {
      return;
    }
  }
}

// The API has it from whoever ran it; its node sees it go a moment later.
bool ArvadosDeclarer::drain_ended(const std::string& id, const std::string& node,
                                  const Moment& now) {
  const auto& had = have_.at(id);
  if (!had.draining) {
    const auto status = controller_.declare(arvados_author(), {had.declaration}, "", now,
                                            {{id, {true, had.request, had.is_service}}});
    if (!status) return false;
    ++counts_.drained;
  }
  note_problem(id, fmt::format("its container has ended, and is still attached to node {}", node));
  return true;
}

void ArvadosDeclarer::count(const Listed& item) {
  const auto before = have_.find(item.declaration.id);
  if (before == have_.end()) {
    ++(item.problem.empty() ? counts_.declared : counts_.closed);
    if (item.draining) ++counts_.drained;
    return;
  }
  const auto& [declaration, draining, request, is_service] = before->second;
  if (declaration != item.declaration) ++(item.problem.empty() ? counts_.changed : counts_.closed);
  if (!draining && item.draining) ++counts_.drained;
  if (draining && !item.draining) ++counts_.resumed;
}

void ArvadosDeclarer::note_problem(const std::string& id, std::string why) {
  problems_.insert_or_assign(id, std::move(why));
}

// Beside the container that somebody meant to give a name; its own problems come first.
void ArvadosDeclarer::note_links(const arvados::Site& site) {
  if (site.link_problems.empty()) return;
  std::map<std::string_view, std::string_view> containers;  // by request
  for (const auto& [id, by_owner] : site.workloads) {
    for (const auto& [owner, item] : by_owner) containers.emplace(item.request, id);
  }
  for (const auto& [uuid, problem] : site.link_problems) {
    const auto found = containers.find(problem.request);
    if (found == containers.end()) continue;
    problems_.try_emplace(std::string(found->second),
                          fmt::format("link {}: {}", uuid, problem.why));
  }
}

// A line for what has changed, however many readings there were meanwhile.
void ArvadosDeclarer::audit() const {
  std::vector<std::string> parts;
  const auto add = [&](std::size_t number, std::string_view what) {
    if (number > 0) parts.push_back(fmt::format("{} {}", number, what));
  };
  add(counts_.declared, "declared");
  add(counts_.changed, "changed");
  add(counts_.closed, "closed");
  add(counts_.drained, "drained");
  add(counts_.resumed, "resumed");
  add(counts_.forgotten, "forgotten");
  if (parts.empty()) return;
  log::audit(fmt::format("audit {}: {}: done", arvados_author().text(), fmt::join(parts, ", ")));
}

void ArvadosDeclarer::tell() {
  report_.problems = problems_;
  controller_.set_launch_report(report_);
}

}  // namespace meshd::controller
