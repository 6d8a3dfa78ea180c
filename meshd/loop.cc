#include "meshd/loop.h"

#include <sys/epoll.h>
#include <systemd/sd-event.h>

#include <utility>

namespace meshd {
namespace {

// Holds one sd-event source together with the handler that its callback runs.
class Watch final : public Timer {
 public:
  explicit Watch(Loop::Handler handler) : handler_(std::move(handler)) {}
  ~Watch() override { sd_event_source_disable_unref(source_); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  void set(std::optional<TimePoint> when) override {
    // These calls fail only on a source of another kind: a bug in this file.
    if (!when) {
      sd_event_source_set_enabled(source_, SD_EVENT_OFF);
      return;
    }
    const auto us = std::chrono::ceil<std::chrono::microseconds>(when->time_since_epoch()).count();
    sd_event_source_set_time(source_, us > 0 ? static_cast<std::uint64_t>(us) : 0);
    sd_event_source_set_enabled(source_, SD_EVENT_ONESHOT);
  }

  static int on_io(sd_event_source*, int, std::uint32_t, void* self) {
    return static_cast<Watch*>(self)->fire();
  }
  static int on_time(sd_event_source*, std::uint64_t, void* self) {
    return static_cast<Watch*>(self)->fire();
  }
  static int on_signal(sd_event_source*, const signalfd_siginfo*, void* self) {
    return static_cast<Watch*>(self)->fire();
  }

  sd_event_source* source_ = nullptr;

 private:
  int fire() {
    handler_();
    return 0;
  }
  Loop::Handler handler_;
};

}  // namespace

Loop::Loop(sd_event* event) : event_(event) {}
Loop::~Loop() {
  later_.clear();
  later_timer_.reset();  // before the loop that it belongs to
  sd_event_unref(event_);
}

Result<std::unique_ptr<Loop>> Loop::make() {
  sd_event* event = nullptr;
  if (const int error = sd_event_new(&event); error < 0) return fail_errno("event loop", -error);
  std::unique_ptr<Loop> loop(new Loop(event));
  loop->later_timer_ = TRY(loop->make_timer([raw = loop.get()] { raw->run_later(); }));
  return loop;
}

void Loop::later(Handler handler) {
  later_.push_back(std::move(handler));
  later_timer_->set(TimePoint());
}

void Loop::run_later() {
  for (auto& handler : std::exchange(later_, {})) handler();
}

Result<std::unique_ptr<Source>> Loop::on_readable(int fd, Handler handler) {
  return on_events(fd, EPOLLIN, std::move(handler));
}

Result<std::unique_ptr<Source>> Loop::on_events(int fd, std::uint32_t epoll_events,
                                                Handler handler) {
  auto watch = std::make_unique<Watch>(std::move(handler));
  const int error =
      sd_event_add_io(event_, &watch->source_, fd, epoll_events, Watch::on_io, watch.get());
  if (error < 0) return fail_errno("event loop: descriptor " + std::to_string(fd), -error);
  return watch;
}

Result<std::unique_ptr<Timer>> Loop::make_timer(Handler handler) {
  auto watch = std::make_unique<Watch>(std::move(handler));
  // 1 us accuracy: the default of 250 ms would coalesce our polls into late ones.
  const int error =
      sd_event_add_time(event_, &watch->source_, CLOCK_BOOTTIME, 0, 1, Watch::on_time, watch.get());
  if (error < 0) return fail_errno("event loop: timer", -error);
  watch->set(std::nullopt);
  return watch;
}

Result<std::unique_ptr<Source>> Loop::on_signal(int number, Handler handler) {
  auto watch = std::make_unique<Watch>(std::move(handler));
  const int error =
      sd_event_add_signal(event_, &watch->source_, number, Watch::on_signal, watch.get());
  if (error < 0) return fail_errno("event loop: signal " + std::to_string(number), -error);
  return watch;
}

Status Loop::run() {
  const int error = sd_event_loop(event_);
  if (error < 0) return fail_errno("event loop", -error);
  return {};
}

void Loop::quit() { sd_event_exit(event_, 0); }

}  // namespace meshd
