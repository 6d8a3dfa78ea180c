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
  };
  // Null when there is nothing; the caller looks whether it is still fresh.
  [[nodiscard]] const Entry* find(std::string_view key);
  void store(std::string key, std::shared_ptr<const UpstreamReply> reply, TimePoint now);
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] std::size_t size() const { return index_.size(); }

  // Everything that makes answers differ: name, type, class, DO and CD.
  [[nodiscard]] static std::string key_of(const Query& query);

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
