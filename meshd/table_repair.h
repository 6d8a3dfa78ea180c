// Makes the table in the kernel equal to the one wanted: what differs is found in a dump and
// put into one batch.
//
// Invariants: nothing differs: nothing is appended. Only elements differ: only elements are
//             written. Otherwise all rules are replaced in the same transaction, while base
//             chains stay: one that is deleted and made again lets packets through for a
//             moment (measured, kernel 6.18). Counters and elements that are right are kept.
//             Only a base chain on another hook, or an object of a kind that is not ours
//             and can open the table, makes that unavoidable: somebody put it there.
// Errors:     those of NftBatch. The batch must carry the dump's generation, so that the
//             kernel refuses it when something changed in between.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "netlink/nft_batch.h"
#include "netlink/nft_dump.h"
#include "policy/rule.h"
#include "policy/ruleset.h"

namespace meshd {

// Appends to `batch` what turns `installed` (null: there is no table) into `table` with the
// elements `wanted` (sorted by set) and the table flags `flags`. Returns what differed, a line
// each; empty when and only when nothing was appended.
[[nodiscard]] Result<std::vector<std::string>> put_repair(netlink::NftBatch& batch,
                                                          const policy::Table& table,
                                                          std::span<const policy::Element> wanted,
                                                          std::uint32_t flags,
                                                          const netlink::NftDump* installed);

// For a table that is not there, before put_repair(): the table with its sets, and nothing
// that a packet meets. Returns what a dump then shows, less the elements that follow.
[[nodiscard]] Result<netlink::NftDump> put_bare_table(netlink::NftBatch& batch,
                                                      std::uint32_t flags);

}  // namespace meshd
