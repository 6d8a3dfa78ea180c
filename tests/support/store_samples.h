// What the tests of controller stores share: writes, and a store's content as text.
#pragma once

#include <fmt/format.h>

#include <map>
#include <random>
#include <string>
#include <utility>

#include "controller/store.h"

namespace meshd::controller {

inline constexpr Kind kNode = kind::ObjectKind::NODE;
inline constexpr Kind kSettings = kind::ObjectKind::SETTINGS;

inline Write put_text(Kind kind, std::string key, std::string value) {
  return {kind, std::move(key), std::move(value)};
}

inline std::string text(const Writes& writes) {
  std::string out;
  for (const auto& write : writes) {
    out += fmt::format("{} '{}' {}\n", static_cast<int>(write.kind), write.key,
                       write.value ? *write.value : "-");
  }
  return out;
}
inline std::string text(const Store::Snapshot& snapshot) {
  return fmt::format("revision {}\n{}", snapshot.revision, text(snapshot.objects));
}

// What a store holds after these, by the simplest means.
class Folded {
 public:
  void fold(const Writes& writes) {
    for (const auto& write : writes) {
      if (write.value) {
        objects_[{write.kind, write.key}] = *write.value;
      } else {
        objects_.erase({write.kind, write.key});
      }
    }
  }
  [[nodiscard]] Writes objects() const {
    Writes all;
    for (const auto& [key, value] : objects_) all.push_back({key.first, key.second, value});
    return all;
  }

 private:
  std::map<std::pair<Kind, std::string>, std::string> objects_;
};

// A commit of a few puts and drops over a small world of keys, so that they meet.
template <class Random>
Writes random_writes(Random& random) {
  Writes writes;
  for (unsigned i = 0; i <= random() % 4; ++i) {
    const auto kind = static_cast<Kind>(random() % 7);
    auto key = fmt::format("k{}", random() % 5);
    if (random() % 3 == 0) {
      writes.push_back(drop(kind, std::move(key)));
    } else {
      writes.push_back(put_text(kind, std::move(key), std::string(random() % 40, 'v')));
    }
  }
  return writes;
}

}  // namespace meshd::controller
