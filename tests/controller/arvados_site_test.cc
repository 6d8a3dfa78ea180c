// An Arvados site at the controller, against the stand-in of the API: what is declared when, the
// token's file, names of links, and the proxy's questions.
#include "controller/arvados_site.h"

#include <gmock/gmock.h>
#include <poll.h>
#include <sys/stat.h>

#include <future>

#include "tests/arvados/api_server.h"
#include "tests/arvados/samples.h"
#include "tests/arvados/site_people.h"
#include "tests/controller/controller_bed.h"
#include "tests/support/text_file.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using arvados::container_uuid;
using arvados::request_uuid;
using arvados::user_token;
using arvados::user_uuid;
using policy::Access;
using proxy::Answer;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

// The controller's token is user 0's; request 1 of user 1 has container 1.
class ArvadosSiteTest : public ControllerTest {
 protected:
  void SetUp() override {
    arvados_ = true;
    web_ = proxy::Site{"zzzzz.example.org", 443, {}, 0, 0};
    ControllerTest::SetUp();
    arvados::put_people(api_);
    put_request(1, 1);
    write_token(user_token(0));
    now_.steady = BootClock::now();
  }
  void write_token(const std::string& text, mode_t mode = 0600) {
    ASSERT_TRUE(write_file(config().token_file + ".new", text + "\n"));
    ASSERT_EQ(chmod((config().token_file + ".new").c_str(), mode), 0);
    ASSERT_EQ(rename((config().token_file + ".new").c_str(), config().token_file.c_str()), 0);
  }
  void put_request(int number, int container, const std::string& more = "") {
    arvados::put_request(api_, number, container, 1, more);
  }
  ArvadosConfig config() { return {api_.host(), api_.dir() / "token", api_.ca_file(), poll_}; }
  void start() {
    auto made = ArvadosSite::make(config(), *controller_,
                                  [this](const std::string& name, std::optional<proxy::Target> to) {
                                    names_[name] = to ? proxy::target_text(*to) : "";
                                    controller_->set_alias(name, std::move(to));
                                  });
    ASSERT_TRUE(made) << made.error().what;
    site_ = *std::move(made);
  }
  // The loop, until that holds.
  bool until(const std::function<bool()>& holds, Duration patience = 30s) {
    const auto end = BootClock::now() + patience;
    while (!holds()) {
      const auto now = BootClock::now();
      if (now >= end) return false;
      const auto next = std::min(site_->next().value_or(end), end);
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now).count();
      pollfd wait{site_->fd(), POLLIN, 0};
      poll(&wait, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 1000)));
      now_.steady = BootClock::now();
      site_->serve(now_);
    }
    return true;
  }
  bool is_declared(int container) {
    return controller_->cluster().declaration(container_uuid(container)) != nullptr;
  }
  Answer ask(const proxy::Question& question) {
    std::promise<Answer> answer;
    auto told = answer.get_future();
    EXPECT_TRUE(
        site_->asker().ask(question, [&](Answer one) { answer.set_value(std::move(one)); }));
    return told.get();
  }
  Answer who(const std::string& as) {
    return ask(
        {.what = proxy::Question::What::kWho, .token = as, .id = {}, .owner = {}, .request = {}});
  }
  std::optional<Access> level(int user, Access needed = Access::kOwner, int container = 1) {
    const auto answer = ask({proxy::Question::What::kLevel, user_token(user),
                             container_uuid(container), user_uuid(1), request_uuid(1), needed});
    EXPECT_EQ(answer.kind, Answer::Kind::kGood);
    return answer.level;
  }

  arvados::ApiServer api_;
  Duration poll_ = 1s;
  std::map<std::string, std::string> names_;
  std::unique_ptr<ArvadosSite> site_;
};

TEST_F(ArvadosSiteTest, ItIsReadAtOnceAndAgain) {
  start();
  EXPECT_TRUE(until([&] { return is_declared(1); }));
  put_request(2, 2);
  EXPECT_TRUE(until([&] { return is_declared(2); }));
  api_.put("containers", container_uuid(2), R"("state":"Complete")");
  EXPECT_TRUE(until([&] { return !is_declared(2); }));
  EXPECT_TRUE(is_declared(1));
}

TEST_F(ArvadosSiteTest, AContainerThatANodeWaitsForIsAskedForAtOnce) {
  poll_ = 1h;
  start();
  ASSERT_TRUE(until([&] { return is_declared(1); }));
  FakeStream n1("n1");
  hello(*controller_, n1);
  put_request(2, 2);
  started(n1, container_uuid(2), 7);
  ASSERT_TRUE(until([&] { return !n1.started.empty(); })) << "the next reading is far away";
  EXPECT_EQ(n1.started.front().error(), "");
}

TEST_F(ArvadosSiteTest, WhileTheApiIsAwayNothingIsForgotten) {
  start();
  ASSERT_TRUE(until([&] { return is_declared(1); }));
  const auto trouble = [&] { return controller_->launch_report()->trouble; };
  for (const auto* const fault : {"status", "cut"}) {
    api_.fault(fault, R"("status":502)");
    api_.put("containers", container_uuid(1), R"("state":"Complete")");
    EXPECT_TRUE(until([&] { return !trouble().empty(); })) << fault;
    EXPECT_TRUE(is_declared(1));
    api_.put("containers", container_uuid(1), R"("state":"Running")");
    api_.tell("heal");
    EXPECT_TRUE(until([&] { return trouble().empty(); }));
  }
}

TEST_F(ArvadosSiteTest, TheTokenIsReadAgainWhenItsFileChanges) {
  api_.token("v2/zzzzz-gj3su-000000000000099/laterlaterlaterlater", user_uuid(0));
  start();
  ASSERT_TRUE(until([&] { return is_declared(1); }));
  api_.token(user_token(0), user_uuid(0), R"("expired":true)");
  ASSERT_TRUE(until([&] { return !controller_->launch_report()->trouble.empty(); }));
  EXPECT_THAT(controller_->launch_report()->trouble, HasSubstr("401"));
  EXPECT_THAT(controller_->launch_report()->trouble, Not(HasSubstr("secret0")));
  // One that others may read is not taken.
  write_token("v2/zzzzz-gj3su-000000000000099/laterlaterlaterlater", 0644);
  EXPECT_FALSE(until([&] { return controller_->launch_report()->trouble.empty(); }, 2s));
  write_token("v2/zzzzz-gj3su-000000000000099/laterlaterlaterlater");
  EXPECT_TRUE(until([&] { return controller_->launch_report()->trouble.empty(); }));
}

TEST_F(ArvadosSiteTest, ATokenFileThatOthersMayReadIsRefusedAtTheStart) {
  write_token(user_token(0), 0640);
  const auto made = ArvadosSite::make(config(), *controller_, {});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().what, HasSubstr("arvados.token_file: " + config().token_file));
  EXPECT_THAT(made.error().what, HasSubstr("chmod 600"));
}

TEST_F(ArvadosSiteTest, ALinksNameIsItsRequestsFromThereOn) {
  api_.put("links", arvados::uuid("o0j2j", 1),
           fmt::format(R"("name":"ollama","head_uuid":"{}","owner_uuid":"{}",)"
                       R"("properties":{{"port":11434}})",
                       request_uuid(1), user_uuid(1)));
  start();
  ASSERT_TRUE(until([&] { return names_.contains("ollama"); }));
  EXPECT_EQ(names_["ollama"], proxy::target_text(proxy::RequestTarget{request_uuid(1), 11434}));
  // Its node died: the next container of the request has the name without a word of the link's.
  api_.put("containers", container_uuid(1), R"("state":"Cancelled")");
  put_request(1, 3);
  ASSERT_TRUE(until([&] { return is_declared(3) && !is_declared(1); }));
  EXPECT_EQ(controller_->cluster().launch(container_uuid(3)).request, request_uuid(1));
  EXPECT_THAT(names_, SizeIs(1));
  // As the proxy has it: the name leads to the request, that to both, of which one has ended.
  const auto directory = controller_->openings()->directory();
  const proxy::Target target = proxy::RequestTarget{request_uuid(1), 11434};
  ASSERT_NE(directory->by_alias("ollama"), nullptr);
  EXPECT_EQ(*directory->by_alias("ollama"), target);
  const auto& openings = directory->of_request(request_uuid(1));
  ASSERT_THAT(openings, SizeIs(2));
  EXPECT_EQ(openings[0]->state, proxy::Opening::State::kEnded);
  EXPECT_EQ(openings[1]->id, container_uuid(3));
  EXPECT_EQ(openings[1]->state, proxy::Opening::State::kWaiting);
}

TEST(ArvadosNamesTest, WhatANameStoodForIsRememberedForAWhile) {
  std::vector<std::string> told;
  const auto sink = [&](const std::string& name, const std::optional<proxy::Target>& target) {
    told.push_back(name + " " + (target ? proxy::target_text(*target) : "gone"));
  };
  const auto to = [](int request) {
    return proxy::target_text(proxy::RequestTarget{request_uuid(request), 80});
  };
  ArvadosNames names;
  TimePoint now{1h};
  const auto of = [](int request) {
    arvados::Site site;
    site.names = {{"a", {container_uuid(request), request_uuid(request), 80}}};
    return site;
  };
  arvados::Site ended;
  ended.ended_names = {"a"};
  names.take(of(1), now, sink);
  names.take(of(1), now, sink);
  names.take(ended, now, sink);
  names.take(ended, now + kNameRemembered - 1s, sink);
  EXPECT_THAT(told, ElementsAre("a " + to(1)));
  names.take(of(2), now, sink);
  names.take(ended, now, sink);
  names.take(ended, now + kNameRemembered, sink);
  EXPECT_THAT(told, ElementsAre("a " + to(1), "a " + to(2), "a gone"));
  told.clear();
  names.take(of(1), now, sink);
  names.take({}, now, sink);
  EXPECT_THAT(told, ElementsAre("a " + to(1), "a gone")) << "its link is gone";
}

// --- the proxy's questions -----------------------------------------------------------

TEST_F(ArvadosSiteTest, WhoseATokenIs) {
  start();
  EXPECT_EQ(who(user_token(1)).user, (proxy::User{user_uuid(1), "user1", false}));
  EXPECT_TRUE(who(user_token(7)).user.admin);
  EXPECT_EQ(who(user_token(1) + "/" + container_uuid(1)).user.uuid, user_uuid(1));
  api_.token("expired", user_uuid(1), R"("expired":true)");
  api_.token("scoped", user_uuid(1), R"("scopes":["GET /arvados/v1/users/current"])");
  const std::string long_one(65536, 'x');
  for (const auto& bad :
       {user_token(1) + "garbage", std::string("nobodys"), std::string("expired"),
        std::string("scoped"), user_token(8), std::string(), std::string("a\r\nb"), long_one}) {
    EXPECT_EQ(who(bad).kind, Answer::Kind::kBadToken) << bad.substr(0, 60);
  }
}

TEST_F(ArvadosSiteTest, WhatTheirOwnersMayDo) {
  start();
  EXPECT_EQ(level(1), Access::kOwner);
  EXPECT_EQ(level(2), Access::kCanRead);
  EXPECT_EQ(level(2, Access::kCanRead), Access::kCanRead);
  EXPECT_EQ(level(4, Access::kCanWrite), Access::kCanManage);
  EXPECT_EQ(level(5), std::nullopt);
  EXPECT_EQ(level(5, Access::kPublic), Access::kPublic);
  EXPECT_EQ(level(7), Access::kOwner);
}

TEST_F(ArvadosSiteTest, WhichContainersSomebodySeesAreThoseThatTheyMayRead) {
  start();
  const auto sees = [&](int user) {
    return ask({.what = proxy::Question::What::kSees,
                .token = user_token(user),
                .id = {},
                .owner = {},
                .request = {}});
  };
  EXPECT_THAT(sees(1).ids, ElementsAre(container_uuid(1)));
  EXPECT_EQ(sees(1).user.uuid, user_uuid(1));
  EXPECT_THAT(sees(2).ids, ElementsAre(container_uuid(1)));
  EXPECT_EQ(sees(5).kind, Answer::Kind::kGood);
  EXPECT_TRUE(sees(5).ids.empty());
  EXPECT_TRUE(sees(7).user.admin);
  EXPECT_TRUE(sees(7).ids.empty()) << "needs none";
  EXPECT_EQ(sees(8).kind, Answer::Kind::kBadToken);
}

TEST_F(ArvadosSiteTest, WhatPeopleDeclaredIsItsOwnersAndAdministrators) {
  start();
  const auto of = [&](int user) {
    return ask({proxy::Question::What::kLevel, user_token(user), "lab", user_uuid(1), "",
                Access::kCanRead})
        .level;
  };
  EXPECT_EQ(of(1), Access::kOwner);
  EXPECT_EQ(of(7), Access::kOwner);
  EXPECT_EQ(of(4), std::nullopt);
}

TEST_F(ArvadosSiteTest, WhatCannotBeBelievedIsUnavailable) {
  start();
  api_.fault("status", R"("status":500)");
  EXPECT_EQ(who(user_token(1)).kind, Answer::Kind::kUnavailable);
  api_.tell("heal");
  // Our own token is refused: that is not the caller's fault.
  api_.fault("status", R"("status":401,"path":"^container_requests$")");
  const auto answer = ask({proxy::Question::What::kLevel, user_token(1), container_uuid(1),
                           user_uuid(1), request_uuid(1), Access::kOwner});
  EXPECT_EQ(answer.kind, Answer::Kind::kUnavailable);
}

TEST_F(ArvadosSiteTest, QuestionsUnderWayAreAnsweredWhenItEnds) {
  start();
  api_.fault("hang");
  int answers = 0;
  constexpr int kMany = 50;
  for (int i = 0; i < kMany; ++i) {
    ASSERT_TRUE(site_->asker().ask({proxy::Question::What::kLevel, user_token(1), container_uuid(1),
                                    user_uuid(1), request_uuid(1), Access::kOwner},
                                   [&](const Answer& answer) {
                                     EXPECT_EQ(answer.kind, Answer::Kind::kUnavailable);
                                     ++answers;
                                   }));
  }
  site_.reset();
  EXPECT_EQ(answers, kMany);
}

}  // namespace
}  // namespace meshd::controller
