// The table as nft text: for people, for golden tests, and as an independent way into the
// kernel (`nft -f`, 1.0.6) that the byte code is compared with.
//
// Invariants: equal tables and elements give equal text; sets and elements come in their
//             own order. What nft 1.0.6 has no words for (a profile in a register, a
//             random slot in a map's key) stands as a comment line in the nearest words.
#pragma once

#include <span>
#include <string>

#include "policy/rule.h"
#include "policy/ruleset.h"

namespace meshd::policy {

// Whole file: `table inet meshd { ... }`. `elements` sorted.
[[nodiscard]] std::string render(const Table& table, std::span<const Element> elements);
[[nodiscard]] std::string render_rule(const Rule& rule);
// Whether nft 1.0.6 can read render_rule(rule).
[[nodiscard]] bool nft_can_write(const Rule& rule);

// "10.213.0.5 . 10.213.0.6 . tcp . 5432"; an interval "10.0.0.0-10.0.0.255"; of a map
// "KEY : DATA". Hexadecimal when it is not well formed.
[[nodiscard]] std::string element_text(const Element& element);

}  // namespace meshd::policy
