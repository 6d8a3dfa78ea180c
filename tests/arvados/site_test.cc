// Poller, client and questions of access together, against the stand-in of the API: what the
// controller does with them, without the controller.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include "arvados/access.h"
#include "arvados/client.h"
#include "arvados/paths.h"
#include "arvados/poller.h"
#include "tests/arvados/api_server.h"
#include "tests/arvados/samples.h"
#include "tests/arvados/site_people.h"

namespace meshd::arvados {
namespace {

using namespace std::chrono_literals;
using policy::Access;
using testing::ElementsAre;
using testing::HasSubstr;

// Of user 1's project is request 1.
class SiteBed : public testing::Test {
 protected:
  void SetUp() override {
    put_people(api_);
    put_request(1, 1, 1);
    client_ = Client::make({.host = api_.host(), .ca_file = api_.ca_file()}).value();
  }
  void put_request(int number, int container, int user, const std::string& more = "") {
    arvados::put_request(api_, number, container, user, more);
  }
  Reply ask(const Ask& what, const std::string& as) {
    const auto secret = Token::parse(what.as_controller ? user_token(0) : as).value();
    EXPECT_TRUE(client_->ask(what, secret, post_to(box_, 1)));
    pollfd wait{box_.fd(), POLLIN, 0};
    if (poll(&wait, 1, 30'000) <= 0) return {.trouble = "<nothing came>"};
    return box_.drain().front().reply;
  }
  template <class Question>
  void play(Question& question, const std::string& as) {
    while (const auto what = question.next()) question.take(ask(*what, as));
  }
  Answer<Identity> who(const std::string& as) {
    IdentityQuestion question;
    play(question, as);
    return question.answer();
  }
  Answer<Standing> level(int user, Access needed, int request = 1, int container = 1) {
    LevelQuestion question(who(user_token(user)).value(),
                           {container_uuid(container), request_uuid(request)}, needed);
    play(question, user_token(user));
    return question.answer();
  }
  bool may(int user, Access needed) {
    const auto standing = level(user, needed);
    return standing && standing->level <= needed;
  }
  // All of one reading.
  Listing listing(Poller& poller) {
    while (const auto question = poller.next(now_)) {
      poller.take(question->number, ask(question->ask, user_token(0)), now_);
    }
    for (auto& news : poller.news()) {
      if (auto* const all = std::get_if<Listing>(&news)) return std::move(*all);
      if (const auto* const trouble = std::get_if<Trouble>(&news)) ADD_FAILURE() << trouble->why;
    }
    ADD_FAILURE() << "nothing was listed";
    return {};
  }

  ApiServer api_;
  Mailbox<Replied> box_{4};
  std::unique_ptr<Client> client_;
  TimePoint now_{1h};
};

TEST_F(SiteBed, EveryKindOfTokenIsWhoItIs) {
  EXPECT_EQ(who(user_token(1))->user, user_uuid(1));
  EXPECT_TRUE(who(user_token(7))->is_admin);
  // A container's own token is its user's.
  EXPECT_EQ(who(user_token(1) + "/" + container_uuid(1))->user, user_uuid(1));
  EXPECT_EQ(who(user_token(1) + "garbage").error().fault, Fault::kBadToken);
  EXPECT_EQ(who(user_token(1) + "/garbage").error().fault, Fault::kBadToken);
  EXPECT_EQ(who("nobodys").error().fault, Fault::kBadToken);
  EXPECT_EQ(who(user_token(8)).error().fault, Fault::kForbidden);
  api_.token("expired", user_uuid(1), R"("expired":true)");
  EXPECT_EQ(who("expired").error().fault, Fault::kBadToken);
  api_.token("scoped", user_uuid(1), R"("scopes":["GET /arvados/v1/users/current"])");
  EXPECT_EQ(who("scoped").error().fault, Fault::kForbidden);
}

TEST_F(SiteBed, TheFiveLevelsAreWhatTheApiSays) {
  const std::vector<Access> ladder = {Access::kOwner, Access::kCanManage, Access::kCanWrite,
                                      Access::kCanRead};
  // How many rungs from the bottom each user reaches.
  for (const auto& [user, rungs] :
       std::vector<std::pair<int, int>>{{1, 4}, {2, 1}, {3, 2}, {4, 3}, {5, 0}, {6, 0}, {7, 4}}) {
    for (int rung = 0; rung < 4; ++rung) {
      EXPECT_EQ(may(user, ladder.at(static_cast<std::size_t>(rung))), rung >= 4 - rungs)
          << "user " << user << " rung " << rung;
    }
  }
  EXPECT_EQ(level(5, Access::kOwner).error().fault, Fault::kNotFound);
  EXPECT_EQ(level(6, Access::kCanRead).error().fault, Fault::kNotFound);
}

TEST_F(SiteBed, AnothersRequestOnTheContainerTakesOwnershipFromAll) {
  put_request(2, 1, 5);
  EXPECT_FALSE(may(1, Access::kOwner));
  EXPECT_TRUE(may(1, Access::kCanManage));
  EXPECT_TRUE(may(7, Access::kOwner));
}

TEST_F(SiteBed, AFrozenProjectIsNotWritten) {
  EXPECT_TRUE(may(3, Access::kCanWrite));
  api_.put("groups", project_uuid(1), fmt::format(R"("frozen_by_uuid":"{}")", user_uuid(1)));
  EXPECT_FALSE(may(3, Access::kCanWrite));
}

TEST_F(SiteBed, WhoManagesAWriterWrites) {
  EXPECT_FALSE(may(5, Access::kCanRead));
  api_.permit(user_uuid(5), user_uuid(3), "can_manage");
  EXPECT_TRUE(may(5, Access::kCanWrite));
}

TEST_F(SiteBed, TheSiteIsReadAsItIsAndAsItChanges) {
  put_request(2, 2, 1,
              fmt::format(R"("requesting_container_uuid":"{}","properties":{{"meshd":)"
                          R"({{"name":"db","serves":[{{"port":5432}}]}}}})",
                          container_uuid(9)));
  put_request(3, 3, 2, R"("priority":0)");
  api_.put("containers", container_uuid(4), R"("state":"Complete")");
  put_request(5, 5, 1, R"("state":"Final")");
  api_.put("containers", container_uuid(5), R"("state":"Cancelled")");
  api_.put("links", uuid("o0j2j", 1),
           fmt::format(R"("name":"ollama","head_uuid":"{}","owner_uuid":"{}","properties":)"
                       R"({{"port":11434}})",
                       request_uuid(2), user_uuid(1)));
  api_.tell("most", "2");  // the API gives fewer rows than it is asked for
  Poller poller({}, {});
  const auto first = site_of(listing(poller));
  EXPECT_EQ(first.workloads.size(), 3U);
  const auto* const db = first.find(container_uuid(2), user_uuid(1));
  ASSERT_NE(db, nullptr);
  EXPECT_EQ(db->declaration.name, "db");
  EXPECT_EQ(db->declaration.workflow, container_uuid(9));
  EXPECT_TRUE(first.find(container_uuid(3), user_uuid(2))->draining);
  EXPECT_EQ(first.names.at("ollama").container, container_uuid(2));

  std::map<std::string, Declared> have;
  for (const auto& step : difference({}, first, {}).declare) {
    have[step.declaration.id] = {step.declaration, step.draining, step.request};
  }
  // The database's node died: the same request has another container.
  api_.put("containers", container_uuid(2), R"("state":"Cancelled")");
  put_request(2, 20, 1,
              fmt::format(R"("requesting_container_uuid":"{}","properties":{{"meshd":)"
                          R"({{"name":"db","serves":[{{"port":5432}}]}}}})",
                          container_uuid(9)));
  now_ += kPause;
  const auto second = listing(poller);
  const auto site = site_of(second);
  const auto steps = difference(have, site, second.ended);
  ASSERT_EQ(steps.declare.size(), 1U);
  EXPECT_EQ(steps.declare[0].declaration.id, container_uuid(20));
  EXPECT_EQ(steps.declare[0].declaration.name, "db");
  EXPECT_THAT(steps.forget, ElementsAre(container_uuid(2)));
  EXPECT_EQ(site.names.at("ollama").container, container_uuid(20));
}

TEST_F(SiteBed, AnUnknownContainerIsFoundByItself) {
  Poller poller({}, {});
  listing(poller);
  put_request(6, 6, 1);
  ASSERT_TRUE(poller.want(container_uuid(6), now_));
  ASSERT_TRUE(poller.want(container_uuid(7), now_));
  const auto question = poller.next(now_);
  ASSERT_TRUE(question);
  poller.take(question->number, ask(question->ask, user_token(0)), now_);
  const auto news = poller.news();
  ASSERT_EQ(news.size(), 1U);
  const auto& found = std::get<Found>(news.front());
  EXPECT_TRUE(found.requests.by_container().contains(container_uuid(6)));
  EXPECT_THAT(found.unknown, ElementsAre(container_uuid(7)));
}

}  // namespace
}  // namespace meshd::arvados
