// `meshd --purge`: works from any state, goes on after a failure and reports all of them.
#include <fmt/format.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "meshd/daemon.h"
#include "meshd/firewalls.h"
#include "meshd/pools.h"

namespace meshd {
namespace {

class Failures {
 public:
  void note(const Status& status) {
    if (status) return;
    if (!text_.empty()) text_ += "; ";
    text_ += status.error().what;
  }
  [[nodiscard]] Status status() const {
    if (text_.empty()) return {};
    return fail(ErrorCode::kSystem, "purge: " + text_);
  }

 private:
  std::string text_;
};

// None where there is no file: a purge makes nothing.
Result<std::optional<Store>> open_store(const std::string& state_dir) {
  if (access((state_dir + "/meshd.db").c_str(), F_OK) != 0) return std::nullopt;
  return std::optional(TRY(Store::open(state_dir)));
}

// The namespaces live on, but nobody is attached now.
Status forget(Store& store, const StoredState& stored) {
  std::vector<StoreChange> changes;
  for (const auto& [id, workload] : stored.workloads) {
    if (workload.attachment) changes.emplace_back(DropAttachment{id});
  }
  for (const auto& [key, value] : stored.sysctls) changes.emplace_back(DropSysctl{key});
  if (changes.empty()) return {};
  return store.apply(changes, stored.generation + 1);
}

}  // namespace

Status purge(const Config& config) {
  const auto lock = TRY(RunLock::take(config.run_dir));
  Failures failures;
  std::vector<OldSysctl> before;
  std::vector<IpAddress> resolvers{resolver4(0), resolver4(1)};
  StoredState stored;
  auto store = open_store(config.state_dir);
  // Held by a daemon that another namespace or run_dir hides: what is removed under it, it
  // would put back.
  if (!store && store.error().code == ErrorCode::kConflict) {
    return std::unexpected(std::move(store).error());
  }
  if (!store) failures.note(std::unexpected(store.error()));
  const bool open = store && *store;
  bool is_known = store.has_value();
  if (open) {
    for (const int number : {0, 1}) resolvers.push_back(resolver6((*store)->ula(), number));
    auto loaded = (*store)->load();
    if (loaded) {
      stored = *std::move(loaded);
    } else {
      failures.note(std::unexpected(loaded.error()));
      is_known = false;
    }
  }
  for (const auto& [key, value] : stored.sysctls) before.push_back({key, value});
  for (const auto& [id, workload] : stored.workloads) {
    if (!workload.attachment || workload.attachment->default_route) continue;
    // A container that is gone took its rules with it.
    [[maybe_unused]] const auto cleaned = Topology::clean_container(*workload.attachment);
  }
  // Links first: without them nothing depends on the table any more.
  const auto topology = Topology::purge(resolvers);
  failures.note(topology);
  const auto sysctls = Topology::restore(before);
  failures.note(sysctls);
  // Not while a link may be left, nor while the node may forward: where that could not be switched
  // off again, or where nobody knows any more what was.
  if (topology && sysctls && is_known) {
    failures.note(LinuxKernel::purge_table());
  } else {
    failures.note(fail(ErrorCode::kSystem,
                       "the table inet meshd stays: without it more might pass than is declared"));
  }
  failures.note(Firewalls::purge());
  // What could not be undone is not forgotten: the next purge tries again.
  if (open && topology && sysctls) failures.note(forget(**store, stored));
  return failures.status();
}

}  // namespace meshd
