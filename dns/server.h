// The resolver's sockets and threads: datagrams and connections in, answers out.
//
// Threads:    each worker is a thread with its own sockets, forwarder and cache; it reads the
//             published snapshot and reports refusals through a mailbox. The public functions
//             are for the thread that made the Server.
// Owns:       the workers. The listening sockets are made apart from them (open_listeners())
//             so that they can outlive the process in the service manager's store.
// Invariants: a datagram of ours is answered in the batch it came in; nothing waits for an
//             upstream but the question that needs it. One client's connections, questions
//             under way, answers not yet taken and reports are bounded (limits.h), and a plain
//             client's queries; containers' are limited by the table in the kernel.
// Source:     RFC 1035 section 4.2, RFC 7766.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/mailbox.h"
#include "base/published.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "dns/forwarder.h"
#include "dns/limits.h"
#include "dns/loop_watch.h"
#include "dns/snapshot.h"

namespace meshd::dns {

struct Listener {
  UniqueFd fd;
  bool udp = true;
  IpAddress address;
  int worker = 0;
  // How it is found again in the service manager's store: "dns-udp-169.254.1.1-0".
  [[nodiscard]] std::string name() const;
};
// One UDP and one TCP socket per address and worker. Port 0 picks one, for tests. An
// address that is not there yet is no error (IP_FREEBIND).
[[nodiscard]] Result<std::vector<Listener>> open_listeners(const std::vector<IpAddress>& addresses,
                                                           std::uint16_t port, int workers);
// One of them. It shares its port (SO_REUSEPORT) with those of other workers, present or to
// come.
[[nodiscard]] Result<Listener> open_listener(const IpAddress& address, std::uint16_t port, bool udp,
                                             int worker);
// Which of our sockets an inherited descriptor is; the name is Listener::name()'s.
[[nodiscard]] Result<Listener> adopt_listener(UniqueFd fd, const std::string& name);
[[nodiscard]] Result<std::uint16_t> local_port(int fd);

struct Refusal {
  std::string client;  // workload id
  std::string name;    // what was asked
  std::string reason;
};

struct ServerStats {
  std::atomic<std::uint64_t> queries{0}, answered{0}, forwarded{0}, dropped{0}, refused{0},
      unreported{0};
  std::array<std::atomic<std::uint64_t>, 16> answers{};  // by rcode, once they were sent
};

struct ServerOptions {
  int workers = 1;
  std::size_t cache_bytes = 16U << 20;
  // Those that are our own listeners, or lead back to us, are not asked (UpstreamState).
  std::vector<UpstreamAddress> upstreams;
  double plain_rate = kPlainRate;  // queries per second and worker of one plain client
};

class Server {
 public:
  // Refusals waiting to be read; more are counted only.
  static constexpr std::size_t kMaxRefusals = 1024;

  // Takes the listeners' descriptors as duplicates: the caller keeps its own.
  [[nodiscard]] static Result<std::unique_ptr<Server>> start(const std::vector<Listener>& listeners,
                                                             const Published<Snapshot>& snapshots,
                                                             ServerOptions options);
  ~Server();  // ends the threads

  void set_upstreams(std::vector<UpstreamAddress> upstreams);
  [[nodiscard]] Mailbox<Refusal>& refusals() { return refusals_; }
  [[nodiscard]] const ServerStats& stats() const { return stats_; }
  [[nodiscard]] std::vector<UpstreamState> upstream_states() const;

 private:
  class Worker;
  Server();
  Mailbox<Refusal> refusals_;
  ServerStats stats_;
  const std::shared_ptr<LoopWatch> loops_ = std::make_shared<LoopWatch>();
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace meshd::dns
