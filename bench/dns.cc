// The resolver beside a recvmmsg echo server on loopback: queries a second and CPU time per
// query, in alternating slices of one run. Others' servers, given as NAME=PID:PORT, are loaded
// in the same way. Prints one JSON object.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "dns/name.h"
#include "dns/server.h"
#include "dns/socket_address.h"

namespace meshd::dns {
namespace {

constexpr int kNames = 1000;
constexpr int kWindow = 256;  // queries outstanding
constexpr int kRounds = 5;
constexpr auto kSlice = std::chrono::milliseconds(800);

[[noreturn]] void die(const std::string& what) {
  fmt::print(stderr, "bench_dns: {}\n", what);
  std::exit(1);
}

std::string name_of(int i) { return fmt::format("n{}.svc.mesh.internal", i); }

std::vector<std::uint8_t> query_of(int i) {
  std::vector<std::uint8_t> query(512);
  Writer writer(query);
  for (const int word : {i, 0x0100, 1, 0, 0, 0}) writer.u16(static_cast<std::uint16_t>(word));
  writer.text(*to_wire(name_of(i % kNames)));
  writer.u16(type::kA);
  writer.u16(1);
  query.resize(writer.at());
  return query;
}

// Each server is a process of its own, so that its CPU time is its own.
struct Process {
  pid_t pid = 0;
  std::uint16_t port = 0;
};

template <class Serve>
Process spawn(Serve serve) {
  int ready[2];
  if (pipe(ready) != 0) die("pipe");
  const pid_t pid = fork();
  if (pid == 0) {
    serve(ready[1]);
    _exit(0);
  }
  close(ready[1]);
  Process process{pid, 0};
  if (read(ready[0], &process.port, sizeof process.port) != sizeof process.port) die("server");
  close(ready[0]);
  return process;
}

void serve_dns(int ready) {
  const auto loopback = IpAddress::parse("127.0.0.1").value();
  auto settings = std::make_shared<ZoneSettings>();
  settings->zone = *to_wire("mesh.internal");
  View view;
  for (int i = 0; i < kNames; ++i) {
    view.add(*to_wire(name_of(i)), {IpAddress::v4(0x0ad50000U + static_cast<unsigned>(i)), {}, {}},
             settings->zone);
  }
  Snapshot snapshot(settings);
  snapshot.set(loopback, std::make_shared<const View>(std::move(view)));
  Published<Snapshot> published;
  published.store(std::make_shared<const Snapshot>(std::move(snapshot)));
  const auto listeners = open_listeners({loopback}, 0, 1);
  if (!listeners) die(listeners.error().what);
  const auto server = Server::start(*listeners, published, {});
  if (!server) die(server.error().what);
  const auto port = local_port(listeners->front().fd.get()).value_or(0);
  if (write(ready, &port, sizeof port) != sizeof port) die("pipe");
  pause();
}

void serve_echo(int ready) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  auto own = to_sockaddr(IpAddress::parse("127.0.0.1").value(), 0);
  if (bind(fd, own.get(), own.size()) != 0) die("bind");
  const auto port = local_port(fd).value_or(0);
  if (write(ready, &port, sizeof port) != sizeof port) die("pipe");
  constexpr int kBatchSize = 32;
  std::array<std::array<std::uint8_t, 1500>, kBatchSize> buffers{};
  std::array<SocketAddress, kBatchSize> from;
  std::array<iovec, kBatchSize> vectors{};
  std::array<mmsghdr, kBatchSize> messages{};
  while (true) {
    for (std::size_t i = 0; i < kBatchSize; ++i) {
      vectors[i] = {buffers[i].data(), buffers[i].size()};
      messages[i].msg_hdr = {
          from[i].get(), sizeof(sockaddr_storage), &vectors[i], 1, nullptr, 0, 0};
    }
    const int count = recvmmsg(fd, messages.data(), kBatchSize, MSG_WAITFORONE, nullptr);
    for (int i = 0; i < count; ++i) {
      buffers[static_cast<std::size_t>(i)][2] |= 0x80;
      vectors[static_cast<std::size_t>(i)].iov_len = messages[static_cast<std::size_t>(i)].msg_len;
    }
    for (int sent = 0; sent < count;) {
      const int done = sendmmsg(fd, messages.data() + sent, static_cast<unsigned>(count - sent), 0);
      sent += done > 0 ? done : 1;
    }
  }
}

double cpu_seconds(pid_t pid) {
  clockid_t clock{};
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) die("cpu clock");
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

struct Slice {
  double per_second = 0, cpu_us = 0;
};

Slice load(const Process& server) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  const auto target = to_sockaddr(IpAddress::parse("127.0.0.1").value(), server.port);
  if (connect(fd, target.get(), target.size()) != 0) die("connect");
  std::vector<std::vector<std::uint8_t>> queries;
  for (int i = 0; i < kNames; ++i) queries.push_back(query_of(i));
  std::array<iovec, 32> out{}, in{};
  std::array<mmsghdr, 32> sends{}, receives{};
  std::array<std::array<std::uint8_t, 1500>, 32> buffers{};
  const auto cpu = cpu_seconds(server.pid);
  const auto start = std::chrono::steady_clock::now();
  std::size_t answered = 0, next = 0;
  int outstanding = 0;
  while (std::chrono::steady_clock::now() - start < kSlice) {
    while (outstanding + 32 <= kWindow) {
      for (std::size_t i = 0; i < 32; ++i) {
        auto& query = queries[next++ % queries.size()];
        out[i] = {query.data(), query.size()};
        sends[i].msg_hdr = {nullptr, 0, &out[i], 1, nullptr, 0, 0};
      }
      const int sent = sendmmsg(fd, sends.data(), 32, 0);
      if (sent <= 0) break;
      outstanding += sent;
    }
    for (std::size_t i = 0; i < 32; ++i) {
      in[i] = {buffers[i].data(), buffers[i].size()};
      receives[i].msg_hdr = {nullptr, 0, &in[i], 1, nullptr, 0, 0};
    }
    const int got = recvmmsg(fd, receives.data(), 32, MSG_DONTWAIT, nullptr);
    if (got > 0) {
      answered += static_cast<std::size_t>(got);
      outstanding -= got;
    } else {
      pollfd p{fd, POLLIN, 0};
      if (poll(&p, 1, 50) == 0) outstanding = 0;  // lost ones are not waited for
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  close(fd);
  if (answered == 0) die("no answers");
  return {static_cast<double>(answered) / took.count(),
          (cpu_seconds(server.pid) - cpu) * 1e6 / static_cast<double>(answered)};
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

struct Peer {
  std::string name;
  Process process;
  std::vector<double> qps{}, cpu{};
};

Peer peer_of(std::string_view text) {
  const auto equals = text.find('='), colon = text.rfind(':');
  if (equals == text.npos || colon == text.npos) die("usage: bench_dns [NAME=PID:PORT]...");
  const auto number = [&](std::size_t from) { return std::atoi(text.data() + from); };
  return {std::string(text.substr(0, equals)),
          {number(equals + 1), static_cast<std::uint16_t>(number(colon + 1))}};
}

void run(std::vector<Peer> peers) {
  const auto ours = spawn(serve_dns);
  const auto echo = spawn(serve_echo);
  std::vector<double> qps, cpu, qps_ratio, cpu_ratio;
  for (int i = 0; i < kRounds; ++i) {
    const auto theirs = load(echo);
    const auto mine = load(ours);
    for (auto& peer : peers) {
      const auto slice = load(peer.process);
      peer.qps.push_back(slice.per_second);
      peer.cpu.push_back(slice.cpu_us);
    }
    qps.push_back(mine.per_second);
    cpu.push_back(mine.cpu_us);
    qps_ratio.push_back(mine.per_second / theirs.per_second);
    cpu_ratio.push_back(mine.cpu_us / theirs.cpu_us);
  }
  for (const auto pid : {ours.pid, echo.pid}) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  fmt::print(
      "{{\"names\": {}, \"queries_per_second\": {:.0f}, \"cpu_us_per_query\": {:.2f}, "
      "\"qps_to_echo\": {:.2f}, \"cpu_to_echo\": {:.2f}, \"peers\": {{",
      kNames, median(qps), median(cpu), median(qps_ratio), median(cpu_ratio));
  for (const char* separator = ""; const auto& peer : peers) {
    fmt::print("{}\"{}\": {{\"queries_per_second\": {:.0f}, \"cpu_us_per_query\": {:.2f}}}",
               std::exchange(separator, ", "), peer.name, median(peer.qps), median(peer.cpu));
  }
  fmt::print("}}}}\n");
}

}  // namespace
}  // namespace meshd::dns

int main(int argc, char** argv) {
  std::vector<meshd::dns::Peer> peers;
  for (int i = 1; i < argc; ++i) peers.push_back(meshd::dns::peer_of(argv[i]));
  meshd::dns::run(std::move(peers));
  return 0;
}
