// Gate with the test's own clock: when questions are asked, and when what is open is cut.
#include "proxy/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "proxy/nginx_config.h"
#include "tests/proxy/fake_asker.h"
#include "tests/proxy/http_client.h"
#include "tests/proxy/samples.h"
#include "tests/support/temp_dir.h"

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

class TestExchange : public Exchange {
 public:
  using Exchange::Exchange;
  void wake() override { ++woken; }
  int woken = 0;
};

class GateTest : public testing::Test {
 protected:
  GateTest() {
    site_.zone = "mesh.example.org";
    opening_.ports.front().addresses = {IpAddress::v4(INADDR_LOOPBACK)};
    set(opening_);
    auto relay = Relay::make(dir_ / "relay", static_cast<gid_t>(-1));
    EXPECT_TRUE(relay);
    EndpointHooks hooks;
    hooks.open = [this](const MakeOpening& opening) { opened_.push_back(opening.port); };
    gate_ = std::make_unique<Gate>(
        Gate::Parts{&directory_, &asker_, PeopleSource(""), *std::move(relay), CacheLimits{}, 20s,
                    hooks, [this](const std::string& line) { notes_.push_back(line); },
                    [this](const std::string& line) { notes_.push_back(line); }});
  }
  void set(const Opening& opening) {
    writer_.set(opening);
    directory_.store(writer_.directory());
  }
  std::unique_ptr<TestExchange> begin(std::string_view token, bool upgrade = false,
                                      std::string_view host = "db.svc.mesh.example.org") {
    const auto cookie = token_cookie(token);
    Told told;
    told.head.method = "GET";
    told.head.host = told.line_host = host;
    told.head.uri = "/";
    told.head.client = "198.51.100.3";
    told.head.cookie = cookie;
    if (upgrade) told.head.upgrade = "websocket";
    auto exchange = std::make_unique<TestExchange>(site_, told, Exchange::At::kAuth, false);
    gate_->begin(*exchange, now_);
    return exchange;
  }
  static std::string header(const TestExchange& exchange, std::string_view name) {
    for (const auto& [one, value] : exchange.reply.value_or(Reply()).headers) {
      if (one == name) return value;
    }
    return "";
  }
  void answer(const Answer& answer) {
    asker_.answer_held(answer);
    gate_->serve_answers(now_);
  }
  void pass(Duration time) {
    for (const auto end = now_ + time; now_ < end;) {
      now_ += 1s;
      gate_->serve_answers(now_);
      gate_->tick(now_);
    }
  }
  // nginx's side of a websocket; nobody listens at the other, and so it is kept waiting there.
  UniqueFd connect_websocket(std::string_view token) {
    asker_.answer_with(may_read_);
    auto exchange = begin(token, true);
    gate_->serve_answers(now_);
    asker_.answer_with(std::nullopt);
    const auto upstream = header(*exchange, kUpstreamHeader);
    EXPECT_THAT(upstream, HasSubstr("unix:"));
    return connect_unix(upstream.substr(5));
  }

  const Answer may_read_{Answer::Kind::kGood, {"", "bob", false}, Access::kCanRead};
  const Answer may_not_{Answer::Kind::kGood, {"", "bob", false}, std::nullopt};
  Site site_;
  TempDir dir_;
  TimePoint now_{10h};
  Opening opening_ = sample_opening("w1", "db");
  DirectoryWriter writer_;
  Published<const Directory> directory_;
  FakeAsker asker_;
  std::vector<std::uint16_t> opened_;
  std::vector<std::string> notes_;
  std::unique_ptr<Gate> gate_;
};

TEST_F(GateTest, AnAnswerCountsFromWhenItWasAskedFor) {
  const auto first = begin("mesh_a");
  now_ += 15s;
  answer(may_read_);
  EXPECT_EQ(first->reply->status, 200);
  EXPECT_EQ(first->woken, 1);
  now_ += 44s;
  EXPECT_TRUE(begin("mesh_a")->reply) << "59 s after the question";
  now_ += 1s;
  EXPECT_FALSE(begin("mesh_a")->reply);
}

TEST_F(GateTest, NobodyWaitsLongerThanTheLimit) {
  const auto first = begin("mesh_a");
  pass(19s);
  EXPECT_FALSE(first->reply);
  const auto second = begin("mesh_a");
  pass(1s);
  ASSERT_TRUE(first->reply && second->reply);
  EXPECT_EQ(header(*first, kStatusHeader), "503");
  EXPECT_EQ(first->woken, 1);
  answer(may_read_);
  const auto third = begin("mesh_a");
  EXPECT_FALSE(third->reply) << "what came too late is not remembered";
}

TEST_F(GateTest, AnAskerThatForgetsEverythingFillsUpAndIsThenLeftAlone) {
  std::vector<std::unique_ptr<TestExchange>> waiting;
  for (std::size_t i = 0; i < kMaxQuestionsUnderWay; ++i) {
    waiting.push_back(begin(fmt::format("mesh_{}", i)));
  }
  EXPECT_FALSE(waiting.back()->reply);
  const auto more = begin("mesh_more");
  ASSERT_TRUE(more->reply);
  EXPECT_EQ(header(*more, kStatusHeader), "503");
  pass(20s);
  EXPECT_TRUE(waiting.front()->reply && waiting.back()->reply);
  answer(may_read_);
  EXPECT_FALSE(begin("mesh_more")->reply) << "once it answers there is room again";
}

TEST_F(GateTest, APublicationOnDemandIsWantedAgainAfterAWhile) {
  const Answer owner{Answer::Kind::kGood, {"", "alice", false}, Access::kOwner};
  asker_.answer_with(owner);
  const auto ask = [&] {
    const auto exchange = begin("mesh_a", false, "db--9000.svc.mesh.example.org");
    gate_->serve_answers(now_);
    return header(*exchange, kStatusHeader);
  };
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ask(), "503");
  EXPECT_THAT(opened_, ElementsAre(9000));
  pass(3s);
  EXPECT_EQ(ask(), "503");
  EXPECT_THAT(opened_, ElementsAre(9000, 9000));
}

TEST_F(GateTest, RefusalsAreOneLineAMinuteAndHoldNoToken) {
  asker_.answer_with(may_not_);
  for (int i = 0; i < 100; ++i) {
    const auto exchange = begin(fmt::format("mesh_secret{}", i));
    gate_->serve_answers(now_);
  }
  EXPECT_THAT(notes_, ElementsAre("refused: not-readable, w1, to bob"));
  now_ += 61s;
  const auto exchange = begin("mesh_secret");
  gate_->serve_answers(now_);
  ASSERT_THAT(notes_, SizeIs(2));
  EXPECT_EQ(notes_.back(), "refused: not-readable, w1, to bob (99 more since the last such line)");
}

// --- websockets ----------------------------------------------------------------------

class GateWebsocketTest : public GateTest {
 protected:
  GateWebsocketTest() {
    // Listens, and takes nobody: the kernel connects them all the same.
    listener_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof name;
    EXPECT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
    EXPECT_EQ(listen(listener_.get(), 64), 0);
    EXPECT_EQ(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
    opening_.ports.front().upstream_port = ntohs(name.sin_port);
    set(opening_);
    websocket_ = connect_websocket("mesh_a");
    EXPECT_TRUE(comes_true([&] {
      gate_->serve_relay(now_);
      return gate_->counts().websockets == 1;
    }));
    EXPECT_TRUE(is_readable(listener_.get()));
    EXPECT_TRUE(comes_true([&] {
      gate_->serve_relay(now_);
      return !is_readable(gate_->relay_fd(), 0);
    }));
  }
  [[nodiscard]] bool is_open() const { return gate_->counts().websockets == 1; }
  UniqueFd listener_, websocket_;
};

TEST_F(GateWebsocketTest, AreAskedAboutAheadOfTime) {
  EXPECT_THAT(asker_.asked(), SizeIs(1));
  pass(20s);
  EXPECT_THAT(asker_.asked(), SizeIs(2)) << "a third of the minute";
  answer(may_read_);
  pass(19s);
  EXPECT_THAT(asker_.asked(), SizeIs(2));
  EXPECT_TRUE(is_open());
}

TEST_F(GateWebsocketTest, AreCutAsSoonAsTheAnswerIsNo) {
  pass(20s);
  answer(may_not_);
  EXPECT_TRUE(is_open());
  pass(1s);
  EXPECT_FALSE(is_open());
  EXPECT_EQ(gate_->counts().websockets_cut, 1U);
}

TEST_F(GateWebsocketTest, OutliveAnAskerThatIsAwayForLessThanAMinute) {
  pass(21s);
  answer(Answer());
  pass(20s);
  answer(may_read_);
  pass(25s);
  EXPECT_TRUE(is_open());
}

TEST_F(GateWebsocketTest, AreCutAMinuteAfterTheLastAnswerWhateverTheAskerDoes) {
  asker_.answer_with(Answer());
  pass(59s);
  EXPECT_TRUE(is_open());
  pass(kUnsureLimit + 1s);
  EXPECT_FALSE(is_open());
}

TEST_F(GateWebsocketTest, WhoHasNoneAnyMoreIsForgotten) {
  EXPECT_EQ(gate_->counts().callers, 1U);
  websocket_.reset();
  gate_->serve_relay(now_);
  answer(may_read_);
  pass(kLeftAloneLimit + 2s);
  EXPECT_FALSE(is_open()) << "though the container keeps its end";
  pass(kDoorLife + 2s);
  EXPECT_EQ(gate_->counts().callers, 0U);
}

}  // namespace
}  // namespace meshd::proxy
