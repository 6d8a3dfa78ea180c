#include "dns/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <memory>
#include <vector>

#include "dns/limits.h"
#include "dns/socket_address.h"
#include "tests/support/dns_messages.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

using testing::SizeIs;

constexpr int kPatience = 10'000;  // ms; reached only by a test that fails

bool readable(int fd, int timeout = kPatience) {
  pollfd entry{fd, POLLIN, 0};
  return poll(&entry, 1, timeout) == 1;
}

// A socket of this test that talks to the server, or plays its upstream.
class Peer {
 public:
  explicit Peer(int kind, std::string_view address = "127.0.0.1")
      : fd_(socket(ip_of(address).is_v4() ? AF_INET : AF_INET6, kind | SOCK_CLOEXEC, 0)) {
    const auto own = to_sockaddr(ip_of(address), 0);
    EXPECT_EQ(bind(fd_.get(), own.get(), own.size()), 0);
  }
  void connect_to(std::uint16_t port, std::string_view address = "127.0.0.1") {
    const auto to = to_sockaddr(ip_of(address), port);
    ASSERT_EQ(connect(fd_.get(), to.get(), to.size()), 0);
  }
  void put(const Octets& bytes) {
    ASSERT_EQ(send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  Octets take() {
    Octets bytes(65536);
    if (!readable(fd_.get())) return {};
    from_ = SocketAddress();
    const auto got = recvfrom(fd_.get(), bytes.data(), bytes.size(), 0, from_.get(), &from_.size_);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }
  void put_back(const Octets& bytes) {
    ASSERT_GT(sendto(fd_.get(), bytes.data(), bytes.size(), 0, from_.get(), from_.size()), 0);
  }
  // One message with its length in front.
  void put_framed(const Octets& message) { put(framed(message)); }
  static Octets framed(const Octets& message) {
    Octets bytes;
    put16(bytes, static_cast<unsigned>(message.size()));
    bytes.insert(bytes.end(), message.begin(), message.end());
    return bytes;
  }
  Octets take_framed() {
    const auto exactly = [&](std::size_t size) {
      Octets bytes(size);
      std::size_t at = 0;
      while (at < size && readable(fd_.get())) {
        const auto got = recv(fd_.get(), bytes.data() + at, size - at, 0);
        if (got <= 0) break;
        at += static_cast<std::size_t>(got);
      }
      bytes.resize(at);
      return bytes;
    };
    const auto length = exactly(2);
    return length.size() < 2 ? Octets() : exactly(length[0] * 256U + length[1]);
  }
  bool closed_by_server() {
    std::uint8_t byte = 0;
    return readable(fd_.get()) && recv(fd_.get(), &byte, 1, 0) <= 0;
  }
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  SocketAddress from_;
};

class ServerTest : public testing::Test {
 protected:
  ServerTest() : upstream_(SOCK_DGRAM) { publish(sample_view()); }

  void publish(std::shared_ptr<View> view) {
    view->forward = true;
    Snapshot next(sample_settings());
    for (const auto* client : {"127.0.0.1", "::1"}) next.set(ip_of(client), view);
    snapshots_.store(std::make_shared<const Snapshot>(std::move(next)));
  }
  void start(int workers = 1, std::string_view address = "127.0.0.1") {
    auto listeners = open_listeners({ip_of(address)}, 0, workers);
    ASSERT_TRUE(listeners) << listeners.error().what;
    listeners_ = *std::move(listeners);
    port_ = local_port(listeners_.front().fd.get()).value();
    ServerOptions options;
    options.workers = workers;
    options.upstreams = {{ip_of("127.0.0.1"), local_port(upstream_.fd()).value()}};
    auto server = Server::start(listeners_, snapshots_, options);
    ASSERT_TRUE(server) << server.error().what;
    server_ = *std::move(server);
  }
  DnsMessage ask_udp(const Ask& question) {
    Peer client(SOCK_DGRAM);
    client.connect_to(port_);
    client.put(make_query(question));
    return read_message(client.take());
  }

  Published<Snapshot> snapshots_;
  Peer upstream_;
  std::vector<Listener> listeners_;
  std::uint16_t port_ = 0;
  std::unique_ptr<Server> server_;
  const Ask db_{.name = "db.wf1.wf.mesh.internal"};
};

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

TEST_F(ServerTest, ManyQuestionsInOnePieceAreAllAnswered) {
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

TEST_F(ServerTest, AMessageInPiecesDoesNotHoldUpOthers) {
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

TEST_F(ServerTest, HalfAMessageIsNotWaitedForLong) {
  start();
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  client.put({0, 40, 1});
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(ServerTest, AMessageLongerThanAnyQueryEndsTheConnection) {
  start();
  Peer client(SOCK_STREAM);
  client.connect_to(port_);
  client.put({0xff, 0xff, 0});
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(ServerTest, OneClientHasEightConnectionsAndTheyWork) {
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

TEST_F(ServerTest, ForeignNamesGoUpstreamAndBackOverEitherWay) {
  start();
  const auto answer_upstream = [&](std::uint8_t last) {
    const auto query = upstream_.take();
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
  ASSERT_FALSE(upstream_.take().empty());
  server_->set_upstreams({{ip_of("127.0.0.1"), local_port(next.fd()).value()}});
  const auto query = next.take();
  ASSERT_GT(query.size(), 12U);
  next.put_back(make_reply(query, {{"example.org", 1, 60, {192, 0, 2, 9}}}));
  EXPECT_THAT(read_message(client.take()).answers, SizeIs(1));
}

TEST_F(ServerTest, EndsWithQuestionsUnderWay) {
  start();
  Peer client(SOCK_DGRAM);
  client.connect_to(port_);
  client.put(make_query({.name = "example.org"}));
  ASSERT_FALSE(upstream_.take().empty());
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
