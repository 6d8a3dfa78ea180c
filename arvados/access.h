// Who somebody is, and what they may do with a container, asked of the Arvados API one request at
// a time. Pure: next() says what to ask, take() hears the answer.
//
// Levels:    OWNER: every request on the container is by that user (what upstream calls private),
//            or an administrator. CAN_MANAGE, CAN_WRITE, CAN_READ: of the container request that
//            declared the workload, as the API itself decides them. PUBLIC asks nobody.
// Threads:   one owner.
// Invariant: what cannot be believed ends the question as kAway, and never as a level. What is
//            wrong with the controller's own token is never blamed on the caller.
// Source:    Arvados 3.2: users, api_client_authorizations, permissions, computed_permissions;
//            User#can? for CAN_WRITE.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "arvados/answers.h"
#include "policy/declaration.h"

namespace meshd::arvados {

// A request to make: with the caller's token or with the controller's.
struct Ask {
  std::string path;
  bool as_controller = false;
  std::size_t max_bytes = 0;
};

struct Identity {
  std::string user;  // the uuid
  std::string name;
  bool is_admin = false;
};

// Whose token it is. Good for as long as verdicts are kept, for all that its bearer opens.
class IdentityQuestion {
 public:
  // Absent: answered.
  [[nodiscard]] std::optional<Ask> next() const;
  void take(const Reply& reply);
  // Once next() is absent. kForbidden: a token that is not for everything, an inactive user.
  [[nodiscard]] const Answer<Identity>& answer() const { return *answer_; }

 private:
  std::optional<TokenScope> scope_;
  std::optional<Answer<Identity>> answer_;
};

struct Standing {
  policy::Access level = policy::Access::kPublic;
  bool exact = false;  // else it may be higher: nothing was asked past what was needed
};

class LevelQuestion {
 public:
  struct Object {
    std::string container;
    std::string request;  // by which it was declared; empty: not known, only OWNER and CAN_READ
  };
  // Asks no further than it takes to know whether `needed` is reached.
  LevelQuestion(Identity who, Object object, policy::Access needed);

  [[nodiscard]] std::optional<Ask> next() const;
  void take(const Reply& reply);
  // kNotFound: they may not read it, or there is none.
  [[nodiscard]] const Answer<Standing>& answer() const { return *answer_; }

 private:
  enum class Step : std::uint8_t { kRead, kOwners, kManage, kSubjects, kLevels, kFrozen };

  void take_read(const Reply& reply);
  void take_owners(const Reply& reply);
  void take_manage(const Reply& reply);
  void take_subjects(const Reply& reply);
  void take_levels(const Reply& reply);
  void take_frozen(const Reply& reply);
  void decide(policy::Access level, bool exact) { answer_ = Standing{level, exact}; }
  void give_up(Failure failure) { answer_ = std::unexpected(std::move(failure)); }
  // Of a request with the controller's token.
  void give_up_as_controller(const Failure& failure);

  const Identity who_;
  const Object object_;
  const policy::Access needed_;
  Step step_ = Step::kRead;
  std::string project_;                // of the request
  std::vector<std::string> subjects_;  // the user, and users whom they manage
  std::optional<Answer<Standing>> answer_;
};

}  // namespace meshd::arvados
