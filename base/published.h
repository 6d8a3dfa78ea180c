// One writer publishes immutable values, many readers take the newest: a reader holds
// its copy for as long as it likes and is never blocked by the writer.
//
// Threads: store() from one thread, load() and version() from any.
// Source:  libstdc++ 12's atomic<shared_ptr> takes a lock bit, so a hot path compares
//          version() first (one relaxed load) and calls load() only when it moved.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace meshd {

template <class T>
class Published {
 public:
  void store(std::shared_ptr<const T> value) {
    value_.store(std::move(value), std::memory_order_release);
    version_.fetch_add(1, std::memory_order_release);
  }
  [[nodiscard]] std::shared_ptr<const T> load() const {
    return value_.load(std::memory_order_acquire);
  }
  // Rises by one with every store(); 0 before the first.
  [[nodiscard]] std::uint64_t version() const { return version_.load(std::memory_order_acquire); }

 private:
  std::atomic<std::shared_ptr<const T>> value_;
  std::atomic<std::uint64_t> version_{0};
};

}  // namespace meshd
