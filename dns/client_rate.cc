#include "dns/client_rate.h"

#include <algorithm>

namespace meshd::dns {

void ClientRate::refill(Bucket& bucket, TimePoint now) const {
  const std::chrono::duration<double> passed = now - bucket.at;
  bucket.tokens = bucket.used ? std::min(burst_, bucket.tokens + passed.count() * rate_) : burst_;
  bucket.at = now;
}

ClientRate::Bucket& ClientRate::bucket_of(const IpAddress& client, TimePoint now) {
  auto& set = sets_[std::hash<IpAddress>{}(client) % kSets];
  for (auto& bucket : set) {
    if (!bucket.used || bucket.client != client) continue;
    refill(bucket, now);
    return bucket;
  }
  for (auto& bucket : set) refill(bucket, now);
  auto& fullest = *std::ranges::max_element(set, {}, &Bucket::tokens);
  fullest.client = client;
  fullest.used = true;
  return fullest;
}

bool ClientRate::take(const IpAddress& client, TimePoint now) {
  auto& bucket = bucket_of(client, now);
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

}  // namespace meshd::dns
