// Which address, link name and MAC an attachment gets, and which connections a change of
// elements leaves translated wrongly. Pure.
//
// Invariant: one index serves both families, the link's name and the MAC, so that an
//            attachment can be told from any of them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "meshd/kernel.h"
#include "policy/types.h"

namespace meshd {

// Numbers an attachment can have: 1 to pool_size() - 1.
[[nodiscard]] std::uint64_t pool_size(const policy::Settings& settings);
[[nodiscard]] std::uint64_t index_of(const policy::Settings& settings,
                                     const policy::Attachment& attachment);

// The first free index after `last`, so that an address rests as long as the pool allows.
// Fills in addresses, host_ifname and mac.
[[nodiscard]] Result<policy::Attachment> allocate(const policy::World& world,
                                                  const policy::Quarantine& resting,
                                                  std::uint64_t last);

// Adds to `erase` what the removed elements translated and nothing planned still does.
// `planned` says whether an element is part of the plan; a draining endpoint keeps its
// open connections.
void note_translations(const policy::World& world, const policy::Delta& delta,
                       const std::function<bool(const policy::Element&)>& planned,
                       EraseRequest& erase);

}  // namespace meshd
