#include "policy/changing_rules.h"

#include <utility>

#include "policy/rule_words.h"

namespace meshd::policy::words {
namespace {

const CtState kNew{kCtNew};
const Count kHeld{"c_held"};

}  // namespace

std::vector<Rule> overtaken(const Settings& settings) {
  std::vector<Rule> rules;
  // It passed once, was not answered, and is sent again to a replica that is gone since, or
  // drains: the cut has not reached connection tracking yet.
  rules.push_back({kFromMesh, kNew, CtTranslated{}, CtConfirmed{}, kHeld, drop()});
  for (const V& v : kBoth) {
    // Translated before its service's last replica went, judged after.
    const Field vip = v.family == Family::kV4 ? kCtOriginal4Dest : kCtOriginal6Dest;
    for (const auto& [port, set] :
         {std::pair(kDestPort, SetId::kHold4), std::pair(kDestBlock, SetId::kHold4Block)}) {
      rules.push_back({kFromMesh, kNew, CtTranslated{},
                       in({v.source, vip, kL4proto, port}, v.name(set)), kHeld, drop()});
    }
    // From another node, to a container that drains, or that left while the packet was between two
    // hooks. That node has not heard of it, else it had refused: see targets_elsewhere().
    if (settings.in_cluster) {
      const auto from_elsewhere = in({v.source}, v.name(SetId::kRemote4));
      rules.push_back({from_elsewhere, kNew, in({v.dest}, v.name(SetId::kDrain4)), kHeld, drop()});
      rules.push_back({from_elsewhere, kNew, in({v.dest}, v.name(SetId::kMesh4)),
                       not_in(v.dest, v.name(SetId::kLocal4)), kHeld, drop()});
    }
  }
  return rules;
}

}  // namespace meshd::policy::words
