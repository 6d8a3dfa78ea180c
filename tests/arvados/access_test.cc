// The five levels, step by step, from replies that are written here.
#include "arvados/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/arvados/samples.h"

namespace meshd::arvados {
namespace {

using policy::Access;
using testing::ElementsAre;
using testing::HasSubstr;

std::string what_of(const Ask& ask) {
  const auto path = ask.path.substr(std::string_view("/arvados/v1/").size());
  return std::string(ask.as_controller ? "controller " : "caller ") +
         path.substr(0, path.find('?'));
}

template <class Question>
void play(Question& question, std::vector<Reply> replies) {
  for (auto& reply : replies) {
    ASSERT_TRUE(question.next());
    question.take(reply);
  }
}

Reply scope_reply(int user, std::string_view scopes = R"(["all"])") {
  return json_reply(fmt::format(R"({{"owner_uuid":"{}","scopes":{}}})", user_uuid(user), scopes));
}

TEST(IdentityTest, ATokenIsItsUser) {
  IdentityQuestion question;
  EXPECT_EQ(what_of(*question.next()), "caller api_client_authorizations/current");
  question.take(scope_reply(1));
  EXPECT_EQ(what_of(*question.next()), "caller users/current");
  question.take(user_reply(user_uuid(1)));
  EXPECT_FALSE(question.next());
  EXPECT_EQ(question.answer()->user, user_uuid(1));
  EXPECT_FALSE(question.answer()->is_admin);
}

TEST(IdentityTest, WhoIsNobodyOrNotEverythingIsTold) {
  const auto fault = [](std::vector<Reply> replies) {
    IdentityQuestion question;
    play(question, std::move(replies));
    EXPECT_FALSE(question.next());
    return question.answer() ? Fault{255} : question.answer().error().fault;
  };
  EXPECT_EQ(fault({error_reply(401)}), Fault::kBadToken);
  EXPECT_EQ(fault({scope_reply(1, R"(["GET /arvados/v1/users/current"])")}), Fault::kForbidden);
  EXPECT_EQ(fault({scope_reply(1), error_reply(401)}), Fault::kBadToken);
  EXPECT_EQ(fault({scope_reply(1), user_reply(user_uuid(1), false, false)}), Fault::kForbidden);
  // Two answers about two users are a lie, and "not found" is no answer.
  EXPECT_EQ(fault({scope_reply(1), user_reply(user_uuid(2), true)}), Fault::kAway);
  EXPECT_EQ(fault({error_reply(404)}), Fault::kAway);
  EXPECT_EQ(fault({error_reply(500)}), Fault::kAway);
}

class LevelTest : public testing::Test {
 protected:
  static Reply read() { return json_reply(fmt::format(R"({{"uuid":"{}"}})", request_uuid(1))); }
  // Requests on the container: by user, in that user's project.
  static Reply owners(std::vector<int> users, const std::string& project = uuid("j7d0g", 1)) {
    std::string items;
    for (std::size_t i = 0; i < users.size(); ++i) {
      items += fmt::format(R"({}{{"uuid":"{}","modified_by_user_uuid":"{}","owner_uuid":"{}"}})",
                           i > 0 ? "," : "", request_uuid(static_cast<int>(i) + 1),
                           user_uuid(users[i]), project);
    }
    return items_reply(items, fmt::format(R"(,"items_available":{})", users.size()));
  }
  static std::string row(int user, const std::string& target, std::string_view level) {
    return fmt::format(R"({{"user_uuid":"{}","target_uuid":"{}","perm_level":"{}"}})",
                       user_uuid(user), target, level);
  }
  static Reply frozen(bool is) {
    return json_reply(fmt::format(R"({{"uuid":"{}","frozen_by_uuid":{}}})", uuid("j7d0g", 1),
                                  is ? '"' + user_uuid(8) + '"' : "null"));
  }
  LevelQuestion ask(Access needed, int user = 1, bool is_admin = false) {
    return {{user_uuid(user), "", is_admin}, {container_uuid(1), request_uuid(1)}, needed};
  }
  Answer<Standing> play_all(Access needed, std::vector<Reply> replies, bool is_admin = false) {
    auto question = ask(needed, 1, is_admin);
    play(question, std::move(replies));
    EXPECT_FALSE(question.next());
    return question.answer();
  }
};

TEST_F(LevelTest, PublicAsksNobody) {
  EXPECT_FALSE(ask(Access::kPublic).next());
  EXPECT_EQ(ask(Access::kPublic).answer()->level, Access::kPublic);
}

TEST_F(LevelTest, WhoReadsTheRequestCanRead) {
  auto question = ask(Access::kCanRead);
  EXPECT_EQ(what_of(*question.next()), "caller container_requests/" + request_uuid(1));
  question.take(read());
  EXPECT_EQ(question.answer()->level, Access::kCanRead);
  EXPECT_EQ(play_all(Access::kCanRead, {error_reply(404)}).error().fault, Fault::kNotFound);
  EXPECT_EQ(play_all(Access::kCanRead, {error_reply(401)}).error().fault, Fault::kBadToken);
  EXPECT_EQ(play_all(Access::kCanRead, {error_reply(403)}).error().fault, Fault::kForbidden);
  EXPECT_EQ(play_all(Access::kCanRead, {error_reply(502)}).error().fault, Fault::kAway);
}

TEST_F(LevelTest, WithoutARequestTheContainerIsRead) {
  LevelQuestion question({user_uuid(1), "", false}, {container_uuid(1), ""}, Access::kCanRead);
  EXPECT_EQ(what_of(*question.next()), "caller containers/" + container_uuid(1));
}

TEST_F(LevelTest, TheOwnerIsTheUserOfEveryRequestOnTheContainer) {
  EXPECT_EQ(play_all(Access::kOwner, {read(), owners({1})})->level, Access::kOwner);
  EXPECT_EQ(play_all(Access::kOwner, {read(), owners({1, 1})})->level, Access::kOwner);
  EXPECT_EQ(play_all(Access::kOwner, {read(), owners({1, 2})})->level, Access::kCanRead);
  EXPECT_EQ(play_all(Access::kOwner, {read(), owners({2})})->level, Access::kCanRead);
  EXPECT_EQ(play_all(Access::kOwner, {read(), owners({})})->level, Access::kCanRead);
}

TEST_F(LevelTest, AnAdministratorIsAsGoodAsTheOwner) {
  EXPECT_EQ(play_all(Access::kOwner, {read()}, true)->level, Access::kOwner);
  EXPECT_EQ(play_all(Access::kOwner, {error_reply(404)}, true).error().fault, Fault::kNotFound);
}

TEST_F(LevelTest, WhoMaySeeThePermissionsManages) {
  EXPECT_EQ(play_all(Access::kCanManage, {read(), owners({2}), items_reply("")})->level,
            Access::kCanManage);
  EXPECT_EQ(play_all(Access::kCanManage, {read(), owners({2}), error_reply(403)})->level,
            Access::kCanRead);
  EXPECT_EQ(play_all(Access::kCanManage, {read(), owners({2}), error_reply(404)}).error().fault,
            Fault::kNotFound);
}

TEST_F(LevelTest, WhoWritesTheRequestOrItsProjectCanWrite) {
  const auto level = [&](const std::string& subjects, const std::string& rows, bool is_frozen) {
    std::vector<Reply> replies = {read(), owners({2}), error_reply(403), items_reply(subjects),
                                  items_reply(rows)};
    auto question = ask(Access::kCanWrite);
    play(question, std::move(replies));
    if (question.next()) question.take(frozen(is_frozen));
    EXPECT_FALSE(question.next());
    return question.answer()->level;
  };
  const auto project = uuid("j7d0g", 1);
  EXPECT_EQ(level("", row(1, project, "can_write"), false), Access::kCanWrite);
  EXPECT_EQ(level("", row(1, request_uuid(1), "can_write"), false), Access::kCanWrite);
  EXPECT_EQ(level("", row(1, project, "can_read"), false), Access::kCanRead);
  EXPECT_EQ(level("", "", false), Access::kCanRead);
  EXPECT_EQ(level("", row(1, project, "can_write"), true), Access::kCanRead);
  // Of somebody else, and about something else.
  EXPECT_EQ(level("", row(3, project, "can_write"), false), Access::kCanRead);
  EXPECT_EQ(level("", row(1, request_uuid(2), "can_write"), false), Access::kCanRead);
  // By a user who is managed; one who is only written to gives nothing.
  EXPECT_EQ(level(row(1, user_uuid(3), "can_manage"), row(3, project, "can_write"), false),
            Access::kCanWrite);
  EXPECT_EQ(level(row(1, user_uuid(3), "can_write"), row(3, project, "can_write"), false),
            Access::kCanRead);
}

TEST_F(LevelTest, WhatAUserOwnsIsWrittenByThoseWhoManageTheUser) {
  const auto level = [&](std::string_view on_owner) {
    return play_all(Access::kCanWrite,
                    {read(), owners({2}, user_uuid(2)), error_reply(403), items_reply(""),
                     items_reply(row(1, user_uuid(2), on_owner))})
        ->level;
  };
  EXPECT_EQ(level("can_manage"), Access::kCanWrite);
  EXPECT_EQ(level("can_write"), Access::kCanRead);
}

TEST_F(LevelTest, QuestionsAreAskedInOrderAndWithTheRightToken) {
  auto question = ask(Access::kCanWrite);
  std::vector<std::string> asked;
  for (const auto& reply : {read(), owners({2}), error_reply(403), items_reply(""),
                            items_reply(row(1, uuid("j7d0g", 1), "can_write")), frozen(false)}) {
    asked.push_back(what_of(*question.next()));
    question.take(reply);
  }
  EXPECT_THAT(
      asked,
      ElementsAre("caller container_requests/" + request_uuid(1), "controller container_requests",
                  "caller permissions/" + request_uuid(1), "controller computed_permissions",
                  "controller computed_permissions", "controller groups/" + uuid("j7d0g", 1)));
}

TEST_F(LevelTest, TheControllersOwnTroubleIsNeverTheCallers) {
  for (const int status : {401, 403, 404, 500}) {
    const auto answer = play_all(Access::kOwner, {read(), error_reply(status)});
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().fault, Fault::kAway);
    EXPECT_THAT(answer.error().why, HasSubstr("controller's token"));
  }
}

TEST_F(LevelTest, ARequestWithAnotherContainerByNowGivesNothingButReading) {
  const auto other =
      items_reply(fmt::format(R"({{"uuid":"{}","modified_by_user_uuid":"{}","owner_uuid":"{}"}})",
                              request_uuid(5), user_uuid(2), user_uuid(2)),
                  R"(,"items_available":1)");
  EXPECT_EQ(play_all(Access::kCanWrite, {read(), other})->level, Access::kCanRead);
}

TEST_F(LevelTest, WhatIsNoContainerOfArvadosIsNotAskedAbout) {
  const LevelQuestion question({user_uuid(1), "", true}, {"db-1/../../users", ""}, Access::kOwner);
  EXPECT_FALSE(question.next());
  EXPECT_EQ(question.answer().error().fault, Fault::kNotFound);
}

}  // namespace
}  // namespace meshd::arvados
