// From policy's rule model to netlink's expressions and elements, and elements back.
//
// Invariants: a field of one IP version is loaded only after the packet's version was
//             compared, a field of one transport protocol after that was: in an inet
//             table the kernel would otherwise read IPv4 offsets out of IPv6 packets.
//             The byte code is the one nft 1.0.6 makes of policy::render_rule().
// Errors:     of put_delta(): those of NftBatch; kInternal for an element that is not
//             well formed.
#pragma once

#include <optional>

#include "base/result.h"
#include "netlink/nft_batch.h"
#include "netlink/nft_expr.h"
#include "netlink/nft_spec.h"
#include "policy/rule.h"
#include "policy/ruleset.h"

namespace meshd {

[[nodiscard]] netlink::Exprs lower_rule(const policy::Rule& rule);
[[nodiscard]] netlink::ChainSpec lower_chain(const policy::Chain& chain);
[[nodiscard]] netlink::KeyType lower_component(policy::Component component);
[[nodiscard]] const netlink::SetSpec& lower_set(policy::SetId set);
[[nodiscard]] netlink::SetSpec lower_set(const policy::DynamicSet& set);

// Removals first, so that a map's element can get other data in one transaction.
[[nodiscard]] Status put_delta(netlink::NftBatch& batch, const policy::Delta& delta);

// Absent when it has not the lengths of that set: it cannot be one of ours.
[[nodiscard]] std::optional<policy::Element> raise_element(policy::SetId set,
                                                           const netlink::ElementView& element);
// By the set's name.
[[nodiscard]] std::optional<policy::SetId> raise_set(std::string_view name);

}  // namespace meshd
