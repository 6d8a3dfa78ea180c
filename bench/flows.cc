// What one flow costs to add and to revoke, in the compiler and in the kernel, with few and
// with many flows installed; and what a cold start and a restart cost. Runs in a network
// namespace of its own. Prints one JSON object; times in microseconds.
#include <sched.h>
#include <time.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "bench/world.h"
#include "meshd/linux_kernel.h"
#include "meshd/lower_ruleset.h"
#include "netlink/nft_batch.h"
#include "netlink/nft_monitor.h"
#include "policy/plan.h"

namespace meshd::bench {
namespace {

using Micros = std::chrono::duration<double, std::micro>;
constexpr int kToggles = 400;  // measured changes: enough for a p99
constexpr int kTextToggles = 20;

double timed(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return Micros(std::chrono::steady_clock::now() - start).count();
}

// The kernel does its part of a change within our system call: CPU time is that of both, and
// what else the machine does is not in it.
double cpu_micros() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) * 1e-3;
}

// Something that is done once, and not in microseconds.
struct Start {
  double wall = 0, cpu = 0;
  void measure(const std::function<void()>& work) {
    const double before = cpu_micros();
    wall = timed(work);
    cpu = cpu_micros() - before;
  }
};

struct Times {
  std::vector<double> values;
  [[nodiscard]] double at(double share) {
    std::ranges::sort(values);
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
  }
};

struct Row {
  int flows;
  Times compile{}, kernel{}, both{}, raw{}, text{};
  Start cold{}, restart{}, restart_read{}, rebuild{};
  std::size_t elements = 0;
};

void toggle(policy::World& world, policy::Compiler& compiler, Kernel& kernel, Row& row) {
  auto& peers = world.workloads["w1"].declaration.peers;
  const auto saved = peers.back();
  policy::Touched touched;
  touched.workloads.insert("w1");
  for (int i = 0; i < kToggles; ++i) {
    if (i % 2 == 0) {
      peers.pop_back();
    } else {
      peers.push_back(saved);
    }
    policy::PlanDelta delta;
    const auto compiled = timed([&] { delta = compiler.update(world, touched); });
    const auto committed = timed([&] { must(kernel.commit(delta.elements)); });
    row.compile.values.push_back(compiled);
    row.kernel.values.push_back(committed);
    row.both.values.push_back(compiled + committed);
  }
}

// The floor: one element by netlink, nothing of ours around it.
void toggle_raw(Row& row) {
  auto socket = must(netlink::Socket::open());
  const auto address = [](const char* text) { return IpAddress::parse(text).value(); };
  const auto element = policy::ElementBuilder(policy::SetId::kAllow4)
                           .addr(address("10.213.255.1"))
                           .addr(address("10.213.255.2"))
                           .proto(Proto::kTcp)
                           .port(80)
                           .build();
  for (int i = 0; i < kToggles; ++i) {
    row.raw.values.push_back(timed([&] {
      netlink::NftBatch batch("meshd");
      must(put_delta(batch,
                     i % 2 == 0 ? policy::Delta{{}, {element}} : policy::Delta{{element}, {}}));
      must(std::move(batch).commit(socket));
    }));
  }
}

// What a script would do.
void toggle_text(Row& row) {
  const char* path = "/tmp/bench-flows.nft";
  for (int i = 0; i < kTextToggles; ++i) {
    std::ofstream(path) << (i % 2 == 0 ? "add" : "delete")
                        << " element inet meshd allow4 "
                           "{ 10.213.255.1 . 10.213.255.3 . tcp . 80 }\n";
    row.text.values.push_back(timed([&] {
      if (std::system("nft -f /tmp/bench-flows.nft") != 0) die("nft -f failed");
    }));
  }
  std::remove(path);
}

Row measure(int flows, const std::string& seals) {
  Row row{.flows = flows};
  const auto s = settings();
  must(LinuxKernel::purge_table());
  auto kernel = must(LinuxKernel::make(s));
  kernel->set_table(s, {});
  auto world = world_of(s, flows, Proto::kTcp);
  policy::Compiler compiler;
  row.cold.measure([&] {
    [[maybe_unused]] const auto plan = compiler.rebuild(world);
    must(kernel->converge(compiler.elements()));
  });
  // As the daemon: it listens to what is done to its table once the table is there, and while
  // anybody listens, the kernel writes an event for each element.
  const auto monitor = must(netlink::NftMonitor::make(std::string(policy::kTableName)));
  row.elements = compiler.elements().size();
  toggle(world, compiler, *kernel, row);
  toggle_raw(row);
  toggle_text(row);
  const auto restart = [&] {
    policy::Compiler again;
    row.rebuild.measure([&] { [[maybe_unused]] const auto plan = again.rebuild(world); });
    const auto repairs = must(kernel->converge(again.elements()));
    if (!repairs.what.empty()) die("a restart found differences: " + repairs.what.front());
  };
  // Somebody may have been at the table: all of it is read back. And then nobody was.
  for (auto* start : {&row.restart_read, &row.restart}) {
    kernel = must(LinuxKernel::make(s));
    must(kernel->keep_seal(seals, "boot"));
    kernel->set_table(s, {});
    start->measure(restart);
  }
  return row;
}

}  // namespace
}  // namespace meshd::bench

// With numbers of flows as arguments: these instead.
int main(int argc, char** argv) {
  std::vector<int> sizes = {10, 10'000, 100'000};
  if (argc > 1) sizes.clear();
  for (int i = 1; i < argc; ++i) sizes.push_back(std::atoi(argv[i]));
  if (unshare(CLONE_NEWNET) != 0) meshd::bench::die("needs root");
  fmt::print("{{\"rows\": [");
  const char* separator = "";
  for (const int flows : sizes) {
    std::string seals = "/tmp/bench-flows-XXXXXX";
    if (mkdtemp(seals.data()) == nullptr) meshd::bench::die("makes no directory in /tmp");
    auto row = meshd::bench::measure(flows, seals);
    std::filesystem::remove_all(seals);
    fmt::print(
        "{}{{\"flows\": {}, \"elements\": {}, \"compile_p50\": {:.1f}, \"kernel_p50\": {:.1f}, "
        "\"both_p50\": {:.1f}, \"both_p99\": {:.1f}, \"raw_p50\": {:.1f}, \"nft_text_p50\": "
        "{:.0f}",
        separator, row.flows, row.elements, row.compile.at(0.5), row.kernel.at(0.5),
        row.both.at(0.5), row.both.at(0.99), row.raw.at(0.5), row.text.at(0.5));
    for (const auto& [name, start] : {std::pair("cold_start", row.cold),
                                      {"restart", row.restart},
                                      {"restart_read", row.restart_read},
                                      {"compile_of_restart", row.rebuild}}) {
      fmt::print(", \"{0}_ms\": {1:.0f}, \"{0}_cpu_ms\": {2:.0f}", name, start.wall / 1000,
                 start.cpu / 1000);
    }
    fmt::print("}}");
    separator = ", ";
    std::fflush(stdout);
  }
  fmt::print("]}}\n");
  return 0;
}
