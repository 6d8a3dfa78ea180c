// Token buckets per client in memory of a fixed size.
//
// Threads:   one owner (a worker).
// Invariant: where more clients come than there are buckets, the newcomer takes over what the
//            one it displaces had left: changing one's address never brings new tokens faster
//            than waiting does.
#pragma once

#include <array>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"

namespace meshd::dns {

class ClientRate {
 public:
  // `burst` seconds' worth of tokens may be saved up.
  ClientRate(double per_second, double burst_seconds)
      : rate_(per_second), burst_(per_second * burst_seconds), sets_(kSets) {}

  // False: this client asks too often.
  [[nodiscard]] bool take(const IpAddress& client, TimePoint now);

 private:
  static constexpr std::size_t kSets = 512, kWays = 4;
  struct Bucket {
    IpAddress client;
    bool used = false;
    double tokens = 0;
    TimePoint at{};
  };
  void refill(Bucket& bucket, TimePoint now) const;
  Bucket& bucket_of(const IpAddress& client, TimePoint now);

  double rate_, burst_;
  std::vector<std::array<Bucket, kWays>> sets_;
};

}  // namespace meshd::dns
