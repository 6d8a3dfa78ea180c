// A load of DNS queries on loopback, and what answering it costs a server: the same for ours,
// an echo server and those of others.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace meshd::bench {

inline constexpr int kWindow = 256;  // queries outstanding
inline constexpr int kRounds = 5;
inline constexpr auto kSlice = std::chrono::milliseconds(800);

using Query = std::vector<std::uint8_t>;
[[nodiscard]] Query query_of(const std::string& name, std::uint16_t id);

// Each server is a process of its own, so that its CPU time is its own.
struct Process {
  pid_t pid = 0;
  std::uint16_t port = 0;
};
// `serve` says by serving_on() where it listens. The process dies with this one.
[[nodiscard]] Process spawn(const std::function<void(int ready)>& serve);
void serving_on(int ready, std::uint16_t port);
void stop(const Process& process);

// A UDP socket on a free port of 127.0.0.1 that hands each query to `answer`, which turns it
// into the reply in its place and returns the reply's length. Serves for ever.
using Answer =
    std::function<std::size_t(std::uint8_t* message, std::size_t size, std::size_t room)>;
void serve_udp(int ready, const Answer& answer);

// Somebody else's server, running already: "NAME=PID:PORT".
struct Peer {
  std::string name;
  Process process{};
  std::vector<double> qps{}, cpu{};
};
[[nodiscard]] Peer peer_of(std::string_view text);

// One query at a time until each has been answered: fills a cache.
void ask_all(const Process& server, const std::vector<Query>& queries);

struct Slice {
  double per_second = 0, cpu_us = 0;  // CPU time of the server for one answer
};
// With `records` every reply must bring an address: a server that refuses is quick, too.
[[nodiscard]] Slice load(const Process& server, std::vector<Query>& queries, bool records);

}  // namespace meshd::bench
