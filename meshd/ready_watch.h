// Watches containers that are not ready yet: when to look, and what was seen.
//
// Threads: the main loop only.
// Owns:    the probes under way and one timer of the loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "meshd/http_probe.h"
#include "meshd/loop.h"
#include "meshd/readiness.h"
#include "policy/types.h"

namespace meshd {

class ReadyWatch {
 public:
  // What a look at one container found.
  using Seen = std::function<void(const std::string& id, Listening seen, TimePoint now)>;

  [[nodiscard]] static Result<std::unique_ptr<ReadyWatch>> make(Loop& loop,
                                                                const policy::World& world,
                                                                Seen seen);
  // After any change of the world: begins with new containers, forgets those that are gone.
  void refresh(TimePoint now);

 private:
  struct Watched {
    policy::Netns netns;  // another one under the same id is another container
    TimePoint next{}, ready_since{};
    Duration interval = kLookFirst;
    bool was_ready = false;
  };
  struct Probe {
    std::string id;
    Family family;
    HttpProbe probe;
    std::unique_ptr<Source> source;
  };

  ReadyWatch(Loop& loop, const policy::World& world, Seen seen)
      : loop_(loop), world_(world), seen_(std::move(seen)) {}
  void on_timer();
  void look(const std::string& id, TimePoint now);
  void start_probes(const std::string& id, TimePoint now);
  void advance(std::uint64_t number);
  void rearm();

  Loop& loop_;
  const policy::World& world_;
  const Seen seen_;
  NetnsFinder finder_;
  std::map<std::string, Watched> watched_;
  std::map<std::uint64_t, Probe> probes_;
  std::map<std::string, HttpLook> looks_;  // that the probes belong to, by workload
  std::uint64_t next_probe_ = 0;
  std::unique_ptr<Timer> timer_;
};

}  // namespace meshd
