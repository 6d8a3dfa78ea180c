// Answers about tokens, kept for a short time: what is taken away works on until it is asked for
// again, and so no longer than that.
//
// Threads:   one, that of the verdicts.
// Invariant: holds digests and never a token. Bounded, and those who are refused cannot push out
//            those who are let in: each have a room of their own.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <utility>

#include "base/clock.h"
#include "pki/secret.h"
#include "proxy/asking.h"

namespace meshd::proxy {

struct CacheLimits {
  Duration positive = std::chrono::seconds(60);
  Duration negative = std::chrono::seconds(5);
  // A person has a handful of services open: thousands of people, some 10 MB.
  std::size_t entries = 32'768;  // of each room
};

class AnswerCache {
 public:
  explicit AnswerCache(CacheLimits limits) : limits_(limits) {}

  // Null: ask. Valid until the next call.
  [[nodiscard]] const Answer* find(const Question& question, TimePoint now);
  // That nobody could be asked is not kept.
  void put(const Question& question, const Answer& answer, TimePoint now);
  // The tokens themselves have changed.
  void clear();
  [[nodiscard]] std::size_t size() const { return good_.entries.size() + bad_.entries.size(); }

 private:
  // Ordered, not hashed: anybody can choose tokens until their hashes fall into one bucket.
  using Key = std::pair<pki::Sha256, std::string>;
  struct Entry {
    Answer answer;
    TimePoint until{};
    std::list<const Key*>::iterator place;
  };
  struct Room {
    std::map<Key, Entry> entries;
    std::list<const Key*> by_age;  // all live equally long: the oldest is also the next to end
    void erase(std::map<Key, Entry>::iterator entry);
  };
  static Key key_of(const Question& question);

  CacheLimits limits_;
  Room good_, bad_;
};

}  // namespace meshd::proxy
