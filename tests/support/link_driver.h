// A ControllerLink with a loop of its own, and what it told.
//
// Threads: the test's only.
#pragma once

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "meshd/controller_link.h"

namespace meshd::test {

// Longer than anything takes on a machine that is busy with other things.
inline constexpr auto kLinkLimit = std::chrono::seconds(30);

class LinkDriver final : public ControllerEvents {
 public:
  explicit LinkDriver(LinkOptions options)
      : link_(ControllerLink::make(std::move(options), *this)) {}

  // Runs the loop until `done` says so; false when it has not within `limit`.
  bool run_until(const std::function<bool()>& done, Duration limit = kLinkLimit) {
    const auto end = BootClock::now() + limit;
    while (!done()) {
      const auto now = BootClock::now();
      if (now >= end) return false;
      // `done` may look at other threads: at them every 10 ms, at the link at once.
      auto wake = std::min(end, now + std::chrono::milliseconds(10));
      if (const auto timer = link_->next_timer()) wake = std::min(wake, *timer);
      const auto wait = std::chrono::ceil<std::chrono::milliseconds>(wake - now).count();
      pollfd readable{link_->fd(), POLLIN, 0};
      if (poll(&readable, 1, static_cast<int>(std::max<long>(wait, 0))) > 0) {
        link_->on_readable(BootClock::now());
      }
      if (const auto timer = link_->next_timer(); timer && *timer <= BootClock::now()) {
        link_->on_timer(BootClock::now());
      }
    }
    return true;
  }
  void run_for(Duration time) {
    (void)run_until([] { return false; }, time);
  }
  bool run_until_connected(Duration limit = kLinkLimit) {
    return run_until([this] { return is_connected; }, limit);
  }
  bool run_until_disconnected(Duration limit = kLinkLimit) {
    return run_until([this] { return !is_connected; }, limit);
  }
  // Until the problem's text holds `part`.
  bool run_until_problem(const std::string& part) {
    return run_until([&] { return problem_now.find(part) != std::string::npos; });
  }
  void report(std::uint64_t number, std::size_t bytes = 0) {
    mesh::v1::FromNode message;
    message.mutable_report()->set_number(number);
    if (bytes > 0) message.mutable_report()->add_gone(std::string(bytes, 'x'));
    link_->send(std::move(message));
  }
  [[nodiscard]] ControllerLink& link() { return *link_; }

  // ControllerEvents
  mesh::v1::Hello hello() override {
    mesh::v1::Hello hello;
    hello.set_protocol(1);
    return hello;
  }
  void connected(const std::string& to) override {
    is_connected = true;
    connections.push_back(to);
  }
  void message(const mesh::v1::ToNode& message) override {
    messages.push_back(message);
    if (on_message) on_message(message);
  }
  void disconnected(const std::string& why) override {
    is_connected = false;
    ends.push_back(why);
  }
  Status may_move() override { return may; }
  void problem(const std::string& text) override {
    problem_now = text;
    if (!text.empty()) problems.push_back(text);
  }

  Status may;
  bool is_connected = false;
  std::string problem_now;
  std::vector<std::string> connections, ends, problems;
  std::vector<mesh::v1::ToNode> messages;
  std::function<void(const mesh::v1::ToNode&)> on_message;

 private:
  std::unique_ptr<ControllerLink> link_;
};

}  // namespace meshd::test
