// What one flow costs to add and to revoke, in the compiler and in the kernel, with few and
// with many flows installed; and what a cold start and a restart cost. Runs in a network
// namespace of its own. Prints one JSON object; times in microseconds.
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <vector>

#include "meshd/linux_kernel.h"
#include "meshd/lower_ruleset.h"
#include "netlink/nft_batch.h"
#include "policy/plan.h"

namespace meshd {
namespace {

using Micros = std::chrono::duration<double, std::micro>;
constexpr int kToggles = 400;  // measured changes: enough for a p99
constexpr int kTextToggles = 20;

double timed(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return Micros(std::chrono::steady_clock::now() - start).count();
}

struct Times {
  std::vector<double> values;
  [[nodiscard]] double at(double share) {
    std::ranges::sort(values);
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
  }
};

[[noreturn]] void die(const std::string& what) {
  fmt::print(stderr, "bench_flows: {}\n", what);
  std::exit(1);
}
template <class T>
T must(Result<T> result) {
  if (!result) die(result.error().what);
  return *std::move(result);
}
void must(const Status& status) {
  if (!status) die(status.error().what);
}

policy::Settings settings() {
  policy::Settings s;
  s.pool4 = Prefix::parse("10.213.0.0/16").value();
  s.vip_pool4 = Prefix::parse("10.214.0.0/16").value();
  s.pool6 = Prefix::parse("fd00:0:0:1::/64").value();
  s.vip_pool6 = Prefix::parse("fd00:0:0:2::/64").value();
  for (int i = 0; i < 2; ++i) {
    s.resolver4[i] = IpAddress::parse(fmt::format("169.254.1.{}", i + 1)).value();
    s.resolver6[i] = IpAddress::parse(fmt::format("fd00:0:0:53::{}", i + 53)).value();
  }
  return s;
}

policy::Workload workload(const policy::Settings& s, std::uint64_t index) {
  policy::Workload w;
  w.declaration.id = fmt::format("w{}", index);
  w.declaration.owner = "bench";
  w.declaration.admit = policy::Admit::kOwner;
  w.declaration.serves = {{{Proto::kTcp, 80, 80}, ""}};
  w.attachment.emplace();
  w.attachment->v4 = s.pool4->address().plus(index);
  w.attachment->v6 = s.pool6->address().plus(index);
  w.attachment->host_ifname = fmt::format("mesh{:x}", index);
  return w;
}

// `flows` directed edges, in chunks of 100 per consumer (a flow is an element per family);
// the consumer that is toggled always has ten peers.
policy::World world_of(const policy::Settings& s, int flows) {
  policy::World world;
  world.settings = s;
  const int containers = std::max(20, flows / 100 + 1);
  for (int i = 1; i <= containers; ++i) {
    auto w = workload(s, static_cast<std::uint64_t>(i));
    world.workloads.emplace(w.declaration.id, std::move(w));
  }
  int left = flows;
  for (int i = 1; i <= containers && left > 0; ++i) {
    auto& peers = world.workloads[fmt::format("w{}", i)].declaration.peers;
    const int wanted = i == 1 ? 10 : 100;
    for (int k = 1; k <= wanted && left > 0 && k < containers; ++k, --left) {
      peers.push_back({fmt::format("w{}", (i + k - 1) % containers + 1), "", {}, {}});
    }
  }
  return world;
}

struct Row {
  int flows;
  Times compile{}, kernel{}, both{}, raw{}, text{};
  double cold = 0, restart = 0, rebuild = 0;
  std::size_t elements = 0;
};

void toggle(policy::World& world, policy::Compiler& compiler, Kernel& kernel, Row& row) {
  auto& peers = world.workloads["w1"].declaration.peers;
  const auto saved = peers.back();
  const policy::Touched touched{{"w1"}, {}};
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

Row measure(int flows) {
  Row row{.flows = flows};
  const auto s = settings();
  must(LinuxKernel::purge_table());
  auto kernel = must(LinuxKernel::make(s));
  kernel->set_table(s, {});
  auto world = world_of(s, flows);
  policy::Compiler compiler;
  row.cold = timed([&] {
    [[maybe_unused]] const auto plan = compiler.rebuild(world);
    must(kernel->converge(compiler.elements()));
  });
  row.elements = compiler.elements().size();
  toggle(world, compiler, *kernel, row);
  toggle_raw(row);
  toggle_text(row);
  policy::Compiler again;
  row.restart = timed([&] {
    row.rebuild = timed([&] { [[maybe_unused]] const auto plan = again.rebuild(world); });
    const auto repairs = must(kernel->converge(again.elements()));
    if (!repairs.what.empty()) die("a restart found differences: " + repairs.what.front());
  });
  return row;
}

}  // namespace
}  // namespace meshd

int main() {
  if (unshare(CLONE_NEWNET) != 0) meshd::die("needs root");
  fmt::print("{{\"rows\": [");
  const char* separator = "";
  for (const int flows : {10, 10'000, 100'000}) {
    auto row = meshd::measure(flows);
    fmt::print(
        "{}{{\"flows\": {}, \"elements\": {}, \"compile_p50\": {:.1f}, \"kernel_p50\": {:.1f}, "
        "\"both_p50\": {:.1f}, \"both_p99\": {:.1f}, \"raw_p50\": {:.1f}, \"nft_text_p50\": "
        "{:.0f}, \"cold_start_ms\": {:.0f}, \"restart_ms\": {:.0f}, "
        "\"of_that_compile_ms\": {:.0f}}}",
        separator, row.flows, row.elements, row.compile.at(0.5), row.kernel.at(0.5),
        row.both.at(0.5), row.both.at(0.99), row.raw.at(0.5), row.text.at(0.5), row.cold / 1000,
        row.restart / 1000, row.rebuild / 1000);
    separator = ", ";
    std::fflush(stdout);
  }
  fmt::print("]}}\n");
  return 0;
}
