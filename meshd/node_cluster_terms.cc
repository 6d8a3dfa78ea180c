// What the cluster is, as the controller says it at the beginning of a session: when a node may
// take it, and what changes by it.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "meshd/node.h"
#include "meshd/node_cluster.h"

namespace meshd {
namespace {

PutLooseTerms loose_terms(const ClusterTerms& terms) {
  return {terms.proxies, terms.gateway_first, terms.gateway_last};
}

}  // namespace

std::size_t ClusterPart::attached() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(node_.world_.workloads,
                            [](const auto& entry) { return entry.second.attachment.has_value(); }));
}

// The other cluster does not know what is attached, and would have it detached.
Status ClusterPart::may_move() const {
  if (attached() == 0) return {};
  return fail(ErrorCode::kConflict,
              fmt::format("it joins once nothing is attached here; {} containers are", attached()));
}

Status ClusterPart::check_join(const ClusterTerms& terms) const {
  if (terms_ && terms_->cluster != terms.cluster) {
    return fail(ErrorCode::kConflict,
                fmt::format("this node is of cluster {}, and the controller of {}: to take it out, "
                            "purge it and remove its state_dir",
                            terms_->cluster, terms.cluster));
  }
  if (terms_ && attached() > 0) {
    return fail(ErrorCode::kConflict,
                fmt::format("the cluster's terms are others than before, and {} containers are "
                            "attached: detach them",
                            attached()));
  }
  if (!terms_ && !node_.world_.workloads.empty()) {
    return fail(ErrorCode::kConflict,
                fmt::format("join: {} workloads are declared on this node and {} attached: a node "
                            "joins empty; detach and delete them",
                            node_.world_.workloads.size(), attached()));
  }
  return {};
}

Status ClusterPart::join(const ClusterTerms& terms, TimePoint now) {
  if (terms_ == terms) return {};
  if (terms_) {
    auto same = *terms_;
    same.proxies = terms.proxies;
    same.gateway_first = terms.gateway_first;
    same.gateway_last = terms.gateway_last;
    if (same == terms) return take_loose_terms(terms, now);
  }
  CHECK_OK(check_join(terms));
  return take_terms(terms, now);
}

Status ClusterPart::take_terms(const ClusterTerms& terms, TimePoint now) {
  const auto before = std::exchange(terms_, terms);
  auto settings = overlay(node_.world_.settings);
  std::vector<StoreChange> changes{PutCluster{{terms, revision_}}, loose_terms(terms)};
  if (!before) {
    // Names of a node by itself: in a cluster they are the controller's.
    for (const auto& [key, service] : node_.world_.services) changes.push_back(DropService{key});
    for (const auto& [name, since] : node_.idle_names_) changes.push_back(DropIdleName{name});
  }
  auto status = options_.adopt ? options_.adopt(settings) : Status();
  if (status) status = node_.persist(std::move(changes));
  if (!status) {
    terms_ = before;
    return status;
  }
  if (!before) node_.world_.services.clear();
  node_.world_.settings = std::move(settings);
  auto plan = node_.compiler_.rebuild(node_.world_);
  node_.pending_names_.merge(std::move(plan.views), std::move(plan.views_gone));
  node_.generations_.planned = node_.generations_.stored;
  node_.behind_ = "joining the cluster";  // the table is another one
  node_.catch_up(now);
  return {};
}

// Also while containers are attached: nothing that they have depends on it.
Status ClusterPart::take_loose_terms(const ClusterTerms& terms, TimePoint now) {
  CHECK_OK(node_.persist({loose_terms(terms)}));
  terms_ = terms;
  node_.world_.settings = overlay(std::move(node_.world_.settings));
  node_.bring_in_force(node_.compiler_.rebuild(node_.world_), now);
  return {};
}

policy::Settings ClusterPart::overlay(policy::Settings settings) const {
  return terms_ ? with_terms(std::move(settings), *terms_) : std::move(settings);
}

}  // namespace meshd
