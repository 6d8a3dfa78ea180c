// A resolver with its sockets on loopback, its upstream, and peers that talk to both.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <memory>
#include <vector>

#include "dns/limits.h"
#include "dns/server.h"
#include "dns/socket_address.h"
#include "tests/support/dns_messages.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {

inline constexpr int kPatience = 10'000;  // ms; reached only by a test that fails

inline bool readable(int fd, int timeout = kPatience) {
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
    auto settings = sample_settings();
    settings->engine_prefixes = {prefix_of("127.0.2.0/24")};
    Snapshot next(settings);
    for (const auto* client : {"127.0.0.1", "::1"}) next.set(ip_of(client), view);
    for (int i = 1; i <= 9; ++i) next.set(ip_of("127.0.1." + std::to_string(i)), view);
    snapshots_.store(std::make_shared<const Snapshot>(std::move(next)));
  }
  void start(int workers = 1, std::string_view address = "127.0.0.1", double plain_rate = 2000) {
    auto listeners = open_listeners({ip_of(address)}, 0, workers);
    ASSERT_TRUE(listeners) << listeners.error().what;
    listeners_ = *std::move(listeners);
    port_ = local_port(listeners_.front().fd.get()).value();
    ServerOptions options;
    options.workers = workers;
    options.plain_rate = plain_rate;
    options.upstreams = {{ip_of("127.0.0.1"), local_port(upstream_.fd()).value()}};
    auto server = Server::start(listeners_, snapshots_, options);
    ASSERT_TRUE(server) << server.error().what;
    server_ = *std::move(server);
  }
  // The next question of a client; answers what only asks whether this leads back.
  static Octets next_query(Peer& upstream) {
    for (int i = 0; i < 100; ++i) {
      auto query = upstream.take();
      if (query.empty() || read_message(query).qtype != 13) return query;
      upstream.put_back(make_reply(query, {}, 0x8183));
    }
    return {};
  }
  // Waits until the server says so of its first upstream.
  bool leads_back() {
    Peer nobody(SOCK_DGRAM);
    for (int waited = 0; waited < kPatience; waited += 10) {
      const auto states = server_->upstream_states();
      if (!states.empty() && states[0].leads_back) return true;
      EXPECT_FALSE(readable(nobody.fd(), 10));
    }
    return false;
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

}  // namespace meshd::dns
