// Sets of prefixes (and ports) that several containers share: whom a publication admits,
// where a container may go. Each becomes a profile, a number that stands for its content,
// so that equal ones are kept in the kernel once.
//
// Invariant: a number stands for one content at a time: two contents whose hashes meet get
//            different numbers. The intervals of one profile are disjoint, since the kernel
//            refuses overlapping ones.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "policy/ruleset.h"
#include "policy/types.h"

namespace meshd::policy {

// Without those that another one contains; sorted.
[[nodiscard]] std::vector<Prefix> normalise(std::vector<Prefix> prefixes);

// Whom a publication admits: its own list, or what the settings say.
[[nodiscard]] std::vector<Prefix> sources_of(const Settings& settings,
                                             const Publication& publication);
// Whom the node lets in to it: the gateways too, who judge its sources before.
[[nodiscard]] std::vector<Prefix> admitted_to(const World& world, const Publication& publication);
[[nodiscard]] std::vector<IpAddress> gateway_addresses(const World& world);
// What is published of a workload: what it declares, then what was opened on demand beside that.
[[nodiscard]] std::vector<Publication> publications_of(const Workload& workload);

// A prefix with ports of one protocol. Protocols by IANA number, ICMP among them.
struct EgressPiece {
  Prefix prefix;
  std::uint8_t proto = 0;
  std::uint16_t first = 0, last = 0;
  auto operator<=>(const EgressPiece&) const = default;
};
// Disjoint: a prefix inside another one keeps only the ports that the other lacks.
[[nodiscard]] std::vector<EgressPiece> normalise(const std::vector<EgressRule>& rules);

// What an entry of a declaration counts apart: each of its ranges of ports, or TCP, UDP and
// ping where it names none.
[[nodiscard]] std::vector<EgressPiece> rows_of(const EgressRule& rule);
// A number for the row's content, the same on every machine and in every version: elements,
// and with them counts, outlive a restart and a change of other rows. In the rare case that
// the numbers of two rows meet, a container that has both sees their sum in each.
[[nodiscard]] std::uint32_t row_number(const EgressPiece& row);

// A part of a profile and the row that counts it. What several rows cover is the row's with
// the widest prefix, and of those with the same the one whose ports begin first.
struct CountedPiece {
  EgressPiece piece;
  std::uint32_t row = 0;
  auto operator<=>(const CountedPiece&) const = default;
};
// Disjoint; together what normalise() says.
[[nodiscard]] std::vector<CountedPiece> pieces_by_row(const std::vector<EgressRule>& rules);

// The elements that count, of one container's row or publication.
[[nodiscard]] Element egress_count(const IpAddress& container, std::uint32_t row);
[[nodiscard]] Element publication_count(const IpAddress& container, Proto proto,
                                        std::uint16_t port);

class Profiles {
 public:
  // The number for this content, counted once more. Never 0.
  [[nodiscard]] std::uint32_t acquire(const std::string& content);
  void release(std::uint32_t number);

 private:
  struct Entry {
    std::string content;
    std::size_t users;
  };
  std::map<std::uint32_t, Entry> by_number_;
};

// Text that is equal for equal contents only.
[[nodiscard]] std::string content_of(const std::vector<Prefix>& sources);
[[nodiscard]] std::string content_of(const std::vector<CountedPiece>& pieces);

}  // namespace meshd::policy
