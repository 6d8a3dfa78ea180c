// The fields of a packet, its connection and its interfaces that our rules look at.
//
// Source: nft(8) for the names; where the bytes lie is the lowering's business.
#pragma once

#include <cstdint>
#include <string_view>

#include "policy/ruleset.h"

namespace meshd::policy {

enum class Field : std::uint8_t {
  kIif,  // index of the interface
  kIifname,
  kOifname,
  kIifgroup,  // group of the interface; no match where a hook has none
  kOifgroup,
  kPkttype,
  kNfproto,  // NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10)
  kL4proto,
  kSkuid,  // uid of the sending socket; no match without one
  kEtherSource,
  kIp4Source,
  kIp4Dest,
  kIp4HeaderWords,
  kIp4Protocol,
  kIp4Fragment,  // offset and more-fragments bit
  kIp6Source,
  kIp6Dest,
  kIp6NextHeader,
  kSourcePort,  // of TCP and UDP; other protocols have other bytes there
  kDestPort,
  kSourceBlock,  // the port's aligned block of 16
  kDestBlock,
  kIcmpType,
  kIcmpCode,
  kIcmp6Type,
  kIcmp6Code,
  // Of the packet that an ICMP error quotes, its header without options.
  kQuoted4Protocol,
  kQuoted4DestPort,
  kQuoted6NextHeader,
  kQuoted6DestPort,
  // Of a packet of the tunnel, unpacked: its network's number, and the frame inside.
  kTunnelNumber,
  kInnerEthertype,
  kInner4Source,
  kInner6Source,
  kTcpSynRst,        // of the TCP flags, these two
  kCtDirection,      // 0 original, 1 reply
  kCtOriginal4Dest,  // what its first packet was addressed to, before any translation
  kCtOriginal6Dest,
  kRandomSlot,  // new for every packet, below kSlots
};

// What a field is, beyond where its bytes lie.
struct FieldInfo {
  std::string_view text;   // as nft writes it
  Component kind;          // of its bytes in a set's key; kMark: any other number
  std::uint8_t size;       // bytes
  std::uint8_t ip;         // 4, 6; 0: either
  std::uint8_t transport;  // IANA number that it needs; 0: none
  bool host_order;
};
[[nodiscard]] const FieldInfo& field_info(Field field);

}  // namespace meshd::policy
