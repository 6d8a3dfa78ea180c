// Foreign names that are in the cache: CPU time per query of our resolver and of others'
// that forward to the same upstream, in alternating slices of one run. Prints one JSON
// object.
//
// Usage: bench_dns_cached upstream           answers every name, prints its port, serves
//        bench_dns_cached PORT [PEER]...     PORT: that upstream's; a peer: NAME=PID:PORT
#include <unistd.h>

#include "bench/dns_load.h"
#include "bench/must.h"
#include "dns/name.h"
#include "dns/server.h"

namespace meshd::bench {
namespace {

constexpr int kNames = 1000;
constexpr std::uint32_t kTtl = 3600;  // nothing runs out while it is measured

// The question with one address behind it; additional records of the query are cut.
std::size_t upstream_answer(std::uint8_t* message, std::size_t size, std::size_t room) {
  dns::Reader question(dns::Bytes(message, size), 12);
  dns::skip_name(question);
  question.skip(4);
  if (!question.ok() || question.at() + 16 > room) return 0;
  message[2] = static_cast<std::uint8_t>(message[2] | 0x80);
  message[3] = 0x80;  // recursion available
  std::fill(message + 6, message + 12, std::uint8_t{0});
  message[7] = 1;
  dns::Writer answer(std::span(message + question.at(), room - question.at()));
  for (const int word : {0xc00c, 1, 1}) answer.u16(static_cast<std::uint16_t>(word));
  answer.u32(kTtl);
  answer.u16(4);
  answer.u32(0xc0000201);  // 192.0.2.1
  return question.at() + answer.at();
}

void serve_dns(int ready, std::uint16_t upstream) {
  const auto loopback = IpAddress::parse("127.0.0.1").value();
  auto settings = std::make_shared<dns::ZoneSettings>();
  settings->zone = *dns::to_wire("mesh.internal");
  settings->filtered = {Prefix::parse("10.213.0.0/16").value(),
                        Prefix::parse("10.214.0.0/16").value()};
  dns::View view;
  view.client = "bench";
  view.forward = true;
  dns::Snapshot snapshot(settings);
  snapshot.set(loopback, std::make_shared<const dns::View>(std::move(view)));
  Published<dns::Snapshot> published;
  published.store(std::make_shared<const dns::Snapshot>(std::move(snapshot)));
  const auto listeners = must(dns::open_listeners({loopback}, 0, 1));
  dns::ServerOptions options;
  options.upstreams = {{loopback, upstream}};
  const auto server = must(dns::Server::start(listeners, published, std::move(options)));
  serving_on(ready, must(dns::local_port(listeners.front().fd.get())));
  pause();
}

void run(std::uint16_t upstream, std::vector<Peer> peers) {
  std::vector<Query> queries;
  for (int i = 0; i < kNames; ++i) {
    queries.push_back(
        query_of(fmt::format("host{}.example.com", i), static_cast<std::uint16_t>(i)));
  }
  peers.insert(peers.begin(), {"meshd", spawn([&](int ready) { serve_dns(ready, upstream); })});
  for (auto& peer : peers) ask_all(peer.process, queries);
  for (int i = 0; i < kRounds; ++i) {
    for (auto& peer : peers) {
      const auto slice = load(peer.process, queries, true);
      peer.qps.push_back(slice.per_second);
      peer.cpu.push_back(slice.cpu_us);
    }
  }
  stop(peers.front().process);
  fmt::print("{{\"names\": {}, \"servers\": {{", kNames);
  for (const char* separator = ""; const auto& peer : peers) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < peer.cpu.size(); ++i) {
      ratios.push_back(peers.front().cpu[i] / peer.cpu[i]);
    }
    fmt::print(
        "{}\"{}\": {{\"queries_per_second\": {:.0f}, \"cpu_us_per_query\": {:.2f}, "
        "\"our_cpu_to_theirs\": {:.2f}}}",
        std::exchange(separator, ", "), peer.name, median(peer.qps), median(peer.cpu),
        median(ratios));
  }
  fmt::print("}}}}\n");
}

}  // namespace
}  // namespace meshd::bench

int main(int argc, char** argv) {
  namespace bench = meshd::bench;
  if (argc == 2 && std::string_view(argv[1]) == "upstream") {
    const auto upstream =
        bench::spawn([](int ready) { bench::serve_udp(ready, bench::upstream_answer); });
    fmt::print("{}\n", upstream.port);
    std::fflush(stdout);
    pause();
  }
  if (argc < 2) bench::die("usage: bench_dns_cached upstream | PORT [NAME=PID:PORT]...");
  std::vector<bench::Peer> peers;
  for (int i = 2; i < argc; ++i) peers.push_back(bench::peer_of(argv[i]));
  bench::run(static_cast<std::uint16_t>(std::atoi(argv[1])), std::move(peers));
  return 0;
}
