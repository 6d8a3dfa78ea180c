// A store in memory that can be told to fail, and that several controllers can share.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "controller/store.h"

namespace meshd::controller {

// What they share.
struct Memory {
  std::map<std::pair<Kind, std::string>, std::string> objects;
  std::vector<Writes> log;  // [i]: the commit that made revision i + 1
  std::size_t kept = 1000;  // commits that can still be asked for
};

class MemoryStore final : public Store {
 public:
  explicit MemoryStore(std::shared_ptr<Memory> memory) : memory_(std::move(memory)) {}

  bool away = false;

  Result<Snapshot> load() override {
    CHECK_OK(reach());
    Snapshot snapshot;
    snapshot.revision = memory_->log.size();
    for (const auto& [key, value] : memory_->objects) {
      snapshot.objects.push_back({key.first, key.second, value});
    }
    return snapshot;
  }
  Result<std::uint64_t> commit(std::uint64_t expected, const Writes& writes) override {
    CHECK_OK(reach());
    if (expected != memory_->log.size()) return fail(ErrorCode::kConflict, "store: moved on");
    if (writes.empty()) return expected;
    for (const auto& write : writes) {
      if (write.value) {
        memory_->objects.insert_or_assign({write.kind, write.key}, *write.value);
      } else {
        memory_->objects.erase({write.kind, write.key});
      }
    }
    memory_->log.push_back(writes);
    return memory_->log.size();
  }
  Result<std::optional<Changes>> changes_since(std::uint64_t revision) override {
    CHECK_OK(reach());
    if (revision + memory_->kept < memory_->log.size()) return std::nullopt;
    Changes changes;
    changes.revision = memory_->log.size();
    for (auto at = revision; at < memory_->log.size(); ++at) {
      const auto& writes = memory_->log[at];
      changes.writes.insert(changes.writes.end(), writes.begin(), writes.end());
    }
    return changes;
  }
  int notify_fd() const override { return -1; }
  bool drain_notifications() override { return true; }
  Status backup(const std::string&) override { return {}; }

 private:
  Status reach() const {
    if (away) return fail(ErrorCode::kSystem, "store: away");
    return {};
  }
  std::shared_ptr<Memory> memory_;
};

}  // namespace meshd::controller
