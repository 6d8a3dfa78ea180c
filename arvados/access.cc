#include "arvados/access.h"

#include <algorithm>
#include <array>
#include <utility>

#include "arvados/limits.h"
#include "arvados/paths.h"

namespace meshd::arvados {

using policy::Access;

std::optional<Ask> IdentityQuestion::next() const {
  if (answer_) return std::nullopt;
  // The token first: one that is made for a single path could be refused by the other.
  return Ask{scope_ ? current_user_path() : current_token_path(), false, kMaxRecordBytes};
}

void IdentityQuestion::take(const Reply& reply) {
  const auto forbid = [&](std::string why) {
    answer_ = std::unexpected(Failure{Fault::kForbidden, std::move(why)});
  };
  // There is one record of each; "not found" is no answer to who somebody is.
  const auto give_up = [&](Failure failure) {
    if (failure.fault == Fault::kNotFound || failure.fault == Fault::kTooLarge) {
      failure.fault = Fault::kAway;
    }
    answer_ = std::unexpected(std::move(failure));
  };
  if (!scope_) {
    auto scope = read_token_scope(reply);
    if (!scope) return give_up(std::move(scope).error());
    if (!scope->everything) return forbid("the token is not for everything");
    scope_ = *std::move(scope);
    return;
  }
  auto user = read_user(reply);
  if (!user) return give_up(std::move(user).error());
  if (user->uuid != scope_->user) {
    return give_up({Fault::kAway, "the token's user is another one than the user"});
  }
  if (!user->is_active) return forbid("the user is not active");
  answer_ = Identity{std::move(user->uuid), std::move(user->name), user->is_admin};
}

LevelQuestion::LevelQuestion(Identity who, Object object, Access needed)
    : who_(std::move(who)), object_(std::move(object)), needed_(needed) {
  if (needed_ == Access::kPublic) {
    decide(Access::kPublic, false);
  } else if (!is_uuid(object_.container, kContainerKind) ||
             !(object_.request.empty() || is_uuid(object_.request, kRequestKind))) {
    // Not one of Arvados: the API knows nobody who may.
    give_up({Fault::kNotFound, "it is no container of Arvados"});
  }
}

std::optional<Ask> LevelQuestion::next() const {
  if (answer_) return std::nullopt;
  const std::array targets = {object_.request, project_};
  switch (step_) {
    case Step::kRead:
      return Ask{object_.request.empty() ? container_path(object_.container)
                                         : request_path(object_.request),
                 false, kMaxRecordBytes};
    case Step::kOwners:
      return Ask{owners_path(object_.container), true, kMaxRecordBytes};
    case Step::kManage:
      return Ask{permissions_path(object_.request), false, kMaxRecordBytes};
    case Step::kSubjects:
      return Ask{subjects_path(who_.user), true, kMaxRecordBytes};
    case Step::kLevels:
      return Ask{levels_path(subjects_, targets), true, kMaxRecordBytes};
    case Step::kFrozen:
      return Ask{group_path(project_), true, kMaxRecordBytes};
  }
  return std::nullopt;
}

void LevelQuestion::take(const Reply& reply) {
  switch (step_) {
    case Step::kRead:
      return take_read(reply);
    case Step::kOwners:
      return take_owners(reply);
    case Step::kManage:
      return take_manage(reply);
    case Step::kSubjects:
      return take_subjects(reply);
    case Step::kLevels:
      return take_levels(reply);
    case Step::kFrozen:
      return take_frozen(reply);
  }
}

void LevelQuestion::give_up_as_controller(const Failure& failure) {
  give_up({Fault::kAway, "with the controller's token: " + failure.why});
}

void LevelQuestion::take_read(const Reply& reply) {
  auto read = read_record(reply, object_.request.empty() ? object_.container : object_.request);
  if (!read) return give_up(std::move(read).error());
  if (who_.is_admin) return decide(Access::kOwner, true);
  if (needed_ == Access::kCanRead) return decide(Access::kCanRead, false);
  step_ = Step::kOwners;
}

void LevelQuestion::take_owners(const Reply& reply) {
  const auto owners = read_owners(reply);
  if (!owners) return give_up_as_controller(owners.error());
  const bool all_theirs = !owners->empty() && std::ranges::all_of(*owners, [&](const auto& one) {
    return one.user == who_.user;
  });
  if (all_theirs) return decide(Access::kOwner, true);
  if (needed_ == Access::kOwner) return decide(Access::kCanRead, false);
  const auto ours = std::ranges::find(*owners, object_.request, &RequestOwner::request);
  // The request has another container by now: the levels would be of something else.
  if (ours == owners->end()) return decide(Access::kCanRead, true);
  project_ = ours->project;
  step_ = Step::kManage;
}

void LevelQuestion::take_manage(const Reply& reply) {
  auto manages = read_may_manage(reply);
  if (!manages) {
    // Somebody took the right to read away in between.
    return give_up(std::move(manages).error());
  }
  if (*manages) return decide(Access::kCanManage, true);
  if (needed_ == Access::kCanManage) return decide(Access::kCanRead, false);
  step_ = Step::kSubjects;
}

void LevelQuestion::take_subjects(const Reply& reply) {
  const auto rows = read_permissions(reply);
  if (!rows) return give_up_as_controller(rows.error());
  subjects_ = {who_.user};
  for (const auto& row : *rows) {
    if (subjects_.size() > kMaxSubjects) break;
    // Through a user one has rights only by managing them (traverse_owned).
    if (row.user != who_.user || row.level != PermissionLevel::kCanManage ||
        row.target == who_.user || !is_uuid(row.target, kUserKind)) {
      continue;
    }
    subjects_.push_back(row.target);
  }
  step_ = Step::kLevels;
}

void LevelQuestion::take_levels(const Reply& reply) {
  const auto rows = read_permissions(reply);
  if (!rows) return give_up_as_controller(rows.error());
  const bool writes = std::ranges::any_of(*rows, [&](const ComputedPermission& row) {
    if (std::ranges::find(subjects_, row.user) == subjects_.end()) return false;
    const bool by_project = row.target == project_;
    if (!by_project && row.target != object_.request) return false;
    // What a user owns passes on to those only who manage that user.
    const auto least = by_project && is_uuid(row.target, kUserKind) ? PermissionLevel::kCanManage
                                                                    : PermissionLevel::kCanWrite;
    return row.level >= least;
  });
  if (!writes) return decide(Access::kCanRead, true);
  if (!is_uuid(project_, kGroupKind)) return decide(Access::kCanWrite, true);
  step_ = Step::kFrozen;
}

void LevelQuestion::take_frozen(const Reply& reply) {
  const auto frozen = read_is_frozen(reply, project_);
  if (!frozen) return give_up_as_controller(frozen.error());
  decide(*frozen ? Access::kCanRead : Access::kCanWrite, true);
}

}  // namespace meshd::arvados
