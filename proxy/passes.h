// Carries a sign-in from the page to a service's own host. A token's cookie is a host's own, and in
// an address the token would be seen by the service: by a script that a container leaves in
// browsers to answer for its host (a service worker). So the page's host sets a cookie for the
// whole zone, which no script reads and which our endpoint alone sees, and the service's host
// changes it for its own.
//
// Threads:   one.
// Invariant: a pass is good once, for a short time, for one target. Bounded: who takes too many
//            pushes out the oldest. Of a pass only the digest is kept.
// Source:    RFC 6265bis sections 4.1.2.3 (Domain) and 4.1.3.1 (__Secure-).
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "pki/secret.h"

namespace meshd::proxy {

inline constexpr auto kPassLife = std::chrono::seconds(30);  // a redirect, on a slow line
inline constexpr std::size_t kMaxPasses = 1'024;

class Passes {
 public:
  // For whoever has `token` to `target`. kSystem: there is no randomness.
  [[nodiscard]] Result<std::string> issue(std::string token, std::string target, TimePoint now);
  // The token. A pass that was for another target, or is too old, is spent as well.
  [[nodiscard]] std::optional<std::string> redeem(std::string_view pass, std::string_view target,
                                                  TimePoint now);
  [[nodiscard]] std::size_t size() const { return passes_.size(); }

 private:
  struct Pass {
    std::string token, target;
    TimePoint until{};
  };
  void forget_old(TimePoint now);

  std::map<pki::Sha256, Pass> passes_;
  std::deque<std::pair<TimePoint, pki::Sha256>> by_age_;  // also those that are spent
};

}  // namespace meshd::proxy
