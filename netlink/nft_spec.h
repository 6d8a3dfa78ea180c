// What the kernel is told of a set, a chain or an element: plain values, the same for
// writing (nft_batch.h) and reading back (nft_dump.h), so that both sides compare by ==.
//
// Invariants: in a concatenation (more than one component) every component is padded with
//             zeros to 4 bytes; a single component is not padded. Names are 1 to
//             kMaxNameBytes of [A-Za-z0-9_-./].
// Units:      key and data bytes as the kernel keeps them: addresses and ports in network
//             order, marks, uids and indexes in host order.
// Source:     linux/netfilter/nf_tables.h; type numbers and user data as nft 1.0.6 writes them.
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace meshd::netlink {

using Bytes = std::vector<std::uint8_t>;
using ByteSpan = std::span<const std::uint8_t>;

// NFT_NAME_MAXLEN is 256 with the NUL; ours are short, and errors quote them.
inline constexpr std::size_t kMaxNameBytes = 128;
// NFT_DATA_VALUE_MAXLEN: the registers hold no more.
inline constexpr std::size_t kMaxKeyBytes = 64;
// nft packs the type numbers into 32 bits, six each, so it cannot show more of them.
inline constexpr std::size_t kMaxComponents = 5;

// The data types of nft; the values are nft's own numbers, which travel in the set's key
// type so that `nft list` can print it.
enum class KeyType : std::uint8_t {
  kVerdict = 1,  // as map data only
  kNfproto = 2,
  kIpv4 = 7,
  kIpv6 = 8,
  kEther = 9,
  kEtherType = 10,
  kProto = 12,
  kPort = 13,
  kIcmpType = 14,
  kMark = 19,
  kIfindex = 20,
  kUid = 24,
  kCtState = 26,
  kIcmp6Type = 29,
  kPkttype = 31,
  kDevgroup = 35,
  kIfname = 41,
};
// Bytes of one component, unpadded.
[[nodiscard]] std::size_t type_length(KeyType type);
[[nodiscard]] bool is_host_order(KeyType type);
// Bytes of a whole key: padded per component when there is more than one.
[[nodiscard]] std::size_t key_length(std::span<const KeyType> types);
// "10.0.0.1 . 10.0.0.2 . 6 . 5432"; hexadecimal where the length does not fit the types.
[[nodiscard]] std::string key_text(ByteSpan key, std::span<const KeyType> types);

struct SetSpec {
  std::string name = {};
  std::vector<KeyType> key = {};
  std::vector<KeyType> data = {};  // empty: a set, not a map
  std::uint32_t size = 0;          // elements at most (a hard cap in the kernel); 0: no limit
  bool interval = false;           // elements may have a key_end
  bool dynamic = false;            // filled by rules (Dynset)
  bool has_timeout = false;
  std::chrono::milliseconds timeout{0};  // default of each element; needs has_timeout
  bool counter = false;                  // each element counts packets and bytes
  // Intervals of several components are kept by another set type in the kernel, which
  // takes a key and a last key; of one component, a start and an end element.
  [[nodiscard]] bool is_concat_interval() const { return interval && key.size() > 1; }
  bool operator==(const SetSpec&) const = default;
};
[[nodiscard]] Status check_set(const SetSpec& set);
[[nodiscard]] Status check_name(std::string_view kind, std::string_view name);

// One element, borrowed: the spans must outlive the call that takes it.
struct ElementView {
  ByteSpan key = {};
  ByteSpan key_end = {};                 // last key of an interval, inclusive; empty: the key alone
  ByteSpan data = {};                    // a map's value; empty in a set
  std::chrono::milliseconds timeout{0};  // 0: the set's default
  std::uint64_t packets = 0, bytes = 0;  // read only
};

// Of a table. iptables keeps its rules in tables of `ip`, ip6tables in those of `ip6`.
enum class TableFamily : std::uint8_t { kInet, kIp, kIp6 };
[[nodiscard]] std::string_view family_name(TableFamily family);

enum class Hook : std::uint8_t { kPrerouting, kInput, kForward, kOutput, kPostrouting };
enum class ChainType : std::uint8_t { kFilter, kNat, kRoute };
enum class Policy : std::uint8_t { kDrop, kAccept };

struct BaseChain {
  ChainType type = ChainType::kFilter;
  Hook hook = Hook::kInput;
  std::int32_t priority = 0;
  Policy policy = Policy::kAccept;
  auto operator<=>(const BaseChain&) const = default;
};

struct ChainSpec {
  std::string name = {};
  std::optional<BaseChain> base = {};  // absent: a chain that rules jump to
  auto operator<=>(const ChainSpec&) const = default;
};

// Table flags.
inline constexpr std::uint32_t kTableDormant = 0x1;
// Only the socket that made the table may change it; it goes when that socket closes.
inline constexpr std::uint32_t kTableOwner = 0x2;
// With kTableOwner, kernel 6.9: the table stays, and may be claimed again by put_table.
inline constexpr std::uint32_t kTablePersist = 0x4;

}  // namespace meshd::netlink
