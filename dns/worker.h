// One worker of the resolver: an epoll loop over its sockets, connections and upstreams.
//
// Threads: run() is the thread; wake(), stop() and upstreams are set from outside.
// Owns:    duplicates of its listening sockets, its connections, forwarder and cache.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "dns/answer.h"
#include "dns/client_rate.h"
#include "dns/limits.h"
#include "dns/name.h"
#include "dns/server.h"
#include "dns/socket_address.h"

namespace meshd::dns {

class Server::Worker {
 public:
  Worker(const Published<Snapshot>& snapshots, Mailbox<Refusal>& refusals, ServerStats& stats,
         std::shared_ptr<LoopWatch> loops, const ServerOptions& options);
  ~Worker();

  [[nodiscard]] Status add(const Listener& listener);
  void start(const std::vector<UpstreamAddress>& upstreams, std::vector<UpstreamAddress> own);
  void set_upstreams(std::vector<UpstreamAddress> upstreams);
  [[nodiscard]] std::vector<UpstreamState> states() const;

 private:
  struct Connection {
    UniqueFd fd;
    std::uint64_t serial = 0;  // numbers of descriptors come again, these do not
    IpAddress client;
    std::vector<std::uint8_t> in, out;  // not yet understood, not yet sent
    std::size_t waiting = 0;            // answers that are to come from upstreams
    bool finished = false;              // no more queries are read; answers still go out
    TimePoint used_at{}, idle_at{};
    std::optional<TimePoint> partial_at;  // until then the rest of a message must be there
    [[nodiscard]] TimePoint ends_at() const {
      return partial_at ? std::min(*partial_at, idle_at) : idle_at;
    }
    [[nodiscard]] bool busy() const { return waiting > 0 || !out.empty(); }
  };
  struct Bucket {
    double tokens = 0;
    TimePoint at{};
  };
  struct Command {
    std::vector<UpstreamAddress> upstreams;
    bool stop = false;
  };
  // What an epoll event belongs to: the kind in the upper half, a descriptor below.
  enum class Kind : std::uint32_t { kCommands, kUdp, kTcp, kConnection, kUpstream };

  void run();
  void take_commands();
  void dispatch(std::uint64_t tag, std::uint32_t events);
  [[nodiscard]] int wait_time(TimePoint now);
  void watch(int fd, Kind kind, std::uint32_t events);
  void refresh_snapshot();

  void serve_udp(int fd);
  void answer_udp(int fd, const SocketAddress& from, Bytes message, std::size_t slot);
  // What a foreign name's answer is when nobody has to be asked for it; 0: somebody has.
  std::size_t answer_foreign(Bytes message, std::size_t limit, std::span<std::uint8_t> reply);
  void forward_udp(int fd, const SocketAddress& from, Bytes message);
  void flush_udp(int fd);

  // worker_tcp.cc
  void accept_tcp(int fd);
  bool make_room(const IpAddress& client);
  void serve_connection(int fd, std::uint32_t events);
  void settle(Connection& connection);
  bool read_connection(Connection& connection);
  bool take_messages(Connection& connection);
  void answer_tcp(Connection& connection, Bytes message);
  void forward_tcp(Connection& connection, Bytes message);
  void refuse_tcp(Connection& connection, Bytes message, std::string_view why);
  void queue_tcp(Connection& connection, Bytes message);
  bool write_connection(Connection& connection);
  void close_connection(int fd);
  void close_idle(TimePoint now);

  void report(const Outcome& outcome, const IpAddress& client);
  void count_answer(Bytes reply) {
    if (reply.size() < 4) return;
    stats_.answers.at(rcode_of(reply)).fetch_add(1, std::memory_order_relaxed);
  }
  // RFC 1035 section 4.1.1: the low half of the fourth byte.
  [[nodiscard]] static std::size_t rcode_of(Bytes reply) { return reply[3] & 0x0fU; }
  void publish_states();
  [[nodiscard]] bool too_often(const Outcome& outcome, const IpAddress& client) {
    return outcome.plain && !plain_rate_.take(client, now_);
  }

  const Published<Snapshot>& snapshots_;
  Mailbox<Refusal>& refusals_;
  ServerStats& stats_;
  Mailbox<Command> commands_{64};
  UniqueFd epoll_;
  std::vector<UniqueFd> sockets_;
  Forwarder forwarder_;
  Published<std::vector<UpstreamState>> states_;
  std::uint64_t published_changes_ = 0;
  ClientRate plain_rate_;

  std::shared_ptr<const Snapshot> snapshot_;
  std::uint64_t snapshot_version_ = 0;
  TimePoint now_{};
  Scratch scratch_;
  std::map<int, Connection> connections_;
  std::uint64_t next_serial_ = 0;
  std::unordered_map<IpAddress, Bucket> buckets_;
  bool stopping_ = false;

  std::vector<std::array<std::uint8_t, kMaxQuery>> in_;
  std::vector<std::array<std::uint8_t, kMaxUdpPayload>> out_;
  std::array<SocketAddress, kBatch> from_;
  std::array<iovec, kBatch> in_vectors_{}, out_vectors_{};
  std::array<mmsghdr, kBatch> in_messages_{}, out_messages_{};
  unsigned out_count_ = 0;
  std::vector<std::uint8_t> tcp_reply_;

  std::thread thread_;
};

}  // namespace meshd::dns
