#include "dns/cache.h"

#include <algorithm>

#include "dns/limits.h"

namespace meshd::dns {

void Cache::write_key(const Query& query, std::string& key) {
  key = query.lower;
  for (const auto number : {query.type, query.klass}) {
    key += static_cast<char>(number >> 8);
    key += static_cast<char>(number & 0xff);
  }
  key += static_cast<char>((query.dnssec_ok ? 1 : 0) | ((query.flags & kFlagCd) != 0 ? 2 : 0));
}

std::string Cache::key_of(const Query& query) {
  std::string key;
  write_key(query, key);
  return key;
}

bool Cache::Entry::stale_at(TimePoint now) const {
  return reply->rcode == Rcode::kNoError && !reply->negative && fresh_until <= now &&
         now - fresh_until < kMaxStale;
}

std::size_t Cache::cost(const Entry& entry) {
  constexpr std::size_t kOverhead = 256;  // list node, index slot, shared state
  return kOverhead + entry.key.size() + entry.reply->message.size() +
         2 * entry.reply->ttl_offsets.size() + entry.reply->ede_text.size();
}

Cache::Entry* Cache::find(std::string_view key) {
  const auto found = index_.find(key);
  if (found == index_.end()) return nullptr;
  order_.splice(order_.begin(), order_, found->second);
  return &*found->second;
}

void Cache::erase(Order::iterator entry) {
  bytes_ -= cost(*entry);
  index_.erase(entry->key);
  order_.erase(entry);
}

void Cache::store(std::string key, std::shared_ptr<const UpstreamReply> reply, TimePoint now) {
  if (const auto old = index_.find(key); old != index_.end()) erase(old->second);
  if (reply->message.size() > kMaxCached || reply->truncated) return;
  const auto fresh_until = now + std::chrono::seconds(reply->ttl);
  order_.push_front({std::move(key), std::move(reply), now, fresh_until, {}, 0, false});
  index_.emplace(order_.front().key, order_.begin());
  bytes_ += cost(order_.front());
  while (bytes_ > limit_ && !order_.empty()) erase(std::prev(order_.end()));
}

void Cache::age_all(TimePoint now) {
  for (auto& entry : order_) entry.fresh_until = std::min(entry.fresh_until, now);
}

}  // namespace meshd::dns
