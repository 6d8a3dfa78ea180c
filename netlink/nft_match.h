// The half of the rule expressions that load values into registers and compare them. See
// nft_expr.h, which is what users include.
//
// Units:  constants are bytes as the register holds them: network order for packet fields,
//         host order for marks, uids, groups and indexes (see host_bytes()).
// Source: linux/netfilter/nf_tables.h; libnftnl 1.2.4.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "netlink/nft_spec.h"

namespace meshd::netlink {

// One of the 16 registers of 4 bytes; a longer value runs on into the following ones, so
// the components of a concatenation are loaded into neighbouring registers.
struct Reg {
  std::uint8_t index = 0;  // 0..15
  auto operator<=>(const Reg&) const = default;
};

enum class MetaKey : std::uint8_t {
  kProtocol,
  kNfproto,
  kL4proto,
  kMark,
  kIif,
  kOif,
  kIifname,
  kOifname,
  kIiftype,  // ARPHRD_ number, 2 bytes, host order; nft wants it before a link-layer field
  kIifgroup,
  kOifgroup,
  kPkttype,
  kSkuid,
  kSkgid,
  kLength,
};
struct MetaLoad {
  MetaKey key{};
  Reg to = {};
  auto operator<=>(const MetaLoad&) const = default;
};
struct MetaSet {
  MetaKey key{};
  Reg from = {};
  auto operator<=>(const MetaSet&) const = default;
};

enum class PayloadBase : std::uint8_t { kLink, kNetwork, kTransport };
struct PayloadLoad {
  PayloadBase base{};
  std::uint32_t offset = 0, length = 0;
  Reg to = {};
  auto operator<=>(const PayloadLoad&) const = default;
};
// An IPv6 extension header: a field of it, or (present) one byte, 1 when it is there.
struct ExthdrLoad {
  std::uint8_t header = 0;  // IANA protocol number; 44: fragment
  std::uint32_t offset = 0, length = 1;
  bool present = false;
  Reg to = {};
  auto operator<=>(const ExthdrLoad&) const = default;
};
// The largest TCP segment that the packet's way carries, and the way back; host order.
struct SegmentLoad {
  Reg to = {};
  auto operator<=>(const SegmentLoad&) const = default;
};
// Writes into an option of the TCP header, where that is there. The kernel makes a maximum
// segment size only smaller.
struct TcpOptionStore {
  std::uint8_t option = 0;  // IANA's kind
  std::uint32_t offset = 0, length = 1;
  Reg from = {};
  auto operator<=>(const TcpOptionStore&) const = default;
};
enum class CtKey : std::uint8_t {
  kState,
  kDirection,
  kStatus,
  kMark,
  kOriginalDest4,  // what the first packet was addressed to; no match in the other IP version
  kOriginalDest6
};
struct CtLoad {
  CtKey key{};
  Reg to = {};
  auto operator<=>(const CtLoad&) const = default;
};
// A number in [offset, offset + modulus), new for each packet; host order.
struct NumgenRandom {
  Reg to = {};
  std::uint32_t modulus = 1, offset = 0;
  auto operator<=>(const NumgenRandom&) const = default;
};

enum class CompareOp : std::uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual
};
struct Compare {
  Reg from = {};
  CompareOp op{};
  Bytes value = {};
  auto operator<=>(const Compare&) const = default;
};
struct Range {
  Reg from = {};
  bool inverted = false;
  Bytes first = {}, last = {};  // inclusive; compared as big-endian numbers
  auto operator<=>(const Range&) const = default;
};
struct Bitwise {  // to = (from & mask) ^ flip
  Reg from = {}, to = {};
  Bytes mask = {}, flip = {};  // of one length
  auto operator<=>(const Bitwise&) const = default;
};
struct Byteorder {  // converts `length` bytes in units of `unit` (2, 4 or 8)
  Reg from = {}, to = {};
  bool to_network = true;
  std::uint32_t length = 4, unit = 4;
  auto operator<=>(const Byteorder&) const = default;
};
// Goes on when the key at `from` is (inverted: is not) in the named set; with `to`, the
// map's value is put there; a verdict map acts at once.
struct Lookup {
  std::string set = {};
  Reg from = {};
  std::optional<Reg> to = {};
  bool verdict = false;
  bool inverted = false;
  auto operator<=>(const Lookup&) const = default;
};
// The same with the keys written in the rule: `{ tcp, udp }`. Of one or more components.
struct InSet {
  Reg from = {};
  std::vector<KeyType> types = {};
  std::vector<Bytes> keys = {};  // sorted and unique
  bool inverted = false;
  auto operator<=>(const InSet&) const = default;
};

}  // namespace meshd::netlink
