// A typed one-way queue between threads: many writers, one reader, which waits on
// fd() in its own event loop. The only place where threads hand work to each other.
//
// Threads:   post() from any thread; drain() and fd() from the one reader.
// Owns:      the queued messages and an eventfd.
// Invariant: bounded. At the limit post() refuses and says so; nothing is lost in
//            silence. The caller decides whether to count, retry or fail the request.
#pragma once

#include <sys/eventfd.h>

#include <cassert>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace meshd {

template <class T>
class Mailbox {
 public:
  explicit Mailbox(std::size_t limit) : limit_(limit), fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    assert(fd_);  // only fails when the process is out of descriptors at start-up
  }

  // False when the box is full: the message was not taken.
  [[nodiscard]] bool post(T message) {
    {
      const std::lock_guard lock(mutex_);
      if (queue_.size() >= limit_) return false;
      queue_.push_back(std::move(message));
    }
    const std::uint64_t one = 1;
    // An eventfd write can only fail when its counter is at 2^64-1, and then the reader is awake.
    [[maybe_unused]] const auto written = write(fd_.get(), &one, sizeof one);
    return true;
  }

  // All that has arrived, oldest first; empty when nothing has.
  [[nodiscard]] std::vector<T> drain() {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = read(fd_.get(), &count, sizeof count);
    const std::lock_guard lock(mutex_);
    return std::exchange(queue_, {});
  }

  // Readable while messages wait.
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  const std::size_t limit_;
  UniqueFd fd_;
  std::mutex mutex_;
  std::vector<T> queue_;
};

}  // namespace meshd
