// Reads one inet table back from the kernel, as the values it was written with.
//
// Threads:    not thread-safe; the socket's owner.
// Invariants: read() is of one generation of the ruleset: when anything changed meanwhile
//             it is repeated. Rules stand in their chain's order; sets, chains and counters
//             are sorted by name, intervals by key, elements of other sets not at all.
// Errors:     kNotFound: there is no such table. kSystem with EAGAIN: the ruleset changed
//             kMaxAttempts times while it was read. kInternal: the kernel's answer cannot
//             be understood, or is beyond a limit below.
// Source:     linux/netfilter/nf_tables.h. Set-element dumps do not tell of interruption
//             (kernel 6.18, seen), so the generation is asked for before and after.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "netlink/nft_expr.h"
#include "netlink/nft_spec.h"
#include "netlink/socket.h"

namespace meshd::netlink {

// Elements of one set, kept in one piece of memory (100,000 of them are usual).
class ElementList {
 public:
  // Our largest sets hold 196,608; foreign processes may have put more in.
  static constexpr std::size_t kMaxElements = 4'000'000;

  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] bool empty() const { return entries_.empty(); }
  [[nodiscard]] ElementView operator[](std::size_t index) const;

  // Lengths are at most kMaxKeyBytes; false when the list is full.
  bool add(const ElementView& element, bool interval_end = false);
  // Sorts by key. In interval sets every element then has a key_end; start and end elements
  // of a single component are joined.
  // Returns how many half intervals were dropped: we do not make any.
  std::size_t finish(const SetSpec& set);

 private:
  struct Entry {
    std::uint32_t offset = 0;
    std::uint8_t key = 0, end = 0, data = 0;
    bool interval_end = false;
    std::uint32_t timeout_ms = 0;
    std::uint64_t packets = 0, bytes = 0;
  };
  std::size_t join_intervals();

  std::vector<std::uint8_t> bytes_;
  std::vector<Entry> entries_;
};

struct ChainDump {
  ChainSpec spec;
  std::uint64_t handle = 0;
};

struct RuleDump {
  std::string chain;
  std::uint64_t handle = 0;
  Exprs exprs;
  std::string comment;
  std::uint64_t packets = 0, bytes = 0;  // of the rule's own counter, if it has one
};

struct SetDump {
  SetSpec spec;
  ElementList elements;
  std::size_t damaged = 0;  // half intervals that are not in `elements`
};

struct CounterDump {
  std::string name;
  std::uint64_t packets = 0, bytes = 0;
};

struct NftDump {
  static constexpr int kMaxAttempts = 8;

  std::string table;
  std::uint32_t flags = 0;
  std::uint32_t owner = 0;  // port id of the owning socket; 0: none
  std::uint32_t generation = 0;
  std::vector<ChainDump> chains;
  std::vector<RuleDump> rules;  // chain by chain, in order
  std::vector<SetDump> sets;    // without the anonymous ones: they stand in the rules
  std::vector<CounterDump> counters;
  // Objects of kinds that this folder does not write: "flowtable f", "quota q".
  std::vector<std::string> foreign;

  [[nodiscard]] static Result<NftDump> read(Socket& socket, std::string_view table);
  [[nodiscard]] const SetDump* find_set(std::string_view name) const;
};

// Elements of one set with their counters; one walk, not tied to a generation.
[[nodiscard]] Result<ElementList> read_elements(Socket& socket, std::string_view table,
                                                const SetSpec& set);
[[nodiscard]] Result<std::vector<CounterDump>> read_counters(Socket& socket,
                                                             std::string_view table);
// Names of the inet tables of this namespace.
[[nodiscard]] Result<std::vector<std::string>> list_tables(Socket& socket);
// The number of the ruleset's generation in this network namespace.
[[nodiscard]] Result<std::uint32_t> read_generation(Socket& socket);
// A chain of this namespace, whoever made it: for reports on neighbours.
struct NamedChain {
  TableFamily family{};
  std::string table;
  ChainSpec spec;
};
[[nodiscard]] Result<std::vector<NamedChain>> list_chains(Socket& socket);
// The rules of one chain, in order; none where there is no such chain.
[[nodiscard]] Result<std::vector<RuleDump>> read_rules(Socket& socket, const NamedChain& chain);

}  // namespace meshd::netlink
