// Websockets through the endpoint's relay: who is cut when access is taken away, and who is not.
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/proxy/endpoint_bed.h"

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;

// A container that listens, and sends back what it gets.
class EchoContainer {
 public:
  EchoContainer() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof name;
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
    EXPECT_EQ(listen(fd_.get(), 64), 0);
    EXPECT_EQ(getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
    port_ = ntohs(name.sin_port);
  }
  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] UniqueFd take() const {
    EXPECT_TRUE(is_readable(fd_.get()));
    return UniqueFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }

 private:
  UniqueFd fd_;
  std::uint16_t port_ = 0;
};

// Both ends of one.
struct Socket {
  UniqueFd outer, inner;

  [[nodiscard]] bool carries() const {
    const auto passes = [](const UniqueFd& from, const UniqueFd& to) {
      char byte = 0;
      return send(from.get(), "x", 1, MSG_NOSIGNAL) == 1 && is_readable(to.get()) &&
             recv(to.get(), &byte, 1, 0) == 1 && byte == 'x';
    };
    return outer && inner && passes(outer, inner) && passes(inner, outer);
  }
  [[nodiscard]] bool is_cut() const {
    char byte = 0;
    return is_readable(outer.get()) && recv(outer.get(), &byte, 1, 0) <= 0;
  }
  [[nodiscard]] bool is_open() const { return !is_readable(outer.get(), 0) && carries(); }
};

class EndpointWebsocketTest : public EndpointTest {
 protected:
  EndpointWebsocketTest() { set(opening("w1")); }
  [[nodiscard]] Opening opening(const std::string& id) const {
    auto result = sample_opening(id, "db");
    result.ports.front().addresses = {IpAddress::v4(INADDR_LOOPBACK)};
    result.ports.front().upstream_port = container_.port();
    return result;
  }
  [[nodiscard]] static Said upgrade(const std::string& token) {
    auto said = token.empty() ? Said() : with_token(token);
    said.more = "X-Mesh-Upgrade: websocket\r\n";
    return said;
  }
  [[nodiscard]] std::string way(const Said& said) const {
    const auto reply = ask("/auth", said);
    EXPECT_EQ(reply.status, 200) << reply.header("X-Mesh-Status");
    const auto upstream = reply.header("X-Mesh-Upstream");
    EXPECT_TRUE(upstream.starts_with("unix:/")) << upstream;
    return upstream.substr(std::min(upstream.size(), std::string("unix:").size()));
  }
  [[nodiscard]] Socket open(const Said& said) const {
    Socket result{connect_unix(way(said)), container_.take()};
    EXPECT_TRUE(result.carries());
    return result;
  }
  [[nodiscard]] Socket open(const std::string& token) const { return open(upgrade(token)); }
  // Looked at three times more.
  void look_again() const {
    const auto before = used_version();
    EXPECT_TRUE(comes_true([&] { return used_version() >= before + 3; }));
  }

  EchoContainer container_;

 private:
  // The endpoint tells of open websockets each time that it has looked at them.
  [[nodiscard]] std::uint64_t used_version() const {
    const std::lock_guard lock(mutex_);
    return told_;
  }
};

TEST_F(EndpointWebsocketTest, EndsWithTheTokenAndNobodyElses) {
  const auto bob = make_reader("bob", "alice");
  const auto bobs = last_id_;
  const auto alice = make_token("alice");
  start();
  const auto one = open(bob), two = open(bob), other = open(alice);
  look_again();
  EXPECT_TRUE(one.is_open() && two.is_open() && other.is_open());
  remove_token(bobs);
  EXPECT_TRUE(one.is_cut() && two.is_cut());
  look_again();
  EXPECT_TRUE(other.is_open());
  EXPECT_TRUE(comes_true([&] { return endpoint_->counts().websockets_cut == 1; }));
  EXPECT_TRUE(comes_true([&] { return endpoint_->counts().websockets == 1; }));
}

TEST_F(EndpointWebsocketTest, EndsWithTheLevelAndNobodyElses) {
  asker_.answer_with(may_read_);
  options_.cache.positive = 200ms;
  options_.look_again = 1h;  // for answers that count for long
  start(&asker_);
  const auto one = open("mesh_a");
  EXPECT_TRUE(comes_true([&] { return asker_.asked().size() >= 5; })) << "ahead of time";
  EXPECT_TRUE(one.is_open());
  asker_.answer_with(Answer{Answer::Kind::kGood, {}, std::nullopt});
  EXPECT_TRUE(one.is_cut());
}

TEST_F(EndpointWebsocketTest, EndsWithTheWorkloadOrItsPublication) {
  const auto alice = make_token("alice");
  start();
  const auto one = open(alice);
  auto without = opening("w1");
  without.ports.clear();
  set(without);
  EXPECT_TRUE(one.is_cut());
  set(opening("w1"));
  const auto two = open(alice);
  end("w1");
  EXPECT_TRUE(two.is_cut());
}

TEST_F(EndpointWebsocketTest, EndsWhenTheWorkloadIsElsewhere) {
  const auto alice = make_token("alice");
  start();
  const auto one = open(alice);
  auto moved = opening("w1");
  moved.ports.front().upstream_port = 1;
  set(moved);
  EXPECT_TRUE(one.is_cut());
}

TEST_F(EndpointWebsocketTest, GoesOnWhileTheWorkloadDrains) {
  const auto alice = make_token("alice");
  const auto id = last_id_;
  start();
  const auto one = open(alice);
  auto draining = opening("w1");
  draining.state = Opening::State::kDraining;
  set(draining);
  EXPECT_EQ(ask("/auth", upgrade(alice)).header("X-Mesh-Status"), "410") << "nothing new";
  look_again();
  EXPECT_TRUE(one.is_open());
  set(opening("w2"));  // takes its place, which changes nothing for who is at the first
  look_again();
  EXPECT_TRUE(one.is_open());
  remove_token(id);
  EXPECT_TRUE(one.is_cut()) << "access counts all the same";
}

TEST_F(EndpointWebsocketTest, GoesOnWhileItsPortIsNotReady) {
  const auto alice = make_token("alice");
  start();
  const auto one = open(alice);
  auto away = opening("w1");
  away.ports.front().ready = false;
  set(away);
  look_again();
  EXPECT_TRUE(one.is_open());
}

TEST_F(EndpointWebsocketTest, AnAddressThatIsNoLongerAllowedIsCutAlone) {
  auto open_to_all = opening("w1");
  open_to_all.ports.front().access = Access::kPublic;
  set(open_to_all);
  start();
  auto far = upgrade("");
  far.client = "203.0.113.9";
  const auto near = open(""), other = open(far);
  auto narrow = open_to_all;
  narrow.ports.front().allow_from = {Prefix::parse("198.51.100.0/24").value()};
  set(narrow);
  EXPECT_TRUE(other.is_cut());
  look_again();
  EXPECT_TRUE(near.is_open());
}

TEST_F(EndpointWebsocketTest, AWayIsTheCallersAlone) {
  const auto alice = make_token("alice");
  const auto bob = make_reader("bob", "alice");
  start();
  const std::vector<std::string> ways = {way(upgrade(alice)), way(upgrade(bob))};
  EXPECT_NE(ways.front(), ways.back());
  EXPECT_EQ(way(upgrade(alice)), ways.front());
  for (const auto& path : ways) {
    EXPECT_EQ(path.find(alice), std::string::npos);
    EXPECT_LT(path.size(), dir_.path().size() + 60);
  }
}

TEST_F(EndpointWebsocketTest, OneThatIsOpenCountsAsUse) {
  const auto alice = make_token("alice");
  start();
  const auto one = open(alice);
  {
    const std::lock_guard lock(mutex_);
    used_.clear();
  }
  EXPECT_TRUE(comes_true([&] { return used().contains({"w1", Proto::kTcp, 8888}); }));
}

TEST_F(EndpointWebsocketTest, AllEndWhenItStops) {
  const auto alice = make_token("alice");
  start();
  const auto one = open(alice);
  endpoint_.reset();
  EXPECT_TRUE(one.is_cut());
}

}  // namespace
}  // namespace meshd::proxy
