// Websockets that are open: who each was opened for, and whether that still holds.
//
// Threads:   one, whose loop waits on fd().
// Owns:      the relay.
// Invariant: every connection that is open has been decided about, with what is known now, within
//            the last two calls of sweep(); one that has nobody to be decided about is cut. A
//            caller of whom nothing is known for kUnsureLimit is cut too.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "policy/types.h"
#include "proxy/conversation.h"

namespace meshd::proxy {

// An answer that is asked for ahead of time is there long before the last one has lapsed; this is
// for one that was pushed out of the cache.
inline constexpr auto kUnsureLimit = std::chrono::seconds(5);

class Doors {
 public:
  // How a caller stands now; an answer that is missing is being asked for when it returns.
  using Decide = std::function<Step(Conversation&)>;
  // Asks anew, ahead of time.
  using Refresh = std::function<void(const Question&)>;

  // `refresh`: how old an answer may become before it is asked for anew.
  Doors(std::unique_ptr<Relay> relay, Duration refresh)
      : relay_(std::move(relay)), refresh_(refresh) {}

  // Where nginx finds the way to the upstream, as proxy_pass takes it.
  [[nodiscard]] Result<std::string> open(const Conversation& caller, const Allow& allow,
                                         TimePoint now);
  // Every second. What is in use is put into `used`.
  void sweep(TimePoint now, const Decide& decide, const Refresh& refresh,
             std::set<policy::PublishKey>& used);

  [[nodiscard]] int fd() const { return relay_->fd(); }
  void serve(TimePoint now) { relay_->serve(now); }
  [[nodiscard]] std::size_t connections() const { return relay_->connections(); }
  [[nodiscard]] std::size_t callers() const { return doors_.size(); }
  [[nodiscard]] std::uint64_t cut() const { return cut_; }

 private:
  struct Door {
    Conversation caller;
    std::string upstream;
    policy::PublishKey to;
    TimePoint used{};
    TimePoint refreshed{};
    std::optional<TimePoint> unsure_since;
  };
  [[nodiscard]] bool may_go_on(Door& door, TimePoint now, const Decide& decide) const;

  const std::unique_ptr<Relay> relay_;
  const Duration refresh_;
  std::map<std::string, Door> doors_;  // by the relay's keys
  std::uint64_t cut_ = 0;
};

}  // namespace meshd::proxy
