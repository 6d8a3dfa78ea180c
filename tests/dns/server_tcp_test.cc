#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <vector>

#include "dns/limits.h"
#include "dns/server.h"
#include "tests/dns/serving.h"
#include "tests/support/dns_messages.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

using testing::SizeIs;

using ServerTcpTest = ServerTest;

TEST_F(ServerTcpTest, ManyQuestionsInOnePieceAreAllAnswered) {
  start();
  Octets all;
  for (std::uint16_t id = 1; id <= 100; ++id) {
    auto question = db_;
    question.id = id;
    const auto one = Peer::framed(make_query(question));
    all.insert(all.end(), one.begin(), one.end());
  }
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  client.put(all);
  for (std::uint16_t id = 1; id <= 100; ++id) {
    ASSERT_EQ(read_message(client.take_framed()).id, id);
  }
}

TEST_F(ServerTcpTest, AMessageInPiecesDoesNotHoldUpOthers) {
  start();
  Peer slow(SOCK_STREAM), quick(SOCK_STREAM);
  slow.connect_to(port_);
  quick.connect_to(port_);
  const auto bytes = Peer::framed(make_query(db_));
  for (const auto byte : bytes) {
    if (&byte == &bytes.back()) break;
    slow.put({byte});
  }
  quick.put_framed(make_query(db_));
  EXPECT_THAT(read_message(quick.take_framed()).answers, SizeIs(1));
  slow.put({bytes.back()});
  EXPECT_THAT(read_message(slow.take_framed()).answers, SizeIs(1));
}

TEST_F(ServerTcpTest, HalfAMessageIsNotWaitedForLong) {
  start();
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  client.put({0, 40, 1});
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(ServerTcpTest, AMessageLongerThanAnyQueryEndsTheConnection) {
  start();
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  client.put({0xff, 0xff, 0});
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(ServerTcpTest, OneClientHasEightConnectionsAndTheyWork) {
  start();
  std::vector<std::unique_ptr<Peer>> peers;
  for (std::size_t i = 0; i < kMaxTcpPerClient; ++i) {
    peers.push_back(std::make_unique<Peer>(SOCK_STREAM));
    peers.back()->connect_to(port_);
  }
  Peer ninth(SOCK_STREAM);
  ninth.connect_to(port_);
  EXPECT_TRUE(ninth.closed_by_server());
  for (auto& peer : peers) {
    peer->put_framed(make_query(db_));
    EXPECT_THAT(read_message(peer->take_framed()).answers, SizeIs(1));
  }
}

TEST_F(ServerTcpTest, AFewClientsCannotTakeAllConnections) {
  start();
  std::vector<std::unique_ptr<Peer>> hostile;
  for (std::size_t i = 0; i < kMaxTcp; ++i) {
    const auto address = "127.0.1." + std::to_string(1 + i / kMaxTcpPerClient);
    hostile.push_back(std::make_unique<Peer>(SOCK_STREAM, address));
    hostile.back()->connect_to(port_);
    // Its place is taken once it is answered, and it is in use later than those before it.
    hostile.back()->put_framed(make_query(db_));
    ASSERT_FALSE(hostile.back()->take_framed().empty());
  }
  for (int i = 0; i < 3; ++i) {
    Peer victim(SOCK_STREAM, "127.0.1.9");
    victim.connect_to(port_);
    victim.put_framed(make_query(db_));
    EXPECT_THAT(read_message(victim.take_framed()).answers, SizeIs(1)) << i;
  }
  EXPECT_TRUE(hostile.front()->closed_by_server()) << "the one not used for longest";
  EXPECT_FALSE(readable(hostile.back()->fd(), 0)) << "the latest stays";
}

TEST_F(ServerTcpTest, AClientThatSendsNoMoreStillGetsWhatIsUnderWay) {
  start();
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  client.put_framed(make_query({.name = "example.org"}));
  client.put_framed(make_query(db_));
  ASSERT_EQ(shutdown(client.fd(), SHUT_WR), 0);
  EXPECT_EQ(read_message(client.take_framed()).qname, db_.name);
  const auto query = next_query(upstream_);
  ASSERT_GT(query.size(), 12U);
  upstream_.put_back(make_reply(query, {{"example.org", 1, 60, {192, 0, 2, 1}}}));
  EXPECT_EQ(read_message(client.take_framed()).qname, "example.org");
  EXPECT_TRUE(client.closed_by_server()) << "then there is nothing more to wait for";
}

TEST_F(ServerTcpTest, PartOfAMessageBehindAWholeOneIsNotWaitedForLonger) {
  start();
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  auto bytes = Peer::framed(make_query(db_));
  bytes.insert(bytes.end(), {0, 40, 1});
  const auto begun = BootClock::now();
  client.put(bytes);
  EXPECT_THAT(read_message(client.take_framed()).answers, SizeIs(1));
  EXPECT_TRUE(client.closed_by_server());
  EXPECT_LT(BootClock::now() - begun, (kTcpPartial + kTcpIdle) / 2);
}

TEST_F(ServerTcpTest, AClientThatDoesNotReadIsNotReadFrom) {
  auto view = sample_view();
  view->why.assign(200, std::string(250, 'y'));
  publish(view);
  start();
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  const timeval soon{0, 200'000};
  setsockopt(client.fd(), SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
  Octets many;
  for (int i = 0; i < 1000; ++i) {
    const auto one = Peer::framed(make_query({.name = "why.mesh.internal", .type = 16}));
    many.insert(many.end(), one.begin(), one.end());
  }
  // 40 bytes ask for 50,000: the sockets are full long before the server would stop by itself.
  bool blocked = false;
  for (int i = 0; i < 2000 && !blocked; ++i) {
    blocked = send(client.fd(), many.data(), many.size(), MSG_NOSIGNAL) <
              static_cast<ssize_t>(many.size());
  }
  EXPECT_TRUE(blocked);
  for (int i = 0; i < 50; ++i) {
    ASSERT_THAT(read_message(client.take_framed()).answers, SizeIs(200));
  }
  // What the sockets hold, and little more: thousands were asked for.
  EXPECT_LT(server_->stats().answered.load(), 700U);
}

TEST_F(ServerTcpTest, OnAConnectionTooManyQuestionsAreRefusedWithTheReason) {
  start();
  Octets all;
  for (std::size_t i = 0; i <= kMaxForwardsPerClient; ++i) {
    const auto one =
        Peer::framed(make_query({.name = "n" + std::to_string(i) + ".org", .edns = true}));
    all.insert(all.end(), one.begin(), one.end());
  }
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  client.put(all);
  const auto refused = read_message(client.take_framed());
  EXPECT_EQ(refused.qname, "n" + std::to_string(kMaxForwardsPerClient) + ".org");
  EXPECT_EQ(refused.rcode, 2U);
  EXPECT_EQ(refused.ede, 0);
  EXPECT_EQ(refused.ede_text, "too many questions wait for upstream resolvers");
  client.put_framed(make_query(db_));
  EXPECT_THAT(read_message(client.take_framed()).answers, SizeIs(1)) << "own names have no part";
}

}  // namespace
}  // namespace meshd::dns
