#include "tests/support/underlay_bed.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <thread>
#include <utility>

#include "tests/support/flows.h"
#include "tests/support/ruleset_samples.h"

namespace meshd::test {
namespace {

void expect_quiet(const std::string& output) {
  if (output.empty()) return;
  ADD_FAILURE() << output;
  std::abort();  // nothing after this could be trusted
}

std::string path_of(const netlink::Netns& netns) {
  return fmt::format("/proc/{}/fd/{}", getpid(), netns.fd());
}

// Forwards, answers pings of all users, and does not wait a second for each IPv6 address.
constexpr const char* kQuick = R"(
  for key in accept_dad dad_transmits accept_ra; do
    echo 0 > /proc/sys/net/ipv6/conf/default/$key; done
  for key in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 > /proc/sys/net/$key; done
  for key in all default; do echo 0 > /proc/sys/net/ipv4/conf/$key/rp_filter; done
  echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
  ip link set lo up
)";

UnderlayNode new_node(int number, policy::RemoteNode told) {
  const auto n = static_cast<std::uint64_t>(number);
  return {told.name,
          make_netns(),
          make_netns(),
          std::move(told),
          ip("10.213.0.5").plus(n << 8),
          must(IpAddress::parse(fmt::format("fd5a:1:2:1:{}::5", number))),
          std::nullopt};
}

}  // namespace

UnderlayBed::UnderlayBed(const std::vector<Wire>& wires) {
  must(PrivateNetns::enter());
  expect_quiet(output_of(std::string(kQuick) + R"(
    ip -batch - <<END
    link add br0 type bridge
    addr add 192.0.2.254/24 dev br0
    addr add 2001:db8::ff/64 dev br0 nodad
    link set br0 up
END)"));
  for (std::size_t i = 0; i < wires.size(); ++i) make_node(static_cast<int>(i) + 1, wires[i]);
}

void UnderlayBed::make_node(int number, Wire wire) {
  const bool bridged = wire == Wire::kBridge;
  const int base = 16 * number;
  const auto v4 =
      bridged ? fmt::format("192.0.2.{}", number) : fmt::format("198.51.100.{}", base + 1);
  const auto v6 =
      bridged ? fmt::format("2001:db8::{}", number) : fmt::format("2001:db8:{}::1", number);
  const auto router4 = bridged ? "192.0.2.254" : fmt::format("198.51.100.{}", base + 2);
  const auto router6 = bridged ? "2001:db8::ff" : fmt::format("2001:db8:{}::2", number);
  auto node = new_node(number, {fmt::format("n{}", number),
                                {Prefix::of(ip("10.213.0.0").plus(256ULL * number), 24),
                                 must(Prefix::parse(fmt::format("fd5a:1:2:1:{}::/80", number)))},
                                {must(IpAddress::parse(v4)), must(IpAddress::parse(v6))}});
  expect_quiet(output_of(
      bridged ? fmt::format("ip link add up{0} master br0 type veth peer name eth0 netns {1} &&"
                            "ip link set up{0} up",
                            number, path_of(node.netns))
              : fmt::format("ip link add up{0} type veth peer name eth0 netns {1} &&"
                            "ip addr add {2}/28 dev up{0} && ip addr add {3}/64 dev up{0} nodad &&"
                            "ip link set up{0} up",
                            number, path_of(node.netns), router4, router6)));
  expect_quiet(
      output_in(node.netns, kQuick + fmt::format(R"(
    ip -batch - <<END
    addr add {}/{} dev eth0
    addr add {}/64 dev eth0 nodad
    link set eth0 up
    route add default via {}
    route add default via {}
    route add 10.213.0.0/16 dev lo proto 213 metric 4278198272
    route add fd5a:1:2:1::/64 dev lo proto 213 metric 4278198272
END)",
                                                 v4, bridged ? 24 : 28, v6, router4, router6)));
  make_container(node);
  nodes_.push_back(std::move(node));
  restart(nodes_.size() - 1);
}

void UnderlayBed::make_container(const UnderlayNode& node) {
  const auto v4 = node.v4.to_string(), v6 = node.v6.to_string();
  constexpr const char* kMac = "02:00:00:00:01:05";
  expect_quiet(output_in(node.netns, fmt::format(R"(
    ip link add name mesh1 group 77 address 02:00:00:00:00:01 type veth \
      peer name eth0 address {0} netns {1}
    ip -batch - <<END
    link set mesh1 arp off up
    neigh add {2} lladdr {0} dev mesh1 nud permanent
    neigh add {3} lladdr {0} dev mesh1 nud permanent
    route add {2} dev mesh1 proto 213
    route add {3} dev mesh1 proto 213
END)",
                                                 kMac, path_of(node.container), v4, v6)));
  expect_quiet(output_in(node.container, kQuick + fmt::format(R"(
    ip -batch - <<END
    addr add {}/32 dev eth0
    addr add {}/128 dev eth0 nodad
    link set eth0 up
    neigh add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
    neigh add fe80::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent
    route add 169.254.1.1 dev eth0 scope link
    route add default via 169.254.1.1
    route add default via fe80::1 dev eth0
END)",
                                                              v4, v6)));
}

UnderlayPlan UnderlayBed::plan(std::size_t i, const UnderlayConfig& config,
                               std::optional<std::size_t> unknown) {
  std::map<std::string, policy::RemoteNode> others;
  for (std::size_t k = 0; k < nodes_.size(); ++k) {
    if (k != i && k != unknown) others.emplace(nodes_[k].name, nodes_[k].told);
  }
  auto& node = nodes_[i];
  auto settings = sample_settings();
  settings.block4 = node.told.blocks[0];
  settings.block6 = node.told.blocks[1];
  return plan_underlay(others, must(node.underlay->self(settings, config)), config);
}

void UnderlayBed::apply(std::size_t i, const UnderlayPlan& plan) {
  auto& node = nodes_[i];
  must(netlink::call_in_netns(node.netns.fd(), [&] { return node.underlay->apply(plan); }));
}

void UnderlayBed::apply_all(const UnderlayConfig& config) {
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const auto wanted = plan(i, config);
    EXPECT_TRUE(wanted.problems.empty()) << wanted.problems.front();
    apply(i, wanted);
    const auto mtu = fmt::format(" mtu {}", wanted.mtu.value());
    expect_quiet(in_node(i, "ip link set mesh1" + mtu) + in_container(i, "ip link set eth0" + mtu));
  }
}

std::vector<std::string> UnderlayBed::audit(std::size_t i) {
  auto& node = nodes_[i];
  Repairs repairs;
  must(netlink::run_in_netns(node.netns.fd(), [&] { repairs = node.underlay->audit(); }));
  return repairs.what;
}

void UnderlayBed::restart(std::size_t i) {
  auto& node = nodes_[i];
  node.underlay.emplace(
      must(netlink::call_in_netns(node.netns.fd(), [] { return Underlay::make(); })));
}

std::string UnderlayBed::ours(std::size_t i) {
  return in_node(i, R"(
    { ip route; ip -6 route; } | grep 'via.*proto 213' | sort
    ip -o link show group 78 | cut -d: -f2-
    ip -o neigh show nud permanent | grep 'dev mesh0' | sort
    bridge fdb show 2>/dev/null | grep 'dev mesh0' | sort
    true)");
}

// The kernel tells IPv6 of a carrier up to a second late, and drops until then.
bool UnderlayBed::reaches(std::size_t from, std::size_t to, Family family) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  do {
    const auto answer = ping(nodes_[from].container, nodes_[to].at(family), kSilence);
    if (answer == Talk::kAnswered) return true;
  } while (std::chrono::steady_clock::now() < limit);
  return false;
}

bool UnderlayBed::carries(std::size_t from, std::size_t to, Family family, int bytes) {
  const int headers = family == Family::kV4 ? 20 + 8 : 40 + 8;
  const auto output =
      in_container(from, fmt::format("ping -n -c 1 -W 2 -M do -s {} {}", bytes - headers,
                                     nodes_[to].at(family).to_string()));
  return output.find(" 1 received") != std::string::npos;
}

bool UnderlayBed::streams(std::size_t from, std::size_t to, Family family) {
  constexpr std::size_t kBytes = 1U << 20;
  const auto server =
      serve(nodes_[to].container, nodes_[to].at(family).to_string().c_str(), 7778, SOCK_STREAM);
  UniqueFd client;
  must(netlink::run_in_netns(nodes_[from].container.fd(),
                             [&] { client = make_socket(nodes_[to].at(family), SOCK_STREAM); }));
  const timeval limit{.tv_sec = 5, .tv_usec = 0};
  setsockopt(client.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  const auto remote = endpoint(nodes_[to].at(family), 7778);
  if (connect(client.get(), remote.get(), remote.length) != 0) return false;
  const UniqueFd accepted(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
  setsockopt(accepted.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  std::thread sender([&client] {
    const std::vector<char> bytes(kBytes);
    static_cast<void>(!write(client.get(), bytes.data(), bytes.size()));
    shutdown(client.get(), SHUT_WR);
  });
  std::size_t received = 0;
  std::vector<char> buffer(1U << 16);
  for (ssize_t got = 1; got > 0;) {
    got = read(accepted.get(), buffer.data(), buffer.size());
    if (got > 0) received += static_cast<std::size_t>(got);
  }
  shutdown(client.get(), SHUT_RDWR);
  sender.join();
  return received == kBytes;
}

}  // namespace meshd::test
