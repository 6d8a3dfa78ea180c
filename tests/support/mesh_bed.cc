#include "tests/support/mesh_bed.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "meshd/lower_ruleset.h"
#include "meshd/table_repair.h"
#include "netlink/nft_batch.h"
#include "netlink/nft_dump.h"
#include "policy/profile.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/ruleset_samples.h"

namespace meshd::test {
namespace {

using policy::Element;
using policy::ElementBuilder;
using policy::SetId;

SetId version(SetId v4, Family family) {
  return family == Family::kV4 ? v4 : static_cast<SetId>(static_cast<int>(v4) + 1);
}

std::string path_of(const netlink::Netns& netns) {
  return fmt::format("/proc/{}/fd/{}", getpid(), netns.fd());
}

void expect_quiet(const std::string& output) {
  if (output.empty()) return;
  ADD_FAILURE() << output;
  std::abort();  // nothing after this could be trusted
}

}  // namespace

MeshBed::MeshBed(int containers, policy::TableOptions options, std::uint32_t dns_client_rate)
    : settings_(sample_settings()), options_(options) {
  settings_.dns_client_rate = dns_client_rate;
  must(PrivateNetns::enter());
  node_.emplace(must(netlink::Netns::own()));
  expect_quiet(output_of(
      fmt::format(R"(
    echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
    for key in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 > /proc/sys/net/$key; done
    for key in ipv4/conf/all/rp_filter ipv4/conf/default/rp_filter ipv6/conf/default/accept_ra
    do echo 0 > /proc/sys/net/$key; done
    ip -batch - <<END
    addr add {}/32 dev lo scope host
    addr add {}/32 dev lo scope host
    addr add {}/128 dev lo nodad preferred_lft 0
    addr add {}/128 dev lo nodad preferred_lft 0
    route add 10.213.0.0/16 dev lo metric 4278198272
    route add 10.214.0.0/16 dev lo metric 4278198272
    route add fd5a:1:2:1::/64 dev lo metric 4278198272
    route add fd5a:1:2:2::/64 dev lo metric 4278198272
END)",
                  settings_.resolver4[0].to_string(), settings_.resolver4[1].to_string(),
                  settings_.resolver6[0].to_string(), settings_.resolver6[1].to_string())));
  make_outside();
  install();
  for (int i = 0; i < containers; ++i) make_container(i);
}

// The kernel tells IPv6 of a carrier up to a second late, and drops until then; so only those
// who ask for the outside wait.
const BedHost& MeshBed::outside() const {
  if (std::exchange(outside_ready_, true)) return *outside_;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (ping(*node_, outside_->v6, std::chrono::milliseconds(50)) != Talk::kAnswered ||
         ping(outside_->netns, node_address(Family::kV6), std::chrono::milliseconds(50)) !=
             Talk::kAnswered) {
    if (std::chrono::steady_clock::now() > limit) expect_quiet("the uplink carries no IPv6");
  }
  return *outside_;
}

policy::Element MeshBed::draining(const IpAddress& address) {
  return ElementBuilder(version(SetId::kDrain4, address.family())).addr(address).build();
}

void MeshBed::make_outside() {
  // Without duplicate address detection, which would take the first second.
  const std::string quick = R"(
    for key in accept_dad dad_transmits accept_ra; do
      echo 0 > /proc/sys/net/ipv6/conf/default/$key; done)";
  outside_ = BedHost{"outside", make_netns(), "up0", {}, ip("192.0.2.100"), ip("2001:db8::100")};
  expect_quiet(output_in(outside_->netns, quick));
  expect_quiet(output_of(quick + fmt::format(R"(
    ip -batch - <<END
    link add name up0 type veth peer name eth0 netns {}
    addr add 192.0.2.1/24 dev up0
    addr add 2001:db8::1/64 dev up0 nodad
    link set up0 up
    route add 169.254.169.254 dev up0
END)",
                                             path_of(outside_->netns))));
  expect_quiet(output_in(outside_->netns, R"(
    echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
    ip -batch - <<END
    link set lo up
    addr add 192.0.2.100/24 dev eth0
    addr add 192.0.2.101/24 dev eth0
    addr add 169.254.169.254/32 dev eth0
    addr add 2001:db8::100/64 dev eth0 nodad
    link set eth0 up
    route add 10.213.0.0/16 via 192.0.2.1
    route add 10.214.0.0/16 via 192.0.2.1
    route add fd5a:1:2::/48 via 2001:db8::1
END)"));
}

void MeshBed::make_container(int index) {
  const auto n = static_cast<std::uint64_t>(index) + 1;
  BedHost host{
      fmt::format("c{}", index),          make_netns(),
      fmt::format("mesh{}", index),       Mac{{2, 0, 0, 0, 1, static_cast<std::uint8_t>(n)}},
      settings_.pool4->address().plus(n), settings_.pool6->address().plus(n)};
  add(attached(host));
  const auto v4 = host.v4.to_string(), v6 = host.v6.to_string(), mac = host.mac.to_string();
  expect_quiet(output_of(fmt::format(
      R"(ip link add name {0} group 77 address 02:00:00:00:00:01 type veth \
         peer name eth0 address {1} netns {2}
    echo 1 > /proc/sys/net/ipv4/conf/{0}/rp_filter
    echo 1 > /proc/sys/net/ipv6/conf/{0}/addr_gen_mode
    ip -batch - <<END
    link set {0} arp off up
    neigh add {3} lladdr {1} dev {0} nud permanent
    neigh add {4} lladdr {1} dev {0} nud permanent
    route add {3} dev {0}
    route add {4} dev {0}
END)",
      host.host_ifname, mac, path_of(host.netns), v4, v6)));
  expect_quiet(output_in(host.netns, fmt::format(R"(
    for key in accept_ra accept_redirects dad_transmits; do
      echo 0 > /proc/sys/net/ipv6/conf/eth0/$key; done
    echo 1 > /proc/sys/net/ipv6/conf/eth0/addr_gen_mode
    echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
    ip -batch - <<END
    link set lo up
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
  containers_.push_back(std::move(host));
}

void MeshBed::install() {
  socket_.emplace(must(netlink::Socket::open()));
  Elements elements;
  const auto put_range = [&elements](SetId set, const Prefix& range) {
    elements.push_back(ElementBuilder(version(set, range.family()))
                           .addr(range.address())
                           .end()
                           .addr(range.last())
                           .build());
  };
  for (const Family family : kFamilies) {
    put_range(SetId::kMesh4, *settings_.pool(family));
    put_range(SetId::kMesh4, *settings_.vip_pool(family));
    put_range(SetId::kNever4, Prefix::of(node_address(family), family == Family::kV4 ? 32 : 128));
  }
  for (const auto* text : {"127.0.0.0/8", "169.254.0.0/16", "fe80::/10"}) {
    put_range(SetId::kNever4, prefix(text));
  }
  elements.push_back(ElementBuilder(SetId::kUsers).number(0).build());
  std::ranges::sort(elements);
  netlink::NftBatch batch{std::string(policy::kTableName)};
  const auto table = policy::base_table(settings_, options_);
  must(put_repair(batch, table, elements, 0, nullptr));
  must(std::move(batch).commit(*socket_));
}

IpAddress MeshBed::node_address(Family family) const {
  return family == Family::kV4 ? ip("192.0.2.1") : ip("2001:db8::1");
}

IpAddress MeshBed::vip(Family family) const {
  return settings_.vip_pool(family)->address().plus(7);
}

void MeshBed::apply(const policy::Delta& delta) {
  netlink::NftBatch batch{std::string(policy::kTableName)};
  must(put_delta(batch, delta));
  must(std::move(batch).commit(*socket_));
}

void MeshBed::replace_rules(std::uint32_t dns_client_rate) {
  settings_.dns_client_rate = dns_client_rate;
  reinstall();
}

void MeshBed::join_cluster(bool by_tunnel) {
  settings_.in_cluster = true;
  if (by_tunnel) settings_.tunnel = "up0";
  reinstall();
  add({ElementBuilder(SetId::kTrunk).ifname("up0").build()});
}

void MeshBed::become_gateway() {
  settings_.gateway = true;
  reinstall();
}

void MeshBed::reinstall() {
  const auto dump = must(netlink::NftDump::read(*socket_, policy::kTableName));
  Elements elements;
  for (const auto& set : dump.sets) {
    const auto id = raise_set(set.spec.name);
    for (std::size_t i = 0; id && i < set.elements.size(); ++i) {
      elements.push_back(raise_element(*id, set.elements[i]).value());
    }
  }
  std::ranges::sort(elements);
  netlink::NftBatch batch{std::string(policy::kTableName), dump.generation};
  const auto table = policy::base_table(settings_, options_);
  EXPECT_FALSE(must(put_repair(batch, table, elements, 0, &dump)).empty());
  must(std::move(batch).commit(*socket_));
}

std::map<Element, std::uint64_t> MeshBed::counted(SetId set) {
  std::map<Element, std::uint64_t> packets;
  const auto list = must(netlink::read_elements(*socket_, policy::kTableName, lower_set(set)));
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto view = list[i];
    packets[raise_element(set, view).value()] = view.packets;
  }
  return packets;
}

std::uint64_t MeshBed::counter(const std::string& name) {
  for (const auto& counter : must(netlink::read_counters(*socket_, policy::kTableName))) {
    if (counter.name == name) return counter.packets;
  }
  ADD_FAILURE() << "no counter " << name;
  return 0;
}

MeshBed::Elements MeshBed::attached(const BedHost& container) {
  Elements elements;
  for (const Family family : kFamilies) {
    const auto& address = container.at(family);
    elements.push_back(ElementBuilder(version(SetId::kBind4, family))
                           .ifname(container.host_ifname)
                           .ether(container.mac)
                           .addr(address)
                           .build());
    elements.push_back(ElementBuilder(version(SetId::kLocal4, family)).addr(address).build());
    elements.push_back(
        ElementBuilder(version(SetId::kSelf4, family)).addr(address).addr(address).build());
  }
  return elements;
}

MeshBed::Elements MeshBed::allow(const BedHost& from, const BedHost& to, Proto proto,
                                 std::uint16_t port) {
  Elements elements;
  for (const Family family : kFamilies) {
    elements.push_back(ElementBuilder(version(SetId::kAllow4, family))
                           .addr(from.at(family))
                           .addr(to.at(family))
                           .proto(proto)
                           .port(port)
                           .build());
  }
  return elements;
}

MeshBed::Elements MeshBed::pair(const BedHost& a, const BedHost& b) {
  Elements elements;
  for (const Family family : kFamilies) {
    elements.push_back(ElementBuilder(version(SetId::kPair4, family))
                           .addr(a.at(family))
                           .addr(b.at(family))
                           .build());
  }
  return elements;
}

MeshBed::Elements MeshBed::slots(Proto proto, std::uint16_t port, const BedHost& to) const {
  Elements elements;
  for (const Family family : kFamilies) {
    for (std::uint32_t slot = 0; slot < policy::kSlots; ++slot) {
      elements.push_back(ElementBuilder(version(SetId::kVip4, family))
                             .addr(vip(family))
                             .proto(proto)
                             .port(port)
                             .number(slot)
                             .data()
                             .addr(to.at(family))
                             .build());
    }
  }
  return elements;
}

MeshBed::Elements MeshBed::hold(const BedHost& from, Proto proto, std::uint16_t port) const {
  Elements elements;
  for (const Family family : kFamilies) {
    elements.push_back(ElementBuilder(version(SetId::kHold4, family))
                           .addr(from.at(family))
                           .addr(vip(family))
                           .proto(proto)
                           .port(port)
                           .build());
  }
  return elements;
}

MeshBed::Elements MeshBed::publish(Proto proto, std::uint16_t node_port, const BedHost& to,
                                   std::uint16_t port, std::uint32_t profile) const {
  Elements elements;
  for (const Family family : kFamilies) {
    elements.push_back(ElementBuilder(version(SetId::kPub4, family))
                           .addr(node_address(family))
                           .proto(proto)
                           .port(node_port)
                           .data()
                           .addr(to.at(family))
                           .port(port)
                           .build());
    elements.push_back(ElementBuilder(version(SetId::kPubProfile4, family))
                           .addr(to.at(family))
                           .proto(proto)
                           .port(port)
                           .data()
                           .number(profile)
                           .build());
    elements.push_back(policy::publication_count(to.at(family), proto, port));
  }
  return elements;
}

MeshBed::Elements MeshBed::sources(std::uint32_t profile, const Prefix& from) {
  return {ElementBuilder(version(SetId::kSource4, from.family()))
              .number(profile)
              .addr(from.address())
              .end()
              .number(profile)
              .addr(from.last())
              .build()};
}

MeshBed::Elements MeshBed::egress_profile(const BedHost& container, std::uint32_t profile,
                                          std::uint32_t row) {
  Elements elements;
  for (const Family family : kFamilies) {
    elements.push_back(ElementBuilder(version(SetId::kEgressProfile4, family))
                           .addr(container.at(family))
                           .data()
                           .number(profile)
                           .build());
    elements.push_back(policy::egress_count(container.at(family), row));
  }
  return elements;
}

MeshBed::Elements MeshBed::egress(std::uint32_t profile, const Prefix& to, std::uint32_t row) {
  Elements elements;
  const std::uint8_t icmp = to.family() == Family::kV4 ? 1 : 58;
  for (const std::uint8_t proto : {std::uint8_t{6}, std::uint8_t{17}, icmp}) {
    elements.push_back(ElementBuilder(version(SetId::kEgress4, to.family()))
                           .number(profile)
                           .addr(to.address())
                           .proto(proto)
                           .port(0)
                           .end()
                           .number(profile)
                           .addr(to.last())
                           .proto(proto)
                           .port(65535)
                           .data()
                           .number(row)
                           .build());
  }
  return elements;
}

}  // namespace meshd::test
