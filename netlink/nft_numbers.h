// The kernel's numbers for the enumerators of nft_expr.h, as tables that the writer
// (nft_expr.cc) and the reader (nft_decode.cc) share. For .cc files only: it includes the
// kernel's headers.
//
// Source: linux/netfilter/nf_tables.h.
#pragma once

// clang-format off: the kernel's linux/in.h gives way only when netinet/in.h came first.
#include <netinet/in.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
// clang-format on

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "netlink/nft_expr.h"

namespace meshd::netlink {

template <class E, std::size_t N>
using NumberTable = std::array<std::pair<E, std::uint32_t>, N>;

inline constexpr NumberTable<TableFamily, 3> kTableFamilies = {{
    {TableFamily::kInet, NFPROTO_INET},
    {TableFamily::kIp, NFPROTO_IPV4},
    {TableFamily::kIp6, NFPROTO_IPV6},
}};
inline constexpr NumberTable<MetaKey, 15> kMetaKeys = {{
    {MetaKey::kProtocol, NFT_META_PROTOCOL},
    {MetaKey::kNfproto, NFT_META_NFPROTO},
    {MetaKey::kL4proto, NFT_META_L4PROTO},
    {MetaKey::kMark, NFT_META_MARK},
    {MetaKey::kIif, NFT_META_IIF},
    {MetaKey::kOif, NFT_META_OIF},
    {MetaKey::kIifname, NFT_META_IIFNAME},
    {MetaKey::kOifname, NFT_META_OIFNAME},
    {MetaKey::kIiftype, NFT_META_IIFTYPE},
    {MetaKey::kIifgroup, NFT_META_IIFGROUP},
    {MetaKey::kOifgroup, NFT_META_OIFGROUP},
    {MetaKey::kPkttype, NFT_META_PKTTYPE},
    {MetaKey::kSkuid, NFT_META_SKUID},
    {MetaKey::kSkgid, NFT_META_SKGID},
    {MetaKey::kLength, NFT_META_LEN},
}};
inline constexpr NumberTable<PayloadBase, 3> kPayloadBases = {{
    {PayloadBase::kLink, NFT_PAYLOAD_LL_HEADER},
    {PayloadBase::kNetwork, NFT_PAYLOAD_NETWORK_HEADER},
    {PayloadBase::kTransport, NFT_PAYLOAD_TRANSPORT_HEADER},
}};
inline constexpr NumberTable<CtKey, 6> kCtKeys = {{
    {CtKey::kState, NFT_CT_STATE},
    {CtKey::kDirection, NFT_CT_DIRECTION},
    {CtKey::kStatus, NFT_CT_STATUS},
    {CtKey::kMark, NFT_CT_MARK},
    {CtKey::kOriginalDest4, NFT_CT_DST_IP},
    {CtKey::kOriginalDest6, NFT_CT_DST_IP6},
}};
// Keys that the kernel reads of one direction. Ours name the original one, IP_CT_DIR_ORIGINAL.
inline constexpr std::uint8_t kOriginalDirection = 0;
constexpr bool of_original(CtKey key) {
  return key == CtKey::kOriginalDest4 || key == CtKey::kOriginalDest6;
}
inline constexpr NumberTable<CompareOp, 6> kCompareOps = {{
    {CompareOp::kEqual, NFT_CMP_EQ},
    {CompareOp::kNotEqual, NFT_CMP_NEQ},
    {CompareOp::kLess, NFT_CMP_LT},
    {CompareOp::kLessEqual, NFT_CMP_LTE},
    {CompareOp::kGreater, NFT_CMP_GT},
    {CompareOp::kGreaterEqual, NFT_CMP_GTE},
}};
inline constexpr NumberTable<VerdictKind, 6> kVerdicts = {{
    {VerdictKind::kAccept, NF_ACCEPT},
    {VerdictKind::kDrop, NF_DROP},
    {VerdictKind::kJump, static_cast<std::uint32_t>(NFT_JUMP)},
    {VerdictKind::kGoto, static_cast<std::uint32_t>(NFT_GOTO)},
    {VerdictKind::kReturn, static_cast<std::uint32_t>(NFT_RETURN)},
    {VerdictKind::kContinue, static_cast<std::uint32_t>(NFT_CONTINUE)},
}};
inline constexpr NumberTable<DynsetOp, 3> kDynsetOps = {{
    {DynsetOp::kAdd, NFT_DYNSET_OP_ADD},
    {DynsetOp::kUpdate, NFT_DYNSET_OP_UPDATE},
    {DynsetOp::kDelete, NFT_DYNSET_OP_DELETE},
}};
// Codes of NFT_REJECT_ICMPX_UNREACH; the reset is a type of its own.
inline constexpr NumberTable<RejectKind, 4> kRejectCodes = {{
    {RejectKind::kPortUnreachable, NFT_REJECT_ICMPX_PORT_UNREACH},
    {RejectKind::kAdminProhibited, NFT_REJECT_ICMPX_ADMIN_PROHIBITED},
    {RejectKind::kHostUnreachable, NFT_REJECT_ICMPX_HOST_UNREACH},
    {RejectKind::kNoRoute, NFT_REJECT_ICMPX_NO_ROUTE},
}};
inline constexpr NumberTable<Hook, 5> kHooks = {{
    {Hook::kPrerouting, NF_INET_PRE_ROUTING},
    {Hook::kInput, NF_INET_LOCAL_IN},
    {Hook::kForward, NF_INET_FORWARD},
    {Hook::kOutput, NF_INET_LOCAL_OUT},
    {Hook::kPostrouting, NF_INET_POST_ROUTING},
}};
inline constexpr std::array<std::pair<ChainType, const char*>, 3> kChainTypes = {{
    {ChainType::kFilter, "filter"},
    {ChainType::kNat, "nat"},
    {ChainType::kRoute, "route"},
}};

// The kernel's number of an enumerator; every enumerator stands in its table.
template <class E, std::size_t N>
constexpr std::uint32_t number_of(const NumberTable<E, N>& table, E value) {
  for (const auto& [name, number] : table) {
    if (name == value) return number;
  }
  __builtin_unreachable();
}

template <class E, std::size_t N>
constexpr std::optional<E> name_of(const NumberTable<E, N>& table, std::uint32_t number) {
  for (const auto& [name, known] : table) {
    if (known == number) return name;
  }
  return std::nullopt;
}

}  // namespace meshd::netlink
