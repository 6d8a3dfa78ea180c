// The endpoint while somebody else answers: slowly, never, or with nonsense.
#include "tests/proxy/endpoint_bed.h"

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::SizeIs;

using EndpointAskerTest = EndpointTest;

TEST_F(EndpointAskerTest, ARequestWaitsAndOthersAreServedMeanwhile) {
  start(&asker_);
  auto waits = client();
  waits.send(with_token("mesh_a").request("/auth"));
  EXPECT_TRUE(comes_true([&] { return asker_.held() == 1; }));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(ask("/auth").header("X-Mesh-Status"), "401");
  EXPECT_FALSE(waits.has_more(0));
  EXPECT_TRUE(comes_true([&] { return endpoint_->counts().waiting == 1; }));
  asker_.answer_held(may_read_);
  const auto reply = waits.read();
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.header("X-Arvados-User-UUID"), "zzzzz-tpzed-000000000000001");
  EXPECT_EQ(waits.ask("/auth", with_token("mesh_a")).status, 200) << "and is remembered";
  EXPECT_THAT(asker_.asked(), SizeIs(1));
}

TEST_F(EndpointAskerTest, ManyWhoWaitForTheSameAreOneQuestion) {
  start(&asker_);
  std::vector<HttpClient> clients;
  for (int i = 0; i < 300; ++i) {
    clients.push_back(client());
    clients.back().send(with_token(i % 3 == 0 ? "mesh_a" : "mesh_b").request("/auth"));
  }
  EXPECT_TRUE(comes_true([&] { return endpoint_->counts().waiting == 300; }));
  EXPECT_THAT(asker_.asked(), SizeIs(2));
  asker_.answer_held(may_read_);
  for (auto& one : clients) ASSERT_EQ(one.read().status, 200);
  EXPECT_TRUE(comes_true([&] { return endpoint_->counts().asked == 2; }));
}

TEST_F(EndpointAskerTest, AnAnswerIsAskedForAgainWhenItHasLapsed) {
  options_.cache.positive = 100ms;
  asker_.answer_with(may_read_);
  start(&asker_);
  EXPECT_EQ(ask("/auth", with_token("mesh_a")).status, 200);
  asker_.answer_with(Answer{Answer::Kind::kBadToken, {}, std::nullopt});
  EXPECT_TRUE(comes_true([&] { return ask("/auth", with_token("mesh_a")).status == 403; }));
}

TEST_F(EndpointAskerTest, NobodyWaitsForAnAskerThatNeverAnswers) {
  options_.ask_limit = 50ms;
  start(&asker_);
  for (int i = 0; i < 3; ++i) {
    const auto reply = ask("/auth", with_token("mesh_a"));
    EXPECT_EQ(reply.status, 403);
    EXPECT_EQ(reply.header("X-Mesh-Status"), "503");
  }
  EXPECT_EQ(ask("/answer", with_token("mesh_a")).status, 503);
  // What comes too late lets nobody in by itself.
  asker_.answer_held(may_read_);
  EXPECT_EQ(ask("/auth", with_token("mesh_a")).header("X-Mesh-Status"), "503");
  asker_.drop_held();
  EXPECT_TRUE(comes_true([&] { return endpoint_->counts().not_answered >= 5; }));
}

TEST_F(EndpointAskerTest, WhenTooMuchIsUnderWayNobodyIsLetIn) {
  asker_.set_full(true);
  start(&asker_);
  EXPECT_EQ(ask("/auth", with_token("mesh_a")).header("X-Mesh-Status"), "503");
  asker_.set_full(false);
  asker_.answer_with(may_read_);
  EXPECT_EQ(ask("/auth", with_token("mesh_a")).status, 200) << "it is not remembered";
}

TEST_F(EndpointAskerTest, AnAskerThatAnswersTwiceOrNobodyIsNotBelievedMore) {
  start(&asker_);
  auto one = client();
  one.send(with_token("mesh_a").request("/auth"));
  EXPECT_TRUE(comes_true([&] { return asker_.held() == 1; }));
  asker_.answer_held(Answer{Answer::Kind::kBadToken, {}, std::nullopt}, 5'000);
  EXPECT_EQ(one.read().header("X-Mesh-Status"), "401");
  asker_.answer_with(may_read_);
  EXPECT_EQ(ask("/auth", with_token("mesh_b")).status, 200) << "its box is not full for ever";
}

TEST_F(EndpointAskerTest, ANameThatBreaksAHeaderIsNotSent) {
  asker_.answer_with(
      Answer{Answer::Kind::kGood, {"u\r\nX-Mesh-Upstream: evil", "b\nob", true}, Access::kOwner});
  start(&asker_);
  const auto reply = ask("/auth", with_token("mesh_a"));
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.headers.count("X-Mesh-Upstream"), 1U);
  EXPECT_EQ(reply.header("X-Mesh-User"), "");
}

// Whose answer came for one workload is not let in to another that took its name meanwhile.
TEST_F(EndpointAskerTest, ADirectoryThatChangesMeanwhileIsAskedAboutAnew) {
  start(&asker_);
  auto one = client();
  one.send(with_token("mesh_a").request("/auth"));
  EXPECT_TRUE(comes_true([&] { return asker_.held() == 1; }));
  auto other = sample_opening("w2", "db");
  other.owner = "carol";
  end("w1");
  set(other);
  asker_.answer_held(may_read_);
  EXPECT_TRUE(comes_true([&] { return asker_.held() == 1; }));
  EXPECT_EQ(asker_.asked().back().id, "w2");
  asker_.answer_held(Answer{Answer::Kind::kGood, {}, std::nullopt});
  EXPECT_EQ(one.read().header("X-Mesh-Status"), "404");
}

TEST_F(EndpointAskerTest, WhoWaitsIsToldWhenItStops) {
  start(&asker_);
  std::vector<HttpClient> clients;
  for (int i = 0; i < 50; ++i) {
    clients.push_back(client());
    clients.back().send(with_token(fmt::format("mesh_{}", i)).request("/auth"));
  }
  EXPECT_TRUE(comes_true([&] { return asker_.held() == 50; }));
  endpoint_.reset();
  for (auto& one : clients) {
    const auto reply = one.read();
    EXPECT_EQ(reply.status, 403);
    EXPECT_EQ(reply.header("X-Mesh-Status"), "503");
  }
  asker_.answer_held(may_read_);  // whoever asked has gone
}

TEST_F(EndpointAskerTest, WhoGoesWhileTheyWaitLeavesNothingBehind) {
  start(&asker_);
  for (int i = 0; i < 20; ++i) {
    auto one = client();
    one.send(with_token(fmt::format("mesh_{}", i)).request("/auth"));
    EXPECT_TRUE(comes_true([&] { return asker_.asked().size() == std::size_t(i) + 1; }));
    one.close();
  }
  asker_.answer_held(may_read_);
  EXPECT_TRUE(comes_true([&] { return endpoint_->counts().connections == 0; }));
}

}  // namespace
}  // namespace meshd::proxy
