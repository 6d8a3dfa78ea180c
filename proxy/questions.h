// Questions that somebody is answering: one for all who wait for the same, each with an end.
//
// Threads:   one. Pure.
// Invariant: bounded. A question that is not answered in time is answered for those who wait, but
//            counts until its answer comes: an Asker that answers nothing fills up once and no
//            more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "proxy/asking.h"

namespace meshd::proxy {

// What the Asker has at most, and room for as many answers.
inline constexpr std::size_t kMaxQuestionsUnderWay = 4'096;

template <class Waiter>
class Questions {
 public:
  struct Entry {
    Question question;
    TimePoint asked{};
    std::vector<Waiter*> waiting;
    bool late = false;  // nobody waits any more
  };
  explicit Questions(Duration limit, std::size_t room = kMaxQuestionsUnderWay)
      : limit_(limit), room_(room) {}

  // Somebody is asked already, and so they wait with those who do. A null waiter just wants to
  // have it answered.
  [[nodiscard]] bool join(const Question& question, Waiter* waiter) {
    const auto known = numbers_.find(question);
    if (known == numbers_.end()) return false;
    if (waiter != nullptr) entries_.at(known->second).waiting.push_back(waiter);
    return true;
  }
  // The number of one that is to be asked now; absent: too many are under way.
  [[nodiscard]] std::optional<std::uint64_t> add(const Question& question, Waiter* waiter,
                                                 TimePoint now) {
    if (entries_.size() >= room_) return std::nullopt;
    auto& entry = entries_[++last_];
    entry.question = question;
    entry.asked = now;
    if (waiter != nullptr) entry.waiting.push_back(waiter);
    numbers_[question] = last_;
    return last_;
  }
  // Of one that has been answered; absent: it was before, or never asked.
  [[nodiscard]] std::optional<Entry> take(std::uint64_t number) {
    const auto found = entries_.find(number);
    if (found == entries_.end()) return std::nullopt;
    auto entry = std::move(found->second);
    entries_.erase(found);
    if (!entry.late) numbers_.erase(entry.question);
    return entry;
  }
  // It was not asked after all.
  void forget(std::uint64_t number) { [[maybe_unused]] const auto entry = take(number); }
  // The next one that has waited for too long, with those who wait for it.
  [[nodiscard]] std::optional<Entry> take_overdue(TimePoint now) {
    for (auto& [number, entry] : entries_) {  // in the order in which they were asked
      if (now - entry.asked < limit_) break;
      if (entry.late) continue;
      numbers_.erase(entry.question);
      auto copy = entry;
      entry.late = true;
      entry.waiting.clear();
      return copy;
    }
    return std::nullopt;
  }
  [[nodiscard]] std::size_t waiting() const {
    std::size_t count = 0;
    for (const auto& [question, number] : numbers_) count += entries_.at(number).waiting.size();
    return count;
  }

 private:
  const Duration limit_;
  const std::size_t room_;
  std::uint64_t last_ = 0;
  std::map<std::uint64_t, Entry> entries_;
  std::map<Question, std::uint64_t> numbers_;  // of those that are not late
};

}  // namespace meshd::proxy
