// From the kernel's nf_tables messages to values: bytes in, objects out. No socket, no
// privilege; whatever the bytes are, nothing is read beyond them.
//
// Invariants: what cannot be expressed in our values is never taken for something that can:
//             it becomes an UnknownExpr or a line in `foreign`.
// Units:      `payload` is a message without its netlink header of 16 bytes.
// Source:     linux/netfilter/nf_tables.h. Not libnftnl's parsers: on an attribute they do
//             not know they end the process (libnftnl 1.2.4, abi_breakage()).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "netlink/attributes.h"
#include "netlink/nft_dump.h"

namespace meshd::netlink {

// Limits of what one dump may bring: far above what anybody has, so that a broken answer
// cannot fill the memory.
inline constexpr std::size_t kMaxDumpedRules = 65'536;
inline constexpr std::size_t kMaxDumpedSets = 16'384;

struct TableInfo {
  std::uint8_t family = 0;
  std::string name;
  std::uint32_t flags = 0;
  std::uint32_t owner = 0;
};
[[nodiscard]] std::optional<TableInfo> decode_nft_table(AttributeBytes payload);

struct ChainInfo {
  std::uint8_t family = 0;
  std::string table;
  ChainDump chain;
  std::string foreign;  // what of it cannot be expressed; empty: nothing
};
[[nodiscard]] std::optional<ChainInfo> decode_nft_chain(AttributeBytes payload);

struct RuleInfo {
  std::uint8_t family = 0;
  std::string table;
  RuleDump rule;
};
[[nodiscard]] std::optional<RuleInfo> decode_nft_rule(AttributeBytes payload);

struct SetInfo {
  std::uint8_t family = 0;
  std::string table;
  SetSpec spec;
  bool anonymous = false;
  bool verdicts = false;  // a verdict map
  std::string foreign;
};
[[nodiscard]] std::optional<SetInfo> decode_nft_set(AttributeBytes payload);

// Appends the elements of one message; false when the list is full.
[[nodiscard]] bool decode_nft_elements(AttributeBytes payload, ElementList& elements);

struct ObjectInfo {
  std::uint8_t family = 0;
  std::string table;
  bool counter = false;  // else only the name is filled in
  CounterDump values;
};
[[nodiscard]] std::optional<ObjectInfo> decode_nft_object(AttributeBytes payload);

// NFT_MSG_NEWGEN.
struct GenerationInfo {
  std::uint32_t id = 0, pid = 0;
  std::string process;
};
[[nodiscard]] std::optional<GenerationInfo> decode_nft_generation(AttributeBytes payload);

// One NFTA_LIST_ELEM of a rule's expressions. `counter` gets the values of a Counter.
[[nodiscard]] Expr decode_nft_expr(AttributeBytes element, CounterDump& counter);

}  // namespace meshd::netlink
