// Time as the daemon counts it: CLOCK_BOOTTIME, which neither steps with the wall clock
// nor stands still in suspend. Pure code receives a TimePoint, it never asks for one.
//
// Units: nanoseconds since boot. Comparable between processes of one boot only.
#pragma once

#include <time.h>

#include <chrono>

namespace meshd {

struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;

  static time_point now() noexcept {
    timespec ts{};
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return time_point(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
  }
};

using TimePoint = BootClock::time_point;
using Duration = BootClock::duration;

}  // namespace meshd
