#include "dns/upstream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <map>

#include "base/unique_fd.h"
#include "dns/message.h"
#include "dns/reply.h"
#include "dns/server.h"
#include "dns/socket_address.h"
#include "tests/support/dns_messages.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// An Upstream, the loop that it wants, and the server that it asks.
class UpstreamTest : public testing::Test {
 protected:
  UpstreamTest() : server_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    const auto own = to_sockaddr(ip_of("127.0.0.1"), 0);
    EXPECT_EQ(bind(server_.get(), own.get(), own.size()), 0);
    make({ip_of("127.0.0.1"), local_port(server_.get()).value()});
  }
  void make(const UpstreamAddress& address) {
    auto made = Upstream::make(address, [this](int fd, bool readable, bool writable) {
      if (!readable && !writable) {
        watched_.erase(fd);
      } else {
        watched_[fd] = static_cast<short>((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
      }
    });
    ASSERT_TRUE(made);
    upstream_ = *std::move(made);
  }
  // What it brings back for one question.
  Octets ask(const std::string& name) {
    const auto client = make_query({.name = name});
    Query query;
    EXPECT_EQ(parse_query(client, query), Parsed::kQuery);
    bool done = false;
    Octets result;
    upstream_->ask(upstream_query(query, 7, {}), [&](Bytes reply, Upstream::Failure failure) {
      done = true;
      failure_ = failure;
      result.assign(reply.begin(), reply.end());
    });
    for (int i = 0; i < 200 && !done; ++i) turn();
    EXPECT_TRUE(done);
    return result;
  }
  void turn() {
    std::vector<pollfd> waits{{server_.get(), POLLIN, 0}};
    for (const auto& [fd, events] : watched_) waits.push_back({fd, events, 0});
    poll(waits.data(), waits.size(), 50);
    if ((waits[0].revents & POLLIN) != 0) serve();
    for (const auto& wait : std::span(waits).subspan(1)) {
      if (wait.revents == 0) continue;
      upstream_->on_event(wait.fd, (wait.revents & (POLLIN | POLLERR | POLLHUP)) != 0,
                          (wait.revents & POLLOUT) != 0);
    }
    upstream_->tick();
  }
  // A server from before EDNS: it does not understand a query with OPT.
  void serve() {
    Octets query(4096);
    SocketAddress from;
    const auto got =
        recvfrom(server_.get(), query.data(), query.size(), 0, from.get(), &from.size_);
    ASSERT_GT(got, 12);
    query.resize(static_cast<std::size_t>(got));
    const bool edns = read_message(query).edns;
    saw_edns_.push_back(edns);
    if (silent_) return;
    const auto reply = edns && !knows_edns_
                           ? make_reply(query, {}, 0x8181)
                           : make_reply(query, {{"example.org", 1, 60, {192, 0, 2, 1}}});
    sendto(server_.get(), reply.data(), reply.size(), 0, from.get(), from.size());
  }

  UniqueFd server_;
  std::map<int, short> watched_;
  std::unique_ptr<Upstream> upstream_;
  std::vector<bool> saw_edns_;
  bool knows_edns_ = false, silent_ = false;
  Upstream::Failure failure_{};
};

TEST_F(UpstreamTest, AServerWithoutEdnsIsRememberedAndAnswers) {
  for (const auto* name : {"a.org", "b.org", "c.org"}) {
    const auto reply = ask(name);
    ASSERT_GT(reply.size(), 12U) << name;
    EXPECT_EQ(read_message(reply).rcode, 0U) << name;
  }
  EXPECT_THAT(saw_edns_, ElementsAre(true, false, false, false));
}

TEST_F(UpstreamTest, AServerThatIgnoresOptIsStillAskedWithIt) {
  knows_edns_ = true;
  for (const auto* name : {"a.org", "b.org"}) EXPECT_FALSE(ask(name).empty());
  EXPECT_THAT(saw_edns_, ElementsAre(true, true));
}

TEST_F(UpstreamTest, SilenceAndAClosedPortDiffer) {
  silent_ = true;
  EXPECT_THAT(ask("a.org"), IsEmpty());
  EXPECT_EQ(failure_, Upstream::Failure::kSilent);
  const auto port = local_port(server_.get()).value();
  server_ = UniqueFd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));  // elsewhere
  make({ip_of("127.0.0.1"), port});
  EXPECT_THAT(ask("b.org"), IsEmpty());
  EXPECT_EQ(failure_, Upstream::Failure::kUnreachable);
}

}  // namespace
}  // namespace meshd::dns
