// The page at the endpoint, as nginx comes to it.
#include <atomic>

#include "tests/proxy/endpoint_bed.h"
#include "tests/proxy/overview_samples.h"

namespace meshd::proxy {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class EndpointPageTest : public EndpointTest {
 protected:
  EndpointPageTest() {
    hooks_.looked = [this] { ++looked_; };
    bed_.shape.workloads[0].links = {
        {8888, ServiceTarget{"db", {}}, "Notebook", "/lab", Access::kCanRead, true}};
  }
  void start_page(Asker* asker = nullptr) {
    auto started = Endpoint::start(options_, directory_, asker, hooks_, &overviews_);
    ASSERT_TRUE(started) << started.error().what;
    endpoint_ = *std::move(started);
  }
  void show() {
    auto overview = bed_.overview();
    overview.made_at = BootClock::now();
    overviews_.store(std::make_shared<const Overview>(std::move(overview)));
  }
  static Said page(std::string uri, std::string_view token = {}) {
    Said said;
    said.host = "mesh.mesh.example.org";
    said.uri = std::move(uri);
    if (!token.empty()) said.cookie = token_cookie(token);
    return said;
  }
  static Said at_service(std::string uri, std::string cookie = {}) {
    Said said;
    said.uri = std::move(uri);
    said.cookie = std::move(cookie);
    return said;
  }
  // "NAME=VALUE" of a Set-Cookie.
  static std::string pair_of(const std::string& set_cookie) {
    return set_cookie.substr(0, set_cookie.find(';'));
  }

  OverviewBed bed_;
  Published<const Overview> overviews_;
  std::atomic<int> looked_ = 0;
};

TEST_F(EndpointPageTest, WhoSignsInSeesTheirsOnceItIsMade) {
  const auto token = make_token("ada");
  start_page();
  auto sign_in = page("/sign-in");
  sign_in.method = "POST";
  sign_in.more = "X-Mesh-Authorization: Bearer " + token + "\r\n";
  const auto signed_in = ask("/page", sign_in);
  EXPECT_EQ(signed_in.status, 204);
  EXPECT_EQ(pair_of(signed_in.header("Set-Cookie")), token_cookie(token));
  const auto early = ask("/page", page("/state.json", token));
  EXPECT_EQ(early.status, 503);
  EXPECT_TRUE(comes_true([&] { return looked_ > 0; }));
  show();
  const auto seen = ask("/page", page("/state.json", token));
  EXPECT_EQ(seen.status, 200);
  EXPECT_THAT(seen.body, AllOf(HasSubstr("\"id\":\"worker\""), Not(HasSubstr("\"id\":\"spy\""))));
  auto again = page("/state.json", token);
  again.more = "If-None-Match: " + seen.header("ETag") + "\r\n";
  EXPECT_EQ(ask("/page", again).status, 304);
}

TEST_F(EndpointPageTest, AnOldPictureIsNotShownAsNow) {
  const auto token = make_token("ada");
  start_page();
  auto old = bed_.overview();
  old.made_at = BootClock::now() - kOverviewFresh - std::chrono::seconds(1);
  overviews_.store(std::make_shared<const Overview>(old));
  EXPECT_EQ(ask("/page", page("/state.json", token)).status, 503);
}

TEST_F(EndpointPageTest, TheApiIsAskedWhoLooks) {
  start_page(&asker_);
  show();
  Answer answer;
  answer.kind = Answer::Kind::kGood;
  answer.user = {"", "bob", false};
  answer.ids = {"spy"};
  asker_.answer_with(answer);
  const auto seen = ask("/page", page("/state.json", "mesh_x"));
  EXPECT_EQ(seen.status, 200);
  EXPECT_THAT(seen.body, HasSubstr("\"id\":\"spy\""));
  ASSERT_EQ(asker_.asked().size(), 1U);
  EXPECT_EQ(asker_.asked()[0].what, Question::What::kSees);
}

TEST_F(EndpointPageTest, OnlyThePagesHostHasThePage) {
  start_page();
  auto said = page("/");
  said.host = "db.svc.mesh.example.org";
  EXPECT_EQ(ask("/page", said).status, 421);
  EXPECT_EQ(ask("/auth", page("/")).header("X-Mesh-Status"), "404");
}

TEST_F(EndpointPageTest, ALinkSignsInAtTheServiceAndTheTokenIsInNoAddress) {
  const auto token = make_token("alice");
  bed_.shape.workloads[0].owner = "alice";
  start_page();
  show();
  const auto on = ask("/page", page("/open/db/8888", token));
  EXPECT_EQ(on.status, 303);
  EXPECT_EQ(on.header("Location"), "https://db.svc.mesh.example.org/lab?mesh_enter");
  const auto pass = pair_of(on.header("Set-Cookie"));
  EXPECT_THAT(pass, Not(HasSubstr(to_base64url(token))));

  const auto first = ask("/auth", at_service("/lab?mesh_enter", pass));
  EXPECT_EQ(first.header("X-Mesh-Status"), "303");
  const auto entered = ask("/answer", at_service("/lab?mesh_enter", pass));
  EXPECT_EQ(entered.status, 303);
  EXPECT_EQ(entered.header("Location"), "/lab");
  EXPECT_EQ(entered.headers.count("Set-Cookie"), 2U);
  EXPECT_EQ(pair_of(entered.header("Set-Cookie")), token_cookie(token));
  EXPECT_EQ(ask("/auth", at_service("/lab", token_cookie(token))).status, 200);

  const auto again = ask("/answer", at_service("/lab?mesh_enter", pass));
  EXPECT_EQ(again.header("Location"), "/lab");
  EXPECT_THAT(again.header("Set-Cookie"), Not(HasSubstr(to_base64url(token)))) << "it is spent";
}

TEST_F(EndpointPageTest, APassIsOfNoUseAtAnotherService) {
  const auto token = make_token("alice");
  bed_.shape.workloads[0].owner = "alice";
  set(sample_opening("w2", "evil"));
  start_page();
  show();
  const auto pass = pair_of(ask("/page", page("/open/db/8888", token)).header("Set-Cookie"));
  auto there = at_service("/lab?mesh_enter", pass);
  there.host = "evil.svc.mesh.example.org";
  const auto entered = ask("/answer", there);
  EXPECT_EQ(entered.status, 303);
  EXPECT_EQ(pair_of(entered.header("Set-Cookie")), "__Secure-mesh_pass=");
}

TEST_F(EndpointPageTest, WhoComesWithTheMarkAndNoPassIsNotSignedIn) {
  start_page();
  const auto entered = ask("/answer", at_service("/lab?mesh_enter"));
  EXPECT_EQ(entered.header("Location"), "/lab");
  EXPECT_EQ(entered.header("Set-Cookie"), "");
}

}  // namespace
}  // namespace meshd::proxy
