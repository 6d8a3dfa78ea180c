// CPU time of one small UDP packet on its way from container through node to container: with
// no rules, with connection tracking alone, with our table at 10 and at 100,000 flows, and
// with a list of 5,000 rules. Prints one JSON object; times in microseconds.
//
// Each design has a node and two containers of its own, made as the daemon makes them, so
// that slices of all designs alternate in one run without a rule being changed. veth hands
// packets on in the sender's own context: its thread's CPU time is that of the whole way,
// with the receive queue at its end, which is full and drops. A slice counts only when its
// packets arrived.
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <sched.h>
#include <time.h>

#include <array>
#include <functional>
#include <memory>
#include <thread>

#include "bench/world.h"
#include "dns/socket_address.h"
#include "meshd/linux_kernel.h"
#include "netlink/netns.h"
#include "policy/plan.h"

namespace meshd::bench {
namespace {

using dns::SocketAddress, dns::to_sockaddr;

constexpr int kRounds = 15;
constexpr double kSliceSeconds = 0.05;  // of CPU time
constexpr unsigned kBatch = 32;         // packets per system call
constexpr std::size_t kPayload = 18;    // with the headers, the least an Ethernet frame carries
constexpr int kLinearRules = 5000;
constexpr std::uint16_t kPort = 80;

enum class State { kEstablished, kNew };  // as connection tracking calls it: replied to or not
constexpr std::array kStates = {State::kEstablished, State::kNew};

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

bool readable(int fd, int milliseconds) {
  pollfd wait{fd, POLLIN, 0};
  return poll(&wait, 1, milliseconds) == 1;
}

UniqueFd udp_socket(const IpAddress& peer) {
  UniqueFd fd(socket(peer.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) die(fail_errno("socket", errno).error().what);
  return fd;
}

// The receiving socket. Nobody reads while packets are sent: it counts.
class Sink {
 public:
  Sink() = default;
  explicit Sink(const IpAddress& address) : fd_(udp_socket(address)) {
    const int least = 1;  // the kernel makes it a few packets
    const auto own = to_sockaddr(address, kPort);
    if (setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &least, sizeof least) != 0 ||
        bind(fd_.get(), own.get(), own.size()) != 0) {
      die(fail_errno("receiving socket", errno).error().what);
    }
  }
  // Waits for one packet; false when none comes.
  bool receive(SocketAddress& from, int milliseconds) {
    std::array<char, 64> buffer;
    from.size_ = sizeof from.storage_;
    return readable(fd_.get(), milliseconds) &&
           recvfrom(fd_.get(), buffer.data(), buffer.size(), 0, from.get(), &from.size_) > 0;
  }
  void reply(const SocketAddress& to) {
    if (sendto(fd_.get(), "!", 1, 0, to.get(), to.size()) != 1) die("reply");
  }
  // Packets that have arrived since the last call, queued or dropped.
  std::uint64_t arrived() {
    std::uint64_t count = 0;
    std::array<char, 64> buffer;
    while (recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) ++count;
    std::array<std::uint32_t, SK_MEMINFO_VARS> info{};
    socklen_t size = sizeof info;
    if (getsockopt(fd_.get(), SOL_SOCKET, SO_MEMINFO, info.data(), &size) != 0) die("SO_MEMINFO");
    const auto dropped = info[SK_MEMINFO_DROPS];
    count += dropped - std::exchange(dropped_, dropped);
    return count;
  }

 private:
  UniqueFd fd_;
  std::uint32_t dropped_ = 0;
};

// One flow: a socket of its own in the sending container.
class Flow {
 public:
  Flow() = default;
  explicit Flow(const IpAddress& to) : fd_(udp_socket(to)) {
    const auto target = to_sockaddr(to, kPort);
    if (connect(fd_.get(), target.get(), target.size()) != 0) die("connect");
  }
  // The first packets, which also wait for IPv6, told of a new link's carrier a second late.
  void begin(Sink& sink, State state, const std::string& design) {
    for (int i = 0; i < 100; ++i) {
      SocketAddress from;
      [[maybe_unused]] const auto sent = send(fd_.get(), payload_.data(), payload_.size(), 0);
      if (!sink.receive(from, 50)) continue;
      if (state == State::kNew) return;
      sink.reply(from);
      if (readable(fd_.get(), 1000)) return;
    }
    die(design + ": the receiver is not reached");
  }
  // Microseconds per packet.
  double slice(Sink& sink, const std::string& design) {
    iovec vector{payload_.data(), payload_.size()};
    std::array<mmsghdr, kBatch> messages{};
    for (auto& message : messages) message.msg_hdr = {nullptr, 0, &vector, 1, nullptr, 0, 0};
    sink.arrived();
    std::uint64_t sent = 0;
    const double start = cpu_seconds();
    double used = 0;
    while (used < kSliceSeconds) {
      for (int i = 0; i < 8; ++i) {
        const int count = sendmmsg(fd_.get(), messages.data(), kBatch, 0);
        if (count <= 0) die(fail_errno(design + ": send", errno).error().what);
        sent += static_cast<std::uint64_t>(count);
      }
      used = cpu_seconds() - start;
    }
    const auto arrived = sink.arrived();
    if (arrived * 100 < sent * 99) {
      die(fmt::format("{}: of {} packets {} arrived", design, sent, arrived));
    }
    return used * 1e6 / static_cast<double>(sent);
  }

 private:
  UniqueFd fd_;
  std::array<char, kPayload> payload_{};
};

UniqueFd new_netns() {
  UniqueFd fd;
  std::thread([&fd] {
    if (unshare(CLONE_NEWNET) != 0) die("needs root");
    fd.reset(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  }).join();
  if (!fd) die("open the new network namespace");
  return fd;
}

LinkPlan link_of(const policy::Workload& workload) {
  const auto& at = *workload.attachment;
  return {workload.declaration.id, at.host_ifname, "eth0", at.mac, at.v4, at.v6};
}

void load_text(const std::string& text) {
  FILE* nft = popen("nft -f -", "w");
  if (nft == nullptr) die("nft");
  const bool written = std::fputs(text.c_str(), nft) >= 0;
  if (pclose(nft) != 0 || !written) die("nft -f failed");
}

// What is usual: what is established passes first of all.
std::string linear_text(const policy::Settings& s) {
  std::string text =
      "table inet bench {\n"
      "chain f { type filter hook forward priority 0; ct state established,related accept\n"
      "meta nfproto ipv4 goto four\ngoto six\n}\n";
  for (const auto family : kFamilies) {
    const bool v4 = family == Family::kV4;
    text += v4 ? "chain four {\n" : "chain six {\n";
    const auto& pool = s.pool(family)->address();
    for (int i = kLinearRules; i > 0; --i) {  // the last one is w1's
      const auto n = static_cast<std::uint64_t>(i);
      text += fmt::format("{0} saddr {1} {0} daddr {2} udp dport {3} accept\n", v4 ? "ip" : "ip6",
                          pool.plus(n).to_string(), pool.plus(n + 1).to_string(), kPort);
    }
    text += "reject\n}\n";
  }
  return text + "}\n";
}

struct Design {
  std::string name;
  std::function<void(LinuxKernel&)> install;  // runs in the node's namespace
};

Design ours(std::string name, const policy::Settings& s, int flows) {
  return {std::move(name), [&s, flows](LinuxKernel& kernel) {
            policy::Compiler compiler;
            [[maybe_unused]] const auto plan = compiler.rebuild(world_of(s, flows, Proto::kUdp));
            kernel.set_table(s, {});
            must(kernel.converge(compiler.elements()));
          }};
}

std::vector<Design> designs(const policy::Settings& s) {
  const auto text = [](std::string name, std::string rules) {
    return Design{std::move(name), [rules = std::move(rules)](LinuxKernel&) { load_text(rules); }};
  };
  return {{"none", [](LinuxKernel&) {}},
          text("conntrack",
               "table inet bench { chain f { type filter hook forward priority 0; "
               "ct state invalid drop; }; }\n"),
          ours("ours_10", s, 10),
          ours("ours_100k", s, 100'000),
          text("linear_5000", linear_text(s))};
}

// A node with two containers.
struct Bed {
  std::string design;
  UniqueFd node = new_netns(), from = new_netns(), to = new_netns();
  std::unique_ptr<LinuxKernel> kernel{};       // its sockets are in the node
  std::array<Sink, 2> sinks{};                 // by family
  std::array<std::array<Flow, 2>, 2> flows{};  // by family and state
};

void inside(const UniqueFd& netns, const std::function<void()>& work) {
  must(netlink::run_in_netns(netns.get(), work));
}

std::unique_ptr<Bed> make_bed(const policy::Settings& s, const Design& design) {
  auto bed = std::make_unique<Bed>(design.name);
  const auto w1 = workload(s, 1, Proto::kUdp), w2 = workload(s, 2, Proto::kUdp);
  inside(bed->node, [&] {
    bed->kernel = must(LinuxKernel::make(s));
    must(bed->kernel->prepare_node());
    must(bed->kernel->connect(link_of(w1), bed->from.get()));
    must(bed->kernel->connect(link_of(w2), bed->to.get()));
    design.install(*bed->kernel);
  });
  for (const auto family : kFamilies) {
    const auto f = static_cast<std::size_t>(family);
    const auto& target = *w2.attachment->address(family);
    inside(bed->to, [&] { bed->sinks[f] = Sink(target); });
    for (const auto state : kStates) {
      auto& flow = bed->flows[f][static_cast<std::size_t>(state)];
      inside(bed->from, [&] { flow = Flow(target); });
      flow.begin(bed->sinks[f], state, design.name);
    }
  }
  return bed;
}

// Slices of one family and state: a list of rounds for each design.
using Rounds = std::vector<std::vector<double>>;

// Over the rounds, of what `value` makes of one round.
double median_of(const std::function<double(std::size_t)>& value) {
  std::vector<double> values;
  for (std::size_t i = 0; i < kRounds; ++i) values.push_back(value(i));
  return median(values);
}

void print(const std::vector<std::unique_ptr<Bed>>& beds, Family family, State state,
           const Rounds& rounds) {
  fmt::print("{{\"family\": \"{}\", \"state\": \"{}\", \"us_per_packet\": {{",
             family == Family::kV4 ? "IPv4" : "IPv6",
             state == State::kEstablished ? "established" : "new");
  for (std::size_t i = 0; i < beds.size(); ++i) {
    fmt::print("{}\"{}\": {{\"median\": {:.3f}, \"min\": {:.3f}}}", i == 0 ? "" : ", ",
               beds[i]->design, median(rounds[i]), std::ranges::min(rounds[i]));
  }
  // Slices of one round stand beside each other: their differences know less of what else
  // the machine did than the medians' do.
  fmt::print("}}");
  for (const std::size_t i : {2U, 3U}) {
    fmt::print(", \"{}_over_conntrack_us\": {:.3f}", beds[i]->design,
               median_of([&](std::size_t r) { return rounds[i][r] - rounds[1][r]; }));
  }
  fmt::print(", \"ours_100k_to_10\": {:.3f}}}",
             median_of([&](std::size_t r) { return rounds[3][r] / rounds[2][r]; }));
}

void run() {
  const auto s = settings();
  std::vector<std::unique_ptr<Bed>> beds;
  for (const auto& design : designs(s)) beds.push_back(make_bed(s, design));
  std::array<std::array<Rounds, 2>, 2> all;
  for (auto& states : all) {
    for (auto& rounds : states) rounds.resize(beds.size());
  }
  for (int round = -1; round < kRounds; ++round) {  // the first one only warms up
    for (std::size_t f = 0; f < 2; ++f) {
      for (std::size_t state = 0; state < 2; ++state) {
        for (std::size_t i = 0; i < beds.size(); ++i) {
          const double us = beds[i]->flows[f][state].slice(beds[i]->sinks[f], beds[i]->design);
          if (round >= 0) all[f][state][i].push_back(us);
        }
      }
    }
  }
  fmt::print("{{\"payload_bytes\": {}, \"rounds\": {}, \"rows\": [", kPayload, kRounds);
  for (const char* separator = ""; const auto family : kFamilies) {
    for (const auto state : kStates) {
      fmt::print("{}", std::exchange(separator, ", "));
      print(beds, family, state,
            all[static_cast<std::size_t>(family)][static_cast<std::size_t>(state)]);
    }
  }
  fmt::print("]}}\n");
}

}  // namespace
}  // namespace meshd::bench

int main() {
  // One CPU: what a packet finds in the caches is what the one before left there.
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  sched_setaffinity(0, sizeof one, &one);
  meshd::bench::run();
  return 0;
}
