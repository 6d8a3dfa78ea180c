// The node's slice: what of it is believed, and what was confirmed for how long. How a change of
// it is made: slice_changeover.cc.
#include <fmt/format.h>

#include <utility>

#include "meshd/node.h"
#include "meshd/node_cluster.h"
#include "policy/truth.h"

namespace meshd {

namespace pb = mesh::v1;

// --- confirmations -------------------------------------------------------------------

void set_confirmed(policy::World& world, const std::string& consumer, const std::string& provider,
                   const std::optional<policy::Confirmation>& said) {
  auto& of_consumer = world.confirmed[consumer];
  if (said) {
    of_consumer[provider] = *said;
  } else {
    of_consumer.erase(provider);
  }
  if (of_consumer.empty()) world.confirmed.erase(consumer);
}

std::optional<policy::Confirmation> still_confirmed(const policy::World& world,
                                                    const std::string& consumer,
                                                    const std::string& provider,
                                                    const policy::Confirmation& said) {
  const auto from = world.workloads.find(consumer), to = world.workloads.find(provider);
  if (from == world.workloads.end() || !from->second.attachment) return std::nullopt;
  if (to == world.workloads.end() || !to->second.remote) return std::nullopt;
  auto kept = said;
  const auto granted = policy::granted_ranges(from->second.declaration, to->second.declaration);
  kept.ranges = policy::without(granted, policy::without(granted, said.ranges));
  if (kept.ranges.empty()) return std::nullopt;
  const auto same = [&](Family family) {
    return said.from(family) && said.to(family) &&
           said.from(family) == from->second.address(family) &&
           said.to(family) == to->second.address(family);
  };
  if (!same(Family::kV4)) kept.from4 = kept.to4 = std::nullopt;
  if (!same(Family::kV6)) kept.from6 = kept.to6 = std::nullopt;
  if (!kept.from4 && !kept.from6) return std::nullopt;
  return kept;
}

void ClusterPart::prune(Compiled& compiled) {
  const auto& ids = compiled.touched.workloads;
  const auto look = [&](const std::string& consumer, const std::string& provider,
                        const policy::Confirmation& said) {
    if (still_confirmed(node_.world_, consumer, provider, said) == said) return;
    compiled.confirmed.try_emplace({consumer, provider}, said);
  };
  for (const auto& [consumer, providers] : node_.world_.confirmed) {
    if (ids.contains(consumer)) {
      for (const auto& [provider, said] : providers) look(consumer, provider, said);
      continue;
    }
    for (const auto& id : ids) {
      const auto said = providers.find(id);
      if (said != providers.end()) look(consumer, id, said->second);
    }
  }
  for (const auto& [pair, said] : compiled.confirmed) {
    const auto& [consumer, provider] = pair;
    compiled.touched.workloads.insert(consumer);
    const auto kept = still_confirmed(node_.world_, consumer, provider, said);
    set_confirmed(node_.world_, consumer, provider, kept);
    if (kept) {
      compiled.changes.push_back(PutConfirmation{consumer, provider, *kept});
    } else {
      compiled.changes.push_back(DropConfirmation{consumer, provider});
    }
  }
}

void ClusterPart::take_back(const Compiled& compiled) {
  for (const auto& [pair, said] : compiled.confirmed) {
    set_confirmed(node_.world_, pair.first, pair.second, said);
  }
}

void ClusterPart::on_slice(const pb::SliceChange& change, TimePoint now,
                           Reply<std::uint64_t> reply) {
  node_.world_.now = now;
  const auto take_it = [&]() -> Status {
    if (!terms_ || !trouble_.empty()) {
      return fail(ErrorCode::kConflict, trouble_.empty() ? "not joined" : trouble_);
    }
    if (change.revision() <= revision_) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("revision {}: {} is here already", change.revision(), revision_));
    }
    auto update = TRY((SliceReader{*terms_, node_.world_.settings.node_name, now}.change(change)));
    if (update.snapshot) {
      if (!named_) named_.emplace();
      for (const auto& [key, value] : update.bytes) named_->insert(key);
    }
    return take(std::move(update), now);
  };
  if (auto status = take_it(); !status) {
    named_.reset();  // all of it comes again
    return reply(std::unexpected(std::move(status).error()));
  }
  node_.when_in_force(
      now, [revision = change.revision(), reply = std::move(reply)](Status status) mutable {
        if (!status) return reply(std::unexpected(std::move(status).error()));
        reply(revision);
      });
  serve_awaited(now);
}

// --- a start -------------------------------------------------------------------------

void ClusterPart::load(StoredState& stored) {
  if (!stored.cluster) return;
  terms_ = stored.cluster->terms;
  revision_ = stored.cluster->revision;
  slice_ = std::move(stored.slice);
  auto& world = node_.world_;
  for (const auto& [id, workload] : world.workloads) own_.insert(id);
  SliceUpdate read;
  for (const auto& [key, value] : SliceBytes(slice_)) {
    const SliceReader reader{*terms_, world.settings.node_name, world.now};
    if (reader.item(key, value, read)) continue;
    // A later meshd wrote it: the controller sends all of it again, and until then it means
    // nothing.
    slice_.erase(key);
    revision_ = 0;
  }
  for (auto& [id, workload] : read.others) {
    if (!own_.contains(id)) world.workloads.emplace(id, std::move(workload));
  }
  for (auto& [id, workload] : read.own) {
    if (!own_.contains(id)) continue;
    world.workloads.find(id)->second.opened = std::move(workload.opened);
    world.workloads.find(id)->second.drained = workload.drained;
  }
  world.nodes = std::move(read.nodes);
  world.outside = std::move(read.outside);
  world.confirmed = std::move(stored.confirmed);
  // After a reboot nobody is attached.
  Compiled all;
  for (const auto& [id, workload] : world.workloads) all.touched.workloads.insert(id);
  for (const auto& [consumer, providers] : world.confirmed) all.touched.workloads.insert(consumer);
  prune(all);
  if (!all.changes.empty()) node_.note_store(node_.store_.amend(all.changes));
}

}  // namespace meshd
