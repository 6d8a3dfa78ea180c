// The resolver's own names beside a recvmmsg echo server on loopback: queries a second and
// CPU time per query, in alternating slices of one run. Others' servers, given as
// NAME=PID:PORT, are loaded in the same way. Prints one JSON object.
#include "bench/dns_load.h"
#include "bench/must.h"
#include "dns/name.h"
#include "dns/server.h"

namespace meshd::bench {
namespace {

constexpr int kNames = 1000;

std::string name_of(int i) { return fmt::format("n{}.svc.mesh.internal", i); }

void serve_dns(int ready) {
  const auto loopback = IpAddress::parse("127.0.0.1").value();
  auto settings = std::make_shared<dns::ZoneSettings>();
  settings->zone = *dns::to_wire("mesh.internal");
  dns::View view;
  for (int i = 0; i < kNames; ++i) {
    view.add(*dns::to_wire(name_of(i)),
             {IpAddress::v4(0x0ad50000U + static_cast<unsigned>(i)), {}, {}}, settings->zone);
  }
  dns::Snapshot snapshot(settings);
  snapshot.set(loopback, std::make_shared<const dns::View>(std::move(view)));
  Published<dns::Snapshot> published;
  published.store(std::make_shared<const dns::Snapshot>(std::move(snapshot)));
  const auto listeners = must(dns::open_listeners({loopback}, 0, 1));
  const auto server = must(dns::Server::start(listeners, published, {}));
  serving_on(ready, must(dns::local_port(listeners.front().fd.get())));
  pause();
}

std::size_t echo(std::uint8_t* message, std::size_t size, std::size_t) {
  message[2] |= 0x80;
  return size;
}

void run(std::vector<Peer> peers) {
  std::vector<Query> queries;
  for (int i = 0; i < kNames; ++i) {
    queries.push_back(query_of(name_of(i), static_cast<std::uint16_t>(i)));
  }
  const auto ours = spawn(serve_dns);
  const auto echoing = spawn([](int ready) { serve_udp(ready, echo); });
  std::vector<double> qps, cpu, qps_ratio, cpu_ratio;
  for (int i = 0; i < kRounds; ++i) {
    const auto theirs = load(echoing, queries, false);
    const auto mine = load(ours, queries, true);
    for (auto& peer : peers) {
      const auto slice = load(peer.process, queries, true);
      peer.qps.push_back(slice.per_second);
      peer.cpu.push_back(slice.cpu_us);
    }
    qps.push_back(mine.per_second);
    cpu.push_back(mine.cpu_us);
    qps_ratio.push_back(mine.per_second / theirs.per_second);
    cpu_ratio.push_back(mine.cpu_us / theirs.cpu_us);
  }
  for (const auto& process : {ours, echoing}) stop(process);
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
}  // namespace meshd::bench

int main(int argc, char** argv) {
  std::vector<meshd::bench::Peer> peers;
  for (int i = 1; i < argc; ++i) peers.push_back(meshd::bench::peer_of(argv[i]));
  meshd::bench::run(std::move(peers));
  return 0;
}
