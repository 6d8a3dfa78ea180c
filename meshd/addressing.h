// Which address, link name and MAC an attachment gets, and which connections a change of
// elements leaves translated wrongly. Pure.
//
// Invariant: one index serves both families, the link's name and the MAC, so that an
//            attachment can be told from any of them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "meshd/kernel.h"
#include "policy/types.h"

namespace meshd {

// Numbers an attachment can have: 1 to pool_size() - 1, in this node's share of the pools.
[[nodiscard]] std::uint64_t pool_size(const policy::Settings& settings);
[[nodiscard]] std::uint64_t index_of(const policy::Settings& settings,
                                     const policy::Attachment& attachment);

// The first free index after `last`, so that an address rests as long as the pool allows.
// Fills in addresses, host_ifname and mac.
[[nodiscard]] Result<policy::Attachment> allocate(const policy::World& world,
                                                  const policy::Quarantine& resting,
                                                  std::uint64_t last);

// What an element of a VIP map translates; nothing for elements of other sets.
[[nodiscard]] std::optional<EraseRequest::Translation> vip_slot(const policy::Element& element);

// Adds to `erase` what the removed elements translated and is wrong now: a publication's that
// is not `planned` any more, a VIP's to a workload that is not that service on that port any
// more. Who merely drains, or is not seen ready, keeps its open connections, but none that it has
// not answered: what is sent again is for those who are ready.
void note_translations(const policy::World& world, const policy::Delta& delta,
                       const std::function<bool(const policy::Element&)>& planned,
                       EraseRequest& erase);

// At a start: which entries of connection tracking are of a time that is over. They touch an
// address of our pools that nobody has, or translate to what is neither `planned` nor the
// service any more. A process that died between rules and erasing left them.
[[nodiscard]] std::function<bool(const policy::LiveConnection&)> outlived(
    const policy::World& world, const std::vector<policy::Element>& planned);

}  // namespace meshd
