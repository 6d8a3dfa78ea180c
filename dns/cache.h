// Upstream replies kept by question: least recently used go first, bounded in bytes.
//
// Threads: one owner (a worker).
// Units:   time as the caller's clock counts it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "dns/reply.h"
#include "dns/snapshot.h"

namespace meshd::dns {

class Cache {
 public:
  explicit Cache(std::size_t limit_bytes) : limit_(limit_bytes) {}

  struct Entry {
    std::string key;
    std::shared_ptr<const UpstreamReply> reply;
    TimePoint stored_at{}, fresh_until{};
    TimePoint recheck_at{};  // until then a stale answer is given without asking anybody
    std::uint32_t hits = 0;
    bool asked_again = false;  // a fresh one is on its way

    // Negative ones are never stale: what was missing may be there by now.
    [[nodiscard]] bool stale_at(TimePoint now) const;
  };
  // Null when there is nothing; the caller looks whether it is still fresh.
  [[nodiscard]] Entry* find(std::string_view key);
  void store(std::string key, std::shared_ptr<const UpstreamReply> reply, TimePoint now);
  // Other servers may answer otherwise: nothing is fresh any more.
  void age_all(TimePoint now);
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] std::size_t size() const { return index_.size(); }

  // Everything that makes answers differ: name, type, class, DO and CD.
  [[nodiscard]] static std::string key_of(const Query& query);
  static void write_key(const Query& query, std::string& key);  // whose memory is used again

 private:
  using Order = std::list<Entry>;
  [[nodiscard]] static std::size_t cost(const Entry& entry);
  void erase(Order::iterator entry);

  std::size_t limit_;
  std::size_t bytes_ = 0;
  Order order_;  // the most recently used first
  std::unordered_map<std::string_view, Order::iterator> index_;
};

}  // namespace meshd::dns
