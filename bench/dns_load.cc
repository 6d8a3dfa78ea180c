#include "bench/dns_load.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include <array>

#include "bench/must.h"
#include "dns/message.h"
#include "dns/name.h"
#include "dns/server.h"
#include "dns/socket_address.h"

namespace meshd::bench {
namespace {

using dns::SocketAddress, dns::to_sockaddr;

constexpr std::size_t kBatch = 32;
constexpr std::size_t kRoom = 1500;

const IpAddress& loopback() {
  static const auto address = IpAddress::parse("127.0.0.1").value();
  return address;
}

double cpu_seconds(pid_t pid) {
  clockid_t clock{};
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) die("cpu clock");
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

UniqueFd connected_to(const Process& server) {
  UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const auto target = to_sockaddr(loopback(), server.port);
  if (connect(fd.get(), target.get(), target.size()) != 0) die("connect");
  return fd;
}

bool has_address(const std::uint8_t* reply, std::size_t size) {
  const bool no_error = size > 12 && (reply[3] & 0xf) == 0;
  return no_error && reply[6] == 0 && reply[7] == 1;
}

}  // namespace

Query query_of(const std::string& name, std::uint16_t id) {
  Query query(512);
  dns::Writer writer(query);
  for (const int word : {int{id}, 0x0100, 1, 0, 0, 0}) {
    writer.u16(static_cast<std::uint16_t>(word));
  }
  writer.text(*dns::to_wire(name));
  writer.u16(dns::type::kA);
  writer.u16(1);
  query.resize(writer.at());
  return query;
}

Process spawn(const std::function<void(int ready)>& serve) {
  int ready[2];
  if (pipe(ready) != 0) die("pipe");
  const pid_t pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve(ready[1]);
    _exit(0);
  }
  close(ready[1]);
  Process process{pid, 0};
  if (read(ready[0], &process.port, sizeof process.port) != sizeof process.port) die("server");
  close(ready[0]);
  return process;
}

void serving_on(int ready, std::uint16_t port) {
  if (write(ready, &port, sizeof port) != sizeof port) die("pipe");
}

void stop(const Process& process) {
  kill(process.pid, SIGKILL);
  waitpid(process.pid, nullptr, 0);
}

void serve_udp(int ready, const Answer& answer) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  auto own = to_sockaddr(loopback(), 0);
  if (bind(fd, own.get(), own.size()) != 0) die("bind");
  serving_on(ready, dns::local_port(fd).value_or(0));
  std::array<std::array<std::uint8_t, kRoom>, kBatch> buffers{};
  std::array<SocketAddress, kBatch> from;
  std::array<iovec, kBatch> vectors{};
  std::array<mmsghdr, kBatch> messages{};
  while (true) {
    for (std::size_t i = 0; i < kBatch; ++i) {
      vectors[i] = {buffers[i].data(), buffers[i].size()};
      messages[i].msg_hdr = {
          from[i].get(), sizeof(sockaddr_storage), &vectors[i], 1, nullptr, 0, 0};
    }
    const int count = recvmmsg(fd, messages.data(), kBatch, MSG_WAITFORONE, nullptr);
    for (std::size_t i = 0; i < static_cast<std::size_t>(std::max(count, 0)); ++i) {
      vectors[i].iov_len = answer(buffers[i].data(), messages[i].msg_len, kRoom);
    }
    for (int sent = 0; sent < count;) {
      const int done = sendmmsg(fd, messages.data() + sent, static_cast<unsigned>(count - sent), 0);
      sent += done > 0 ? done : 1;
    }
  }
}

Peer peer_of(std::string_view text) {
  const auto equals = text.find('='), colon = text.rfind(':');
  if (equals == text.npos || colon == text.npos) die("a peer is NAME=PID:PORT");
  const auto number = [&](std::size_t from) { return std::atoi(text.data() + from); };
  return {std::string(text.substr(0, equals)),
          {number(equals + 1), static_cast<std::uint16_t>(number(colon + 1))}};
}

void ask_all(const Process& server, const std::vector<Query>& queries) {
  const auto fd = connected_to(server);
  std::array<std::uint8_t, kRoom> reply{};
  for (const auto& query : queries) {
    bool done = false;
    for (int attempt = 0; attempt < 10 && !done; ++attempt) {
      if (send(fd.get(), query.data(), query.size(), 0) < 0) die("send");
      pollfd wait{fd.get(), POLLIN, 0};
      while (!done && poll(&wait, 1, 500) == 1) {
        const auto got = recv(fd.get(), reply.data(), reply.size(), 0);
        if (got <= 12) break;
        const bool ours = reply[0] == query[0] && reply[1] == query[1];
        done = ours && has_address(reply.data(), static_cast<std::size_t>(got));
        if (ours && !done) die("a server has no answer");
      }
    }
    if (!done) die("a server does not answer");
  }
}

Slice load(const Process& server, std::vector<Query>& queries, bool records) {
  const auto fd = connected_to(server);
  std::array<iovec, kBatch> out{}, in{};
  std::array<mmsghdr, kBatch> sends{}, receives{};
  std::array<std::array<std::uint8_t, kRoom>, kBatch> buffers{};
  const auto cpu = cpu_seconds(server.pid);
  const auto start = std::chrono::steady_clock::now();
  std::size_t answered = 0, next = 0, empty = 0;
  int outstanding = 0;
  while (std::chrono::steady_clock::now() - start < kSlice) {
    while (outstanding + static_cast<int>(kBatch) <= kWindow) {
      for (std::size_t i = 0; i < kBatch; ++i) {
        auto& query = queries[next++ % queries.size()];
        out[i] = {query.data(), query.size()};
        sends[i].msg_hdr = {nullptr, 0, &out[i], 1, nullptr, 0, 0};
      }
      const int sent = sendmmsg(fd.get(), sends.data(), kBatch, 0);
      if (sent <= 0) break;
      outstanding += sent;
    }
    for (std::size_t i = 0; i < kBatch; ++i) {
      in[i] = {buffers[i].data(), buffers[i].size()};
      receives[i].msg_hdr = {nullptr, 0, &in[i], 1, nullptr, 0, 0};
    }
    const int got = recvmmsg(fd.get(), receives.data(), kBatch, MSG_DONTWAIT, nullptr);
    for (std::size_t i = 0; i < static_cast<std::size_t>(std::max(got, 0)); ++i) {
      if (!has_address(buffers[i].data(), receives[i].msg_len)) ++empty;
    }
    if (got > 0) {
      answered += static_cast<std::size_t>(got);
      outstanding -= got;
    } else {
      pollfd p{fd.get(), POLLIN, 0};
      if (poll(&p, 1, 50) == 0) outstanding = 0;  // lost ones are not waited for
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  if (answered == 0) die("no answers");
  if (records && empty > 0) {
    die(fmt::format("{} of {} answers bring no address", empty, answered));
  }
  return {static_cast<double>(answered) / took.count(),
          (cpu_seconds(server.pid) - cpu) * 1e6 / static_cast<double>(answered)};
}

}  // namespace meshd::bench
