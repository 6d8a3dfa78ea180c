// CLUSTER names that nobody declares, and since when: such a name stays its owner's, but
// not for ever where the configuration says so. Pure.
//
// Units: seconds since 1970. It is counted in days, and so over reboots.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "meshd/store.h"
#include "policy/allocate.h"
#include "policy/types.h"

namespace meshd {

using IdleNames = std::map<std::string, std::int64_t>;

// What `outcome`, which is not adopted yet, changes in `idle`.
[[nodiscard]] std::vector<StoreChange> idle_changes(const policy::World& before,
                                                    const policy::Outcome& outcome,
                                                    const IdleNames& idle, std::int64_t now_s);
// What makes `idle` agree with the world: after an upgrade from a store without it.
[[nodiscard]] std::vector<StoreChange> missing_idle(const policy::World& world,
                                                    const IdleNames& idle, std::int64_t now_s);
// Keeps `idle` in step with what was stored.
void note_idle(IdleNames& idle, const std::vector<StoreChange>& stored);

// When the name that is idle longest has been so for `limit`.
[[nodiscard]] std::optional<std::int64_t> next_idle_end(const IdleNames& idle,
                                                        std::chrono::days limit);
[[nodiscard]] std::vector<std::string> idle_for(const IdleNames& idle, std::chrono::days limit,
                                                std::int64_t now_s);

}  // namespace meshd
