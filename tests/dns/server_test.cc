#include "dns/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <vector>

#include "dns/limits.h"
#include "tests/dns/serving.h"
#include "tests/support/dns_messages.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

using testing::SizeIs;

TEST_F(ServerTest, AnswersDatagramsAndConnections) {
  start();
  EXPECT_THAT(ask_udp(db_).answers, SizeIs(1));
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  client.put_framed(make_query(db_));
  EXPECT_THAT(read_message(client.take_framed()).answers, SizeIs(1));
  EXPECT_GE(server_->stats().queries.load(), 2U);
}

TEST_F(ServerTest, AnswersOverIpv6) {
  start(1, "::1");
  Peer client(SOCK_DGRAM, "::1");
  client.connect_to(port_, "::1");
  client.put(make_query(db_));
  EXPECT_THAT(read_message(client.take()).answers, SizeIs(1));
}

TEST_F(ServerTest, UnknownSourcesGetNothingOverEitherWay) {
  start();
  Peer stranger(SOCK_STREAM, "127.0.0.2");
  stranger.connect_to(port_);
  EXPECT_TRUE(stranger.closed_by_server());
  Peer silent(SOCK_DGRAM, "127.0.0.2");
  silent.connect_to(port_);
  silent.put(make_query(db_));
  // One socket's datagrams are served in order: when this one is answered, that one was not.
  EXPECT_THAT(ask_udp(db_).answers, SizeIs(1));
  EXPECT_FALSE(readable(silent.fd(), 0));
}

TEST_F(ServerTest, PlainClientsAreLimitedAndOthersAreNot) {
  start(1, "127.0.0.1", 50);
  Peer plain(SOCK_STREAM, "127.0.2.1"), container(SOCK_STREAM);
  for (auto* client : {&plain, &container}) {
    client->connect_to(port_);
    for (int i = 0; i < 200; ++i) client->put_framed(make_query({.name = "x.local", .edns = true}));
  }
  int refused = 0;
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(read_message(container.take_framed()).rcode, 3U);
    const auto m = read_message(plain.take_framed());
    if (m.rcode != 2) continue;
    ++refused;
    EXPECT_EQ(m.ede_text, "you ask more often than this resolver allows");
  }
  EXPECT_GE(refused, 1);
  EXPECT_LE(refused, 100) << "a burst of two seconds' worth is answered";
  const auto dropped = server_->stats().dropped.load();
  Peer datagrams(SOCK_DGRAM, "127.0.2.1");
  datagrams.connect_to(port_);
  for (int i = 0; i < 200; ++i) datagrams.put(make_query({.name = "x.local"}));
  EXPECT_THAT(ask_udp(db_).answers, SizeIs(1));
  EXPECT_GT(server_->stats().dropped.load(), dropped);
}

TEST_F(ServerTest, AnUpstreamThatIsOurselvesIsNotAsked) {
  start();
  server_->set_upstreams({{ip_of("127.0.0.1"), port_}});
  EXPECT_TRUE(leads_back());
  const auto m = ask_udp({.name = "example.org", .edns = true});
  EXPECT_EQ(m.rcode, 2U);
  EXPECT_EQ(m.ede_text, "the upstream resolvers lead back to this one");
}

// Something between us and ourselves hands questions on, to another worker perhaps.
TEST_F(ServerTest, AnUpstreamThatLeadsBackToUsIsFoundAndNotAsked) {
  start(2);
  Peer relay(SOCK_DGRAM);
  server_->set_upstreams({{ip_of("127.0.0.1"), local_port(relay.fd()).value()}});
  for (int worker = 0; worker < 2; ++worker) {
    const auto probe = relay.take();
    ASSERT_EQ(read_message(probe).qtype, 13U);
    Peer onward(SOCK_DGRAM);
    onward.connect_to(port_);
    onward.put(probe);
    const auto answer = onward.take();
    EXPECT_EQ(read_message(answer).rcode, 2U);
    relay.put_back(answer);
  }
  EXPECT_TRUE(leads_back());
}

TEST_F(ServerTest, ForeignNamesGoUpstreamAndBackOverEitherWay) {
  start();
  const auto answer_upstream = [&](std::uint8_t last) {
    const auto query = next_query(upstream_);
    ASSERT_GT(query.size(), 12U);
    upstream_.put_back(make_reply(query, {{"example.org", 1, 60, {192, 0, 2, last}}}));
  };
  Peer udp(SOCK_DGRAM), tcp(SOCK_STREAM);
  udp.connect_to(port_);
  udp.put(make_query({.name = "example.org", .id = 7}));
  answer_upstream(1);
  const auto first = read_message(udp.take());
  EXPECT_EQ(first.id, 7U);
  ASSERT_THAT(first.answers, SizeIs(1));
  EXPECT_EQ(first.answers[0].data, "192.0.2.1");
  tcp.connect_to(port_);
  tcp.put_framed(make_query({.name = "example.net"}));
  tcp.put_framed(make_query(db_));
  EXPECT_EQ(read_message(tcp.take_framed()).qname, db_.name) << "what needs no upstream is first";
  answer_upstream(2);
  EXPECT_EQ(read_message(tcp.take_framed()).qname, "example.net");
  EXPECT_THAT(server_->upstream_states(), SizeIs(1));
}

TEST_F(ServerTest, NewUpstreamsTakeOverWhatIsUnderWay) {
  start();
  Peer client(SOCK_DGRAM), next(SOCK_DGRAM);
  client.connect_to(port_);
  client.put(make_query({.name = "example.org"}));
  ASSERT_FALSE(next_query(upstream_).empty());
  server_->set_upstreams({{ip_of("127.0.0.1"), local_port(next.fd()).value()}});
  const auto query = next_query(next);
  ASSERT_GT(query.size(), 12U);
  next.put_back(make_reply(query, {{"example.org", 1, 60, {192, 0, 2, 9}}}));
  EXPECT_THAT(read_message(client.take()).answers, SizeIs(1));
}

TEST_F(ServerTest, EndsWithQuestionsUnderWay) {
  start();
  Peer client(SOCK_DGRAM);
  client.connect_to(port_);
  client.put(make_query({.name = "example.org"}));
  ASSERT_FALSE(next_query(upstream_).empty());
  server_.reset();
  EXPECT_FALSE(readable(client.fd(), 0));
}

TEST_F(ServerTest, ANewSnapshotIsAnsweredFromAtOnce) {
  start();
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  for (int round = 0; round < 20; ++round) {
    auto view = sample_view();
    const bool there = round % 2 == 0;
    if (!there) view->names.clear();
    publish(view);
    EXPECT_EQ(ask_udp(db_).answers.size(), there ? 1U : 0U);
    client.put_framed(make_query(db_));
    EXPECT_EQ(read_message(client.take_framed()).answers.size(), there ? 1U : 0U);
  }
}

TEST_F(ServerTest, RefusalsAreReportedAndLimited) {
  start();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(ask_udp({.name = "web.svc.mesh.internal"}).rcode, 3U);
  ASSERT_TRUE(readable(server_->refusals().fd()));
  const auto refusals = server_->refusals().drain();
  ASSERT_FALSE(refusals.empty());
  EXPECT_EQ(refusals[0].client, "c1");
  EXPECT_EQ(refusals[0].name, "web.svc.mesh.internal");
  EXPECT_EQ(refusals[0].reason, "peer web is not available to you");
  EXPECT_EQ(server_->stats().refused.load(), 50U);
  EXPECT_EQ(server_->stats().unreported.load(), 50U - refusals.size());
}

TEST_F(ServerTest, SeveralWorkersShareOnePort) {
  start(2);
  EXPECT_THAT(listeners_, SizeIs(4));
  for (int i = 0; i < 50; ++i) EXPECT_THAT(ask_udp(db_).answers, SizeIs(1));
}

TEST_F(ServerTest, SocketsOutliveTheServerAndAreKnownAgain) {
  start();
  Peer client(SOCK_DGRAM);
  client.connect_to(port_);
  server_.reset();
  client.put(make_query(db_));  // nobody serves: it waits in the socket
  std::vector<Listener> adopted;
  for (auto& listener : listeners_) {
    const auto name = listener.name();
    auto again = adopt_listener(std::move(listener.fd), name);
    ASSERT_TRUE(again) << again.error().what;
    EXPECT_EQ(again->name(), name);
    adopted.push_back(*std::move(again));
  }
  auto server = Server::start(adopted, snapshots_, {});
  ASSERT_TRUE(server);
  EXPECT_THAT(read_message(client.take()).answers, SizeIs(1));
}

TEST(ListenerTest, OnlySocketsOfOursAreAdopted) {
  const auto adopt = [](int kind, const std::string& name) {
    return adopt_listener(UniqueFd(socket(AF_INET, kind, 0)), name).has_value();
  };
  EXPECT_TRUE(adopt(SOCK_DGRAM, "dns-udp-169.254.1.1-0"));
  EXPECT_TRUE(adopt(SOCK_DGRAM, "dns-udp-fd00__1-3"));
  EXPECT_FALSE(adopt(SOCK_STREAM, "dns-udp-169.254.1.1-0")) << "another kind";
  for (const auto* name : {"", "dns-udp-", "dns-udp-0", "dns-udp-169.254.1.1", "dns-udp-x-0",
                           "dns-udp-169.254.1.1-0x", "control", "dns-sctp-169.254.1.1-0"}) {
    EXPECT_FALSE(adopt(SOCK_DGRAM, name)) << name;
  }
}

}  // namespace
}  // namespace meshd::dns
