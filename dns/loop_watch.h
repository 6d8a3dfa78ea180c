// Finds upstreams that lead back to this process, whatever stands between: a question with a
// name that nobody can guess is sent to the upstream, and whoever is asked it here, by any
// worker, knows it again.
//
// Threads: all workers share one; lock-free.
// Units:   a nonce is one question's number, never 0.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "dns/message.h"

namespace meshd::dns {

class LoopWatch {
 public:
  LoopWatch();

  // The question to send: HINFO of a name of two labels, which nobody answers by himself.
  [[nodiscard]] Query probe(std::uint64_t nonce) const;
  // Is this one of ours? Then it is noted.
  [[nodiscard]] bool saw(const Query& query);
  [[nodiscard]] bool came_back(std::uint64_t nonce) const;

 private:
  std::string tag_;  // the second label, of this process
  // The last ones seen: more than there are workers and upstreams.
  std::array<std::atomic<std::uint64_t>, 128> seen_{};
  std::atomic<std::uint32_t> next_{0};
};

}  // namespace meshd::dns
