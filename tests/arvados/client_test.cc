// The real client against a server that speaks as the API does, over TLS: when all is well, and
// in every way in which it can fail.
#include "arvados/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <set>

#include "arvados/paths.h"
#include "tests/arvados/api_server.h"
#include "tests/arvados/samples.h"

namespace meshd::arvados {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const char* const kSecret = "v2/zzzzz-gj3su-000000000000001/sesamesesamesesamesesame";

class ClientTest : public testing::Test {
 protected:
  void SetUp() override {
    api_.put("users", user_uuid(1), R"("username":"active")");
    api_.token(kSecret, user_uuid(1));
  }
  std::unique_ptr<Client> client(std::chrono::milliseconds timeout = 20s) {
    return Client::make({.host = api_.host(), .ca_file = api_.ca_file(), .timeout = timeout})
        .value();
  }
  // The next reply, whichever it is.
  Replied wait() {
    while (arrived_.empty()) {
      pollfd wait{box_.fd(), POLLIN, 0};
      if (poll(&wait, 1, 30'000) <= 0) return {0, {.trouble = "<nothing came>"}};
      for (auto& replied : box_.drain()) arrived_.push_back(std::move(replied));
    }
    auto replied = std::move(arrived_.front());
    arrived_.erase(arrived_.begin());
    return replied;
  }
  Reply ask(Client& client, const std::string& path, std::size_t max_bytes = 1 << 20,
            const char* token = kSecret) {
    const bool taken =
        client.ask({path, false, max_bytes}, Token::parse(token).value(), post_to(box_, ++number_));
    EXPECT_TRUE(taken);
    return wait().reply;
  }
  Reply ask_once(const std::string& path, std::size_t max_bytes = 1 << 20) {
    const auto once = client();
    return ask(*once, path, max_bytes);
  }

  ApiServer api_;
  Mailbox<Replied> box_{kMaxUnderWay};
  std::vector<Replied> arrived_;
  std::uint64_t number_ = 0;
};

TEST_F(ClientTest, AnAnswerComesAsItWasGiven) {
  const auto reply = ask_once(current_user_path());
  EXPECT_EQ(reply.status, 200) << reply.trouble;
  EXPECT_EQ(read_user(reply).value().name, "active");
}

TEST_F(ClientTest, AnErrorComesWithItsStatus) {
  const auto client = this->client();
  const auto nobody = ask(*client, current_user_path(), 1 << 20, "nobody");
  EXPECT_EQ(read_user(nobody).error().fault, Fault::kBadToken);
  EXPECT_EQ(read_record(ask(*client, request_path(request_uuid(1))), request_uuid(1)).error().fault,
            Fault::kNotFound);
}

TEST_F(ClientTest, AServerWithoutTheRightCertificateIsToldNothing) {
  make_certificate(api_.dir(), "other", "IP:127.0.0.1");
  const auto stranger =
      Client::make({.host = api_.host(), .ca_file = api_.dir() / "other.pem"}).value();
  const auto reply = ask(*stranger, current_user_path());
  EXPECT_EQ(reply.status, 0);
  EXPECT_THAT(reply.trouble, AllOf(HasSubstr("certificate"), Not(HasSubstr("sesame"))));
  // By another name than its certificate's.
  const auto misnamed =
      Client::make({.host = fmt::format("localhost:{}", api_.port()), .ca_file = api_.ca_file()})
          .value();
  EXPECT_EQ(ask(*misnamed, current_user_path()).status, 0);
  EXPECT_EQ(api_.asked(), "[]");
}

TEST_F(ClientTest, ALostConnectionIsTriedAgain) {
  api_.fault("lose", R"("times":1)");
  EXPECT_EQ(ask_once(current_user_path()).status, 200);
  api_.fault("cut", R"("times":2)");
  EXPECT_EQ(ask_once(current_user_path()).status, 200);
}

TEST_F(ClientTest, OneThatIsLostAgainAndAgainIsTold) {
  api_.fault("cut");
  const auto reply = ask_once(current_user_path());
  EXPECT_EQ(reply.status, 0);
  EXPECT_EQ(reply.body, "");
  EXPECT_THAT(reply.trouble, HasSubstr("users/current: "));
  const auto asked = api_.asked();
  std::size_t count = 0;
  for (auto at = asked.find("target"); at != std::string::npos; at = asked.find("target", at + 1)) {
    ++count;
  }
  EXPECT_EQ(count, 1U + kMaxRetries);
}

TEST_F(ClientTest, AServerThatIsDownIsToldInTime) {
  const auto client = this->client(3s);
  EXPECT_EQ(ask(*client, current_user_path()).status, 200);
  api_.tell("stop");
  const auto reply = ask(*client, current_user_path());
  EXPECT_EQ(reply.status, 0);
  EXPECT_THAT(reply.trouble, Not(HasSubstr("sesame")));
  api_.tell("start");
  EXPECT_EQ(ask(*client, current_user_path()).status, 200);
}

TEST_F(ClientTest, AServerThatDoesNotAnswerIsGivenUp) {
  api_.fault("hang");
  const auto client = this->client(300ms);
  const auto reply = ask(*client, current_user_path());
  EXPECT_EQ(reply.status, 0);
  EXPECT_THAT(reply.trouble, HasSubstr("users/current: "));
  api_.tell("heal");
}

TEST_F(ClientTest, ARedirectIsNotFollowed) {
  const ApiServer elsewhere;
  api_.fault("redirect",
             fmt::format(R"("to":"https://{}/arvados/v1/users/current")", elsewhere.host()));
  const auto reply = ask_once(current_user_path());
  EXPECT_EQ(reply.status, 302);
  EXPECT_EQ(read_user(reply).error().fault, Fault::kAway);
}

TEST_F(ClientTest, MoreThanWasAllowedIsNotTaken) {
  api_.fault("body", fmt::format(R"("body":"{}")", std::string(5000, ' ')));
  const auto reply = ask_once(current_user_path(), 4999);
  EXPECT_TRUE(reply.too_large);
  EXPECT_EQ(read_user(reply).error().fault, Fault::kTooLarge);
  EXPECT_EQ(ask_once(current_user_path(), 5000).status, 200);
  api_.tell("heal");
  api_.fault("endless");
  EXPECT_TRUE(ask_once(current_user_path()).too_large);
  api_.tell("heal");
  api_.fault("headers");
  const auto headers = ask_once(current_user_path());
  EXPECT_EQ(headers.status, 0);
}

TEST_F(ClientTest, HtmlAndPlainErrorsAreNoAnswers) {
  api_.fault("body", R"("type":"text/html","body":"<html>{}</html>")");
  EXPECT_EQ(read_user(ask_once(current_user_path())).error().fault, Fault::kAway);
  api_.tell("heal");
  api_.fault("body", R"("type":"text/html","status":404,"body":"<html></html>")");
  EXPECT_EQ(read_user(ask_once(current_user_path())).error().fault, Fault::kAway);
  api_.tell("heal");
  api_.fault("status", R"("status":500)");
  EXPECT_EQ(read_user(ask_once(current_user_path())).error().fault, Fault::kAway);
}

TEST_F(ClientTest, ATokenThatTheApiQuotesIsCutOut) {
  api_.fault("status", fmt::format(R"("status":401,"text":"no such token {}")", kSecret));
  const auto reply = ask_once(current_user_path());
  EXPECT_EQ(reply.status, 401);
  EXPECT_THAT(reply.body, AllOf(HasSubstr("no such token *"), Not(HasSubstr("sesame"))));
}

TEST_F(ClientTest, ATokenIsInNoUrl) {
  ask_once(current_user_path());
  EXPECT_THAT(api_.asked(), AllOf(HasSubstr("users/current"), Not(HasSubstr("sesame"))));
}

TEST_F(ClientTest, TheEnvironmentsProxyIsNotAsked) {
  ASSERT_EQ(setenv("https_proxy", "http://127.0.0.1:1", 1), 0);
  const auto reply = ask_once(current_user_path());
  unsetenv("https_proxy");
  EXPECT_EQ(reply.status, 200) << reply.trouble;
}

TEST_F(ClientTest, ManyAreUnderWayAtOnceAndEachIsAnswered) {
  const auto client = this->client();
  std::set<std::uint64_t> open;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(client->ask({current_user_path(), false, 1 << 20}, Token::parse(kSecret).value(),
                            post_to(box_, ++number_)));
    open.insert(number_);
  }
  while (!open.empty()) {
    const auto replied = wait();
    EXPECT_EQ(replied.reply.status, 200) << replied.reply.trouble;
    ASSERT_EQ(open.erase(replied.number), 1U);
  }
}

TEST_F(ClientTest, WhatIsTooMuchIsRefused) {
  api_.fault("hang");
  const auto client = this->client();
  std::size_t taken = 0;
  for (std::size_t i = 0; i < kMaxUnderWay + 5; ++i) {
    if (client->ask({current_user_path(), false, 1 << 20}, Token::parse(kSecret).value(),
                    post_to(box_, ++number_))) {
      ++taken;
    }
  }
  EXPECT_EQ(taken, kMaxUnderWay);
  api_.tell("heal");
  for (std::size_t i = 0; i < taken; ++i) ASSERT_NE(wait().number, 0U);
}

TEST_F(ClientTest, WhatIsUnderWayAtTheEndIsAnswered) {
  api_.fault("hang");
  auto client = this->client();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client->ask({current_user_path(), false, 1 << 20}, Token::parse(kSecret).value(),
                            post_to(box_, ++number_)));
  }
  client.reset();
  for (int i = 0; i < 3; ++i) EXPECT_THAT(wait().reply.trouble, HasSubstr("the program ends"));
  api_.tell("heal");
}

TEST(ClientOptionsTest, AHostIsANameAndMaybeAPort) {
  for (const auto* host : {"zzzzz.example.org", "127.0.0.1:8443", "[::1]", "[::1]:443"}) {
    EXPECT_TRUE(Client::make({.host = host})) << host;
  }
  for (const auto* host :
       {"", "https://a.example", "a.example/x", "u@a.example", "a.example:", "a.example:0",
        "a.example:65536", "a b", "a?b", "a#b", "[::1", "::1", "a.example:80x", "a\r\nb"}) {
    EXPECT_FALSE(Client::make({.host = host})) << host;
  }
}

}  // namespace
}  // namespace meshd::arvados
