// What a verdict needs to know about who asks, as a question that somebody else answers: the
// token file, or the Arvados API.
//
// Invariant: a Question holds a token and is never written anywhere.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "policy/declaration.h"

namespace meshd::proxy {

using policy::Access;

struct User {
  std::string uuid;  // Arvados'; empty: not of an Arvados site
  std::string name;
  bool admin = false;
  bool operator==(const User&) const = default;
};

struct Question {
  enum class What : std::uint8_t {
    kWho,    // is this token anybody's?
    kLevel,  // what may its owner do with this workload, at least up to `needed`?
  };
  What what = What::kWho;
  std::string token;
  // Of kLevel alone.
  std::string id, owner;
  std::string request;  // the Arvados container request; empty: none
  Access needed = Access::kOwner;
  auto operator<=>(const Question&) const = default;
};

struct Answer {
  enum class Kind : std::uint8_t {
    kGood,
    kBadToken,     // nobody's, expired, of too narrow a scope, or of somebody who is not active
    kUnavailable,  // nobody could be asked
  };
  Kind kind = Kind::kUnavailable;
  User user;
  // Of kLevel: absent when they may not even read. No more than what was needed is looked for.
  std::optional<Access> level;
  bool operator==(const Answer&) const = default;
};

// Whoever answers what the token file does not: the Arvados API.
class Asker {
 public:
  virtual ~Asker() = default;
  // In the endpoint's thread; never waits. False: too much is under way, and `done` is not called.
  // Else it is called once, from any thread, also after whoever asked has gone.
  [[nodiscard]] virtual bool ask(const Question& question,
                                 std::move_only_function<void(Answer)> done) = 0;
};

// Access counts from the narrowest: who has a level has all that come after it.
[[nodiscard]] inline bool suffices(const std::optional<Access>& level, Access needed) {
  return needed == Access::kPublic || (level && *level <= needed);
}

}  // namespace meshd::proxy
