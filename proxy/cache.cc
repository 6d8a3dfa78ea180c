#include "proxy/cache.h"

#include <fmt/format.h>

namespace meshd::proxy {

AnswerCache::Key AnswerCache::key_of(const Question& question) {
  std::string about = question.what == Question::What::kSees ? "sees" : "";
  if (question.what == Question::What::kLevel) {
    // None of them can hold a blank. The owner too: an id may be declared anew by another.
    about = fmt::format("{} {} {} {}", static_cast<int>(question.needed), question.id,
                        question.owner, question.request);
  }
  return {pki::sha256(question.token), std::move(about)};
}

void AnswerCache::Room::erase(std::map<Key, Entry>::iterator entry) {
  by_age.erase(entry->second.place);
  entries.erase(entry);
}

const Answer* AnswerCache::find(const Question& question, TimePoint now) {
  const auto key = key_of(question);
  for (auto* room : {&good_, &bad_}) {
    const auto found = room->entries.find(key);
    if (found == room->entries.end()) continue;
    if (now < found->second.until) return &found->second.answer;
    room->erase(found);
  }
  return nullptr;
}

void AnswerCache::put(const Question& question, const Answer& answer, TimePoint now) {
  if (answer.kind == Answer::Kind::kUnavailable) return;
  const bool good =
      answer.kind == Answer::Kind::kGood &&
      (question.what != Question::What::kLevel || suffices(answer.level, question.needed));
  auto key = key_of(question);
  for (auto* room : {&good_, &bad_}) {
    if (const auto old = room->entries.find(key); old != room->entries.end()) room->erase(old);
  }
  if (limits_.entries == 0) return;
  auto& room = good ? good_ : bad_;
  if (room.entries.size() >= limits_.entries) {
    room.erase(room.entries.find(*room.by_age.front()));
  }
  const auto until = now + (good ? limits_.positive : limits_.negative);
  const auto placed = room.entries.emplace(std::move(key), Entry{answer, until, {}}).first;
  placed->second.place = room.by_age.insert(room.by_age.end(), &placed->first);
}

void AnswerCache::clear() {
  good_ = {};
  bad_ = {};
}

}  // namespace meshd::proxy
