// An Asker that answers when a test says so.
#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "proxy/asking.h"

namespace meshd::proxy {

class FakeAsker : public Asker {
 public:
  bool ask(const Question& question, std::move_only_function<void(Answer)> done) override {
    std::unique_lock lock(mutex_);
    asked_.push_back(question);
    if (full_) return false;
    if (!answers_) {
      held_.push_back(std::move(done));
      return true;
    }
    const auto now = *answers_;
    lock.unlock();
    done(now);
    return true;
  }
  // Of each question from now on; absent: it is held until answer_held().
  void answer_with(std::optional<Answer> answer) {
    const std::lock_guard lock(mutex_);
    answers_ = std::move(answer);
  }
  void set_full(bool full) {
    const std::lock_guard lock(mutex_);
    full_ = full;
  }
  // `times`: more than once, as nobody should.
  void answer_held(const Answer& answer, int times = 1) {
    std::deque<std::move_only_function<void(Answer)>> held;
    {
      const std::lock_guard lock(mutex_);
      held.swap(held_);
    }
    for (auto& done : held) {
      for (int i = 0; i < times; ++i) done(answer);
    }
  }
  void drop_held() {
    const std::lock_guard lock(mutex_);
    held_.clear();
  }
  [[nodiscard]] std::vector<Question> asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }
  [[nodiscard]] std::size_t held() const {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Question> asked_;
  std::deque<std::move_only_function<void(Answer)>> held_;
  std::optional<Answer> answers_;
  bool full_ = false;
};

}  // namespace meshd::proxy
