// The daemon's event loop: descriptors, one timer per purpose, and signals, over sd-event.
//
// Threads: made, used and run on one thread.
// Owns:    the loop and its sources; a Source ends its watch when it is destroyed.
// Errors:  kSystem from set-up. A handler cannot fail; what goes wrong inside is its own.
// Source:  sd_event_add_io(3), sd_event_add_time(3), sd_event_add_signal(3).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

struct sd_event;
struct sd_event_source;

namespace meshd {

class Source {
 public:
  virtual ~Source() = default;
};

class Timer : public Source {
 public:
  // Absent: disarmed. A time in the past fires at the loop's next turn.
  virtual void set(std::optional<TimePoint> when) = 0;
};

class Loop {
 public:
  using Handler = std::move_only_function<void()>;

  [[nodiscard]] static Result<std::unique_ptr<Loop>> make();
  ~Loop();

  [[nodiscard]] Result<std::unique_ptr<Source>> on_readable(int fd, Handler handler);
  // Readable, writable, or both; replaces nothing: one Source per call.
  [[nodiscard]] Result<std::unique_ptr<Source>> on_events(int fd, std::uint32_t epoll_events,
                                                          Handler handler);
  [[nodiscard]] Result<std::unique_ptr<Timer>> make_timer(Handler handler);
  // The signal must be blocked in every thread before.
  [[nodiscard]] Result<std::unique_ptr<Source>> on_signal(int number, Handler handler);

  // Runs once at the loop's next turn.
  void later(Handler handler);

  [[nodiscard]] Status run();  // until quit()
  void quit();

 private:
  explicit Loop(sd_event* event);
  void run_later();
  sd_event* event_;
  std::unique_ptr<Timer> later_timer_;
  std::vector<Handler> later_;
};

}  // namespace meshd
