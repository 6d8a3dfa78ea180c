#include "policy/refused_pairs.h"

#include <algorithm>

namespace meshd::policy {

void RefusedPairs::drop_pair(Consumer& consumer, std::map<RefusedPair, Entry>::iterator pair) {
  untold_.erase(pair->first);
  consumer.pairs.erase(pair);
  ++lost_;
}

void RefusedPairs::forget(const std::string& consumer) {
  const auto found = by_consumer_.find(consumer);
  if (found == by_consumer_.end()) return;
  for (const auto& [pair, entry] : found->second.pairs) untold_.erase(pair);
  turns_.erase(found->second.turn);
  by_consumer_.erase(found);
}

// For one that is new.
void RefusedPairs::make_room(const RefusedPair& pair) {
  const auto found = by_consumer_.find(pair.consumer);
  if (found == by_consumer_.end()) {
    if (by_consumer_.size() < limit_) return;
    const auto oldest = turns_.begin()->second;
    lost_ += by_consumer_.at(oldest).pairs.size();
    return forget(oldest);
  }
  auto& pairs = found->second.pairs;
  if (pairs.size() < kPerConsumer || pairs.contains(pair)) return;
  drop_pair(found->second, std::ranges::min_element(
                               pairs, {}, [](const auto& entry) { return entry.second.last_ms; }));
}

RefusedPairs::Entry& RefusedPairs::add(const RefusedPair& pair, std::uint64_t count,
                                       std::int64_t wall_ms) {
  make_room(pair);
  auto& consumer = by_consumer_[pair.consumer];
  turns_.erase(consumer.turn);
  consumer.turn = ++last_turn_;
  turns_.emplace(consumer.turn, pair.consumer);
  auto& entry = consumer.pairs[pair];
  entry.count += count;
  entry.untold += count;
  entry.last_ms = wall_ms;
  untold_.insert(pair);
  return entry;
}

std::vector<std::pair<RefusedPair, RefusedPairs::Entry>> RefusedPairs::all() const {
  std::vector<std::pair<RefusedPair, Entry>> list;
  for (const auto& [id, consumer] : by_consumer_) {
    list.insert(list.end(), consumer.pairs.begin(), consumer.pairs.end());
  }
  return list;
}

std::vector<std::pair<RefusedPair, RefusedPairs::Entry>> RefusedPairs::take_untold(
    std::size_t most) {
  std::vector<std::pair<RefusedPair, Entry>> list;
  while (!untold_.empty() && list.size() < most) {
    const auto pair = *untold_.begin();
    untold_.erase(untold_.begin());
    auto& entry = by_consumer_.at(pair.consumer).pairs.at(pair);
    list.emplace_back(pair, entry);
    entry.untold = 0;
  }
  return list;
}

}  // namespace meshd::policy
