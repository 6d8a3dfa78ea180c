#include "controller/arvados_asker.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arvados/access.h"
#include "arvados/limits.h"
#include "arvados/paths.h"

namespace meshd::controller {
namespace {

using proxy::Answer;
using proxy::Question;

Answer failed(const arvados::Failure& failure) {
  using arvados::Fault;
  // Of whoever asks: what is wrong with our own token is kAway.
  const bool theirs = failure.fault == Fault::kBadToken || failure.fault == Fault::kForbidden;
  return {theirs ? Answer::Kind::kBadToken : Answer::Kind::kUnavailable, {}, std::nullopt};
}

Answer good(const arvados::Identity& who, std::optional<policy::Access> level) {
  return {Answer::Kind::kGood, {who.user, who.name, who.is_admin}, level};
}

// Of a workload that people declared: its owner may be one of Arvados' users, and no more is known.
std::optional<policy::Access> level_elsewhere(const arvados::Identity& who,
                                              const Question& question) {
  if (who.is_admin || who.user == question.owner) return policy::Access::kOwner;
  return std::nullopt;
}

}  // namespace

// One question with all that it takes.
struct ArvadosAsker::Asking {
  Question question;
  arvados::Token token;
  std::move_only_function<void(Answer)> done;
  arvados::IdentityQuestion who{};
  std::optional<arvados::LevelQuestion> level{};
  std::optional<arvados::Answer<std::vector<std::string>>> readable{};  // ids

  [[nodiscard]] std::optional<arvados::Ask> next() {
    if (auto ask = who.next()) return ask;
    if (needs_readable()) {
      return arvados::Ask{arvados::readable_containers_path(arvados::kMaxReadable), false,
                          arvados::kMaxAnswerBytes};
    }
    if (!level && needs_level()) {
      level.emplace(*who.answer(), arvados::LevelQuestion::Object{question.id, question.request},
                    question.needed);
    }
    return level ? level->next() : std::nullopt;
  }
  void take(const arvados::Reply& reply) {
    if (level) {
      level->take(reply);
    } else if (needs_readable()) {
      readable = arvados::read_live_containers(reply);
    } else {
      who.take(reply);
    }
  }
  // Once next() is absent.
  [[nodiscard]] Answer answer() const {
    if (!who.answer()) return failed(who.answer().error());
    const auto& identity = *who.answer();
    if (question.what == Question::What::kWho) return good(identity, std::nullopt);
    if (question.what == Question::What::kSees) return sees(identity);
    if (!level) return good(identity, level_elsewhere(identity, question));
    if (level->answer()) return good(identity, level->answer()->level);
    if (level->answer().error().fault == arvados::Fault::kNotFound) {
      return good(identity, std::nullopt);
    }
    return failed(level->answer().error());
  }

 private:
  // An administrator sees all without it.
  [[nodiscard]] bool needs_readable() const {
    return question.what == Question::What::kSees && !readable && !who.next() && who.answer() &&
           !who.answer()->is_admin;
  }
  [[nodiscard]] Answer sees(const arvados::Identity& identity) const {
    if (readable && !*readable) return failed(readable->error());
    auto result = good(identity, std::nullopt);
    if (readable) result.ids = **readable;
    return result;
  }
  [[nodiscard]] bool needs_level() const {
    return who.answer() && question.what == Question::What::kLevel &&
           arvados::is_uuid(question.id, arvados::kContainerKind);
  }
};

bool ArvadosAsker::ask(const Question& question, std::move_only_function<void(Answer)> done) {
  auto token = arvados::Token::parse(question.token);
  if (!token) {
    done({Answer::Kind::kBadToken, {}, std::nullopt});
    return true;
  }
  return go_on(std::make_shared<Asking>(Asking{question, *std::move(token), std::move(done)}));
}

bool ArvadosAsker::go_on(const std::shared_ptr<Asking>& asking) {
  const auto next = asking->next();
  if (!next) {
    asking->done(asking->answer());
    return true;
  }
  const auto own = next->as_controller ? own_.token() : nullptr;
  return client_.ask(*next, own ? *own : asking->token, [this, asking](arvados::Reply reply) {
    asking->take(reply);
    // Too much is under way for its next step.
    if (!go_on(asking)) asking->done({Answer::Kind::kUnavailable, {}, std::nullopt});
  });
}

}  // namespace meshd::controller
