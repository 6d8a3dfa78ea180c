#include "dns/cache.h"

#include "dns/limits.h"

namespace meshd::dns {

std::string Cache::key_of(const Query& query) {
  std::string key = query.lower;
  for (const auto number : {query.type, query.klass}) {
    key += static_cast<char>(number >> 8);
    key += static_cast<char>(number & 0xff);
  }
  key += static_cast<char>((query.dnssec_ok ? 1 : 0) | ((query.flags & kFlagCd) != 0 ? 2 : 0));
  return key;
}

std::size_t Cache::cost(const Entry& entry) {
  constexpr std::size_t kOverhead = 256;  // list node, index slot, shared state
  return kOverhead + entry.key.size() + entry.reply->message.size() +
         2 * entry.reply->ttl_offsets.size() + entry.reply->ede_text.size();
}

const Cache::Entry* Cache::find(std::string_view key) {
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
  order_.push_front({std::move(key), std::move(reply), now, fresh_until});
  index_.emplace(order_.front().key, order_.begin());
  bytes_ += cost(order_.front());
  while (bytes_ > limit_ && !order_.empty()) erase(std::prev(order_.end()));
}

}  // namespace meshd::dns
