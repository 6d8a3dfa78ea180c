// One writer publishes immutable values, many readers take the newest: a reader holds
// its copy for as long as it likes and is never blocked for longer than a pointer's copy.
//
// Threads: store() from one thread, load() and version() from any.
// Source:  a mutex, not atomic<shared_ptr>: libstdc++ 12's load() hands its lock bit back
//          relaxed, so that its read of the pointer races with the next store's write
//          (shared_ptr_atomic.h; ThreadSanitizer reports it). A hot path compares version()
//          first, which is one load, and calls load() only when it moved.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace meshd {

template <class T>
class Published {
 public:
  void store(std::shared_ptr<const T> value) {
    const std::lock_guard lock(mutex_);
    value_.swap(value);  // the old one dies with the argument, after the lock
    version_.fetch_add(1, std::memory_order_release);
  }
  [[nodiscard]] std::shared_ptr<const T> load() const {
    const std::lock_guard lock(mutex_);
    return value_;
  }
  // Rises by one with every store(); 0 before the first.
  [[nodiscard]] std::uint64_t version() const { return version_.load(std::memory_order_acquire); }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const T> value_;
  std::atomic<std::uint64_t> version_{0};
};

}  // namespace meshd
