// Connection tracking: counts, lists and erases entries, in one walk over the table
// whatever the number of conditions.
//
// Threads:    not thread-safe; one owner. Works on the namespace it was opened in.
// Invariants: a delete always carries the entry's tuple and id. (Without a tuple the kernel
//             would flush the table; with the id it spares a newer entry of equal tuple.)
// Errors:     kSystem with the errno. An entry that is gone meanwhile is no error.
// Units:      ports and marks in host order.
// Source:     linux/netfilter/nfnetlink_conntrack.h. No CTA_FILTER on deletes: kernels
//             before 6.12 do not know it there, and what they do with it is not known.
//             Nine tenths of a walk are the kernel's writing of entries: 0.22 s of its time
//             for 200,000, against 0.02 s of ours (kernel 6.18, measured).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "netlink/channel.h"

namespace meshd::netlink {

struct ConntrackTuple {
  IpAddress source, destination;
  std::uint16_t source_port = 0, destination_port = 0;  // 0 where the protocol has none
  auto operator<=>(const ConntrackTuple&) const = default;
};

struct ConntrackEntry {
  std::uint8_t proto = 0;  // IANA number
  ConntrackTuple original;
  ConntrackTuple reply;
  std::uint32_t status = 0;    // IPS_ bits
  std::uint8_t tcp_state = 0;  // TCP_CONNTRACK_; 0 of other protocols
  std::uint32_t mark = 0;
  std::uint32_t id = 0;
  std::uint16_t zone = 0;
};

// Entries that translate what a client addressed to an endpoint.
struct Translation {
  Proto proto = Proto::kTcp;
  IpAddress from;                               // destination of the original direction
  std::uint16_t first_port = 0, last_port = 0;  // its port lies in this range
  IpAddress to;                                 // source of the reply direction
  bool only_unanswered = false;                 // nothing has come back yet
  auto operator<=>(const Translation&) const = default;
};

struct EraseWish {
  std::vector<IpAddress> addresses = {};  // any entry with one of these in either direction
  std::vector<Translation> translations = {};
  std::function<bool(const ConntrackEntry&)> also = {};  // and every entry that it says yes to
};

// The wish prepared for many look-ups.
class EraseMatcher {
 public:
  explicit EraseMatcher(const EraseWish& wish);
  [[nodiscard]] bool matches(const ConntrackEntry& entry) const;
  [[nodiscard]] bool empty() const { return addresses_.empty() && translations_.empty() && !also_; }
  // The only family that can match; nothing when both can.
  [[nodiscard]] std::optional<Family> family() const;
  // Whether only entries with a translated destination can match.
  [[nodiscard]] bool only_translated() const;

 private:
  [[nodiscard]] bool touches(const ConntrackTuple& tuple) const;
  std::vector<IpAddress> addresses_;       // sorted
  std::vector<Translation> translations_;  // sorted by (from, ...)
  std::function<bool(const ConntrackEntry&)> also_;
};

class Conntrack {
 public:
  // Entries remembered between the walk and the deletes, at about 150 bytes each. With
  // more, another walk follows.
  static constexpr std::size_t kMaxErasePerWalk = 65'536;
  // 16 walks erase a million entries, the largest usual table.
  static constexpr int kMaxWalks = 16;
  // For listings made for people.
  static constexpr std::size_t kMaxListed = 1'000'000;

  [[nodiscard]] static Result<Conntrack> open();  // see open_channel_in() for another netns
  explicit Conntrack(Channel channel) : channel_(std::move(channel)) {}

  using Filter = std::function<bool(const ConntrackEntry&)>;
  // Stops collecting, not walking, at `limit`.
  [[nodiscard]] Result<std::vector<ConntrackEntry>> list(const Filter& filter,
                                                         std::size_t limit = kMaxListed);
  // Number of entries erased.
  [[nodiscard]] Result<std::size_t> erase(const EraseWish& wish);
  // Entries in the table now; asks for no walk.
  [[nodiscard]] Result<std::uint32_t> count();

 private:
  struct Victim;
  [[nodiscard]] Result<std::vector<Victim>> find_victims(const EraseMatcher& matcher);
  [[nodiscard]] Result<std::size_t> erase_victims(std::span<const Victim> victims);

  Channel channel_;
};

// IPCTNL_MSG_CT_NEW content with its nfgenmsg; nothing for what is not IPv4 or IPv6 or has
// no two tuples.
[[nodiscard]] std::optional<ConntrackEntry> decode_conntrack(ByteView content);

}  // namespace meshd::netlink
