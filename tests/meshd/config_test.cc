#include "meshd/config.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }
Prefix prefix(std::string_view text) { return Prefix::parse(text).value(); }

std::string refusal(std::string_view text) {
  const auto config = parse_config("m.yaml", text);
  return config ? "accepted" : config.error().what;
}

TEST(ConfigTest, NothingNeedsToBeConfigured) {
  const auto config = default_config();
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_FALSE(config->node_name.empty());
  EXPECT_EQ(config->zone, "mesh.internal");
  EXPECT_TRUE(config->upstreams.empty());
  EXPECT_EQ(config->dns_client_rate, 2000U);
  EXPECT_EQ(config->publish_first, 20000);
  EXPECT_EQ(config->publish_last, 29999);
  EXPECT_EQ(config->state_dir, "/var/lib/meshd");
  EXPECT_EQ(config->run_dir, "/run/meshd");
  EXPECT_FALSE(config->log_format);
  EXPECT_EQ(config->underlay.mode, UnderlayMode::kAuto);
  EXPECT_TRUE(config->underlay.addresses.empty() && config->underlay.device.empty());
}

TEST(ConfigTest, RunDirIsTheVariablesUnlessConfigured) {
  ASSERT_EQ(setenv("MESHD_RUN_DIR", "/tmp/mine", 1), 0);
  EXPECT_EQ(default_config()->run_dir, "/tmp/mine");
  EXPECT_EQ(parse_config("m.yaml", "run_dir: /srv/m/run")->run_dir, "/srv/m/run");
  ASSERT_EQ(setenv("MESHD_RUN_DIR", "mine", 1), 0);
  const auto refused = default_config();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().what, "MESHD_RUN_DIR: must be an absolute path");
  ASSERT_EQ(setenv("MESHD_RUN_DIR", "", 1), 0);
  EXPECT_EQ(default_config()->run_dir, "/run/meshd");
  ASSERT_EQ(unsetenv("MESHD_RUN_DIR"), 0);
}

TEST(ConfigTest, IdleNamesStayForEverUnlessConfigured) {
  EXPECT_EQ(default_config()->idle_release_days, 0U);
  EXPECT_EQ(parse_config("m.yaml", "names: {idle_release_days: 0}")->idle_release_days, 0U);
  EXPECT_EQ(refusal("names: {idle_release_days: 40000}"),
            "m.yaml:1: names.idle_release_days: 40000 is not between 1 and 36500");
}

TEST(ConfigTest, EveryFieldIsTaken) {
  const auto config = parse_config("m.yaml", R"(
node: {name: n1, allow_users: [root, "4711", nobody, "4711"]}
zone: Mesh.Example.ORG.
pool: {ipv4: 10.1.0.0/16, vip4: 10.2.0.0/24, ipv6: "off"}
dns:
  upstreams: [192.0.2.1, "192.0.2.2:5353", "[2001:db8::1]:54", "2001:db8::2"]
  cache_mib: 4
  workers: 2
  client_rate: 10
  engine_prefixes: [172.17.0.0/16]
publish:
  addresses: [192.0.2.7]
  ports: 30000-30009
  allow_from: [192.0.2.0/24]
  proxies: [192.0.2.8]
names: {reserved: [www, api], idle_release_days: 30}
engines: {undeclared: CLOSED, docker_user: true}
underlay: {mode: VXLAN, addresses: ["192.0.2.7", "2001:db8::7"], device: eth1}
state_dir: /srv/m/state/
run_dir: /srv/m/run
log: {level: DEBUG, format: JSON}
)");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_EQ(config->node_name, "n1");
  EXPECT_THAT(config->allow_uids, ElementsAre(4711U, 65534U));
  EXPECT_EQ(config->zone, "mesh.example.org");
  EXPECT_EQ(config->pools.ipv4.prefix, prefix("10.1.0.0/16"));
  EXPECT_TRUE(config->pools.ipv6.off && config->pools.vip6.off);
  EXPECT_THAT(config->upstreams,
              ElementsAre(Upstream{ip("192.0.2.1"), 53}, Upstream{ip("192.0.2.2"), 5353},
                          Upstream{ip("2001:db8::1"), 54}, Upstream{ip("2001:db8::2"), 53}));
  EXPECT_EQ(config->dns_cache_mib, 4U);
  EXPECT_EQ(config->dns_workers, 2U);
  EXPECT_EQ(config->dns_client_rate, 10U);
  EXPECT_THAT(config->engine_prefixes, ElementsAre(prefix("172.17.0.0/16")));
  EXPECT_THAT(config->publish_addresses, ElementsAre(ip("192.0.2.7")));
  EXPECT_EQ(config->publish_first, 30000);
  EXPECT_EQ(config->publish_last, 30009);
  EXPECT_THAT(config->publish_allow_from, ElementsAre(prefix("192.0.2.0/24")));
  EXPECT_THAT(config->proxies, ElementsAre(prefix("192.0.2.8")));
  EXPECT_THAT(config->reserved_names, ElementsAre("api", "www"));
  EXPECT_EQ(config->undeclared, Undeclared::kClosed);
  EXPECT_TRUE(config->docker_user);
  EXPECT_EQ(config->state_dir, "/srv/m/state");
  EXPECT_EQ(config->idle_release_days, 30U);
  EXPECT_EQ(config->run_dir, "/srv/m/run");
  EXPECT_EQ(config->underlay.mode, UnderlayMode::kVxlan);
  EXPECT_THAT(config->underlay.addresses, ElementsAre(ip("192.0.2.7"), ip("2001:db8::7")));
  EXPECT_EQ(config->underlay.device, "eth1");
  EXPECT_EQ(config->log_level, log::Level::kDebug);
  EXPECT_EQ(config->log_format, log::Format::kJson);
}

TEST(ConfigTest, WhomNobodyDeclaredIsLeftAloneUnlessItIsSaid) {
  EXPECT_EQ(default_config()->undeclared, Undeclared::kIgnore);
  EXPECT_FALSE(default_config()->docker_user);
  EXPECT_EQ(parse_config("m.yaml", "engines: {undeclared: REFUSE}")->undeclared,
            Undeclared::kRefuse);
  EXPECT_FALSE(parse_config("m.yaml", "engines: {undeclared: ALLOW}"));
}

TEST(ConfigTest, ANodeJoinsWithATicketOrBringsItsIdentity) {
  EXPECT_FALSE(default_config()->controller);
  const auto joins = parse_config("m.yaml", "controller: {join_file: /etc/meshd/ticket}");
  ASSERT_TRUE(joins) << joins.error().what;
  EXPECT_EQ(joins->controller->join_file, "/etc/meshd/ticket");
  EXPECT_THAT(joins->controller->addresses, testing::IsEmpty());
  const auto own = parse_config("m.yaml", R"(
controller:
  addresses: ["c1.example.org:7443", "[2001:db8::1]:7443"]
  authorities_file: /etc/meshd/ca.pem
  identity_file: /etc/meshd/own.pem
)");
  ASSERT_TRUE(own) << own.error().what;
  EXPECT_THAT(own->controller->addresses, ElementsAre("c1.example.org:7443", "[2001:db8::1]:7443"));
  EXPECT_EQ(own->controller->authorities_file, "/etc/meshd/ca.pem");
  EXPECT_EQ(own->controller->identity_file, "/etc/meshd/own.pem");
}

TEST(ConfigTest, HalfAControllerIsRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"controller: {}", "controller: needs join_file, or addresses"},
      {"controller: {addresses: ['c:1']}", "controller: needs join_file, or addresses"},
      {"controller: {join_file: ''}", "controller.join_file: is empty"},
      {"controller: {join_file: ticket}", "controller.join_file: must be an absolute path"},
      {"controller: {join_file: /t, addresses: [c1]}",
       "controller.addresses[0]: 'c1' does not end"},
      {"controller: {join_file: /t, identity_file: /i}", "are for nodes that do not join"},
  };
  for (const auto& [text, why] : cases) EXPECT_THAT(refusal(text), HasSubstr(why)) << text;
}

TEST(ConfigTest, ErrorNamesFileLineFieldAndReason) {
  EXPECT_EQ(refusal("zone: mesh.internal\ndns:\n  upstreams:\n  - 192.0.2.1\n  - 192.0.2.1:0\n"),
            "m.yaml:5: dns.upstreams[1]: '0' is not a port");
  EXPECT_THAT(refusal("zone: a.b\npool:\n  vip4: 10.213.4.0/24\n"),
              "m.yaml:3: pool.vip4: 10.213.4.0/24 overlaps pool.ipv4 10.213.0.0/16");
}

TEST(ConfigTest, MistakesAreRefusedWithTheReason) {
  const std::pair<const char*, const char*> cases[] = {
      {"zone: local", "m.yaml:1: zone: must have at least two labels"},
      {"zone: foo.local", "clients do not ask a DNS server for names in 'local'"},
      {"zone: 10.in-addr.arpa", "'arpa'"},
      {"zone: ''", "zone: is empty; leave it out for the default"},
      {"zone: a..b", "zone: "},
      {"node: {name: a.b}", "node.name: "},
      {"node: {allow_users: [no-such-user]}", "node.allow_users[0]: no user 'no-such-user'"},
      {"node: {allow_users: ['4294967295']}", "4294967295 is not a uid"},
      {"node: {allow_users: ['99999999999']}", "is not a uid"},
      {"pool: {ipv4: 10.0.0.0/7}", "pool.ipv4: /7 is not between /8 and /28"},
      {"pool: {ipv4: 10.0.0.0/29}", "is not between"},
      {"pool: {ipv4: 10.0.0.1/16}", "pool.ipv4: "},
      {"pool: {ipv4: 'fd00::/64'}", "is not IPv4"},
      {"pool: {ipv4: 127.0.0.0/8}", "loopback"},
      {"pool: {ipv4: 169.254.0.0/16}", "link-local"},
      {"pool: {ipv6: 'ff00::/48'}", "multicast"},
      {"pool: {ipv6: 'fd00::/40'}", "is not between /48 and /112"},
      {"pool: {ipv4: 'off', ipv6: 'off'}", "nothing is left"},
      {"pool: {vip4: 'off'}", "pool.vip4: off, while pool.ipv4 is on"},
      {"pool: {ipv6: 'off', vip6: 'fd00::/64'}", "pool.vip6: needs pool.ipv6, which is off"},
      {"pool: {ipv6: 'fd00::/60', vip6: 'fd00::/64'}", "pool.vip6: fd00::/64 overlaps pool.ipv6"},
      {"dns: {upstreams: [dns.example.org]}", "is not an address"},
      {"dns: {upstreams: ['fe80::1']}", "link-local"},
      {"dns: {upstreams: [0.0.0.0]}", "no address to send to"},
      {"dns: {upstreams: [224.0.0.1]}", "no single host"},
      {"dns: {cache_mib: 0}", "dns.cache_mib: is empty"},
      {"dns: {cache_mib: 2000}", "dns.cache_mib: 2000 is not between 1 and 1024"},
      {"dns: {workers: 65}", "dns.workers: "},
      {"dns: {client_rate: 1000001}", "dns.client_rate: "},
      {"dns: {engine_prefixes: [nonsense]}", "dns.engine_prefixes[0]: "},
      {"publish: {ports: '20000'}", "publish.ports: '20000' is not FIRST-LAST"},
      {"publish: {ports: 20000-70000}", "publish.ports: "},
      {"publish: {ports: 80-90}", "1024-65535"},
      {"publish: {ports: 3000-2000}", "1024-65535"},
      {"publish: {addresses: [192.0.2.0/24]}", "publish.addresses[0]: "},
      {"names: {reserved: [UPPER]}", "names.reserved[0]: "},
      {"underlay: {mode: MAGIC}", "underlay.mode"},
      {"underlay: {addresses: [127.0.0.1]}", "underlay.addresses[0]: 127.0.0.1 is no address"},
      {"underlay: {addresses: [192.0.2.1, 'fe80::1']}", "underlay.addresses[1]: fe80::1 is no"},
      {"underlay: {addresses: [224.0.0.5]}", "no address that others can send to"},
      {"underlay: {addresses: [192.0.2.1, 192.0.2.1]}", "[0]: 192.0.2.1 is twice there"},
      {"{pool: {ipv4: 10.1.0.0/16}, underlay: {addresses: [10.1.2.3]}}",
       "underlay.addresses[0]: 10.1.2.3 is within the mesh's own range 10.1.0.0/16"},
      {"underlay: {device: mesh0}", "underlay.device: 'mesh0' is no name of a link beneath"},
      {"underlay: {device: eth0/1}", "underlay.device: "},
      {"underlay: {device: ''}", "underlay.device: is empty"},
      {"state_dir: var/lib", "state_dir: must be an absolute path"},
      {"state_dir: /", "root directory"},
      {"state_dir: /a/../b", "'..'"},
      {"state_dir: \"/a\\x1bb\"", "control character"},
      {"state_dir: /run/meshd", "state_dir: state_dir and run_dir are the same"},
      {"unknown: 1", "unknown"},
      {"log: {level: LOUD}", "log.level"},
      {"dns: {workers: many}", "dns.workers"},
  };
  for (const auto& [text, reason] : cases) {
    EXPECT_THAT(refusal(text), HasSubstr(reason)) << text;
    EXPECT_THAT(refusal(text), testing::StartsWith("m.yaml:1: ")) << text;
  }
}

TEST(ConfigTest, OthersAreToldOfAFewUnderlayAddresses) {
  std::string text = "underlay: {addresses: [";
  for (int i = 1; i <= 9; ++i) text += fmt::format("192.0.2.{}, ", i);
  EXPECT_THAT(refusal(text + "]}"), HasSubstr("underlay.addresses: 9 addresses, at most 8"));
}

TEST(ConfigTest, RunDirLeavesRoomForTheSocketsName) {
  const std::string longest(kMaxRunDirBytes - 1, 'x');
  EXPECT_EQ(refusal("run_dir: /" + longest), "accepted");
  EXPECT_THAT(refusal("run_dir: /x" + longest), HasSubstr("run_dir: longer than 94 bytes"));
}

TEST(ConfigTest, ListsHaveALimit) {
  std::string text = "publish: {allow_from: [192.0.2.1";
  for (std::size_t i = 0; i < kMaxConfigEntries; ++i) text += ", 192.0.2.1";
  EXPECT_THAT(refusal(text + "]}"), HasSubstr("publish.allow_from: 257 entries, at most 256"));
  EXPECT_THAT(refusal("dns: {upstreams: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4, 192.0.2.5, "
                      "192.0.2.6, 192.0.2.7, 192.0.2.8, 192.0.2.9]}"),
              HasSubstr("dns.upstreams: 9 servers, at most 8"));
}

TEST(ConfigTest, FileIsReadAndAMissingOneIsTheDefaultUnlessAskedFor) {
  const TempDir temp;
  const auto path = temp / "meshd.yaml";
  ASSERT_TRUE(load_config(path, false));
  const auto missing = load_config(path, true);
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().what, HasSubstr("read " + path));
  std::ofstream(path) << "zone: a.b\n";
  EXPECT_EQ(load_config(path, true)->zone, "a.b");
  EXPECT_FALSE(load_config("/dev/zero", true));
  EXPECT_FALSE(load_config(temp.path(), true));
}

TEST(ConfigTest, JournalIsChosenOnlyWhenStderrIsConnectedToIt) {
  struct stat info{};
  ASSERT_EQ(fstat(STDERR_FILENO, &info), 0);
  unsetenv("JOURNAL_STREAM");
  EXPECT_EQ(journal_or_text(), log::Format::kText);
  setenv("JOURNAL_STREAM", fmt::format("{}:{}", info.st_dev, info.st_ino).c_str(), 1);
  EXPECT_EQ(journal_or_text(), log::Format::kJournal);
  setenv("JOURNAL_STREAM", "1:1", 1);
  EXPECT_EQ(journal_or_text(), log::Format::kText);
  unsetenv("JOURNAL_STREAM");
}

// --- pools ---------------------------------------------------------------------------

const Prefix kUla = prefix("fd12:3456:789a::/48");

TEST(PoolsTest, DefaultsComeFromTheNodesUla) {
  const auto pools = resolve_pools({}, kUla);
  ASSERT_TRUE(pools);
  EXPECT_EQ(pools->pool4, prefix("10.213.0.0/16"));
  EXPECT_EQ(pools->vip4, prefix("10.214.0.0/16"));
  EXPECT_EQ(pools->pool6, prefix("fd12:3456:789a:1::/64"));
  EXPECT_EQ(pools->vip6, prefix("fd12:3456:789a:2::/64"));
}

TEST(PoolsTest, FamilyThatIsOffHasNoPools) {
  const auto pools = resolve_pools(parse_pools("off", "", "", "").value(), kUla);
  ASSERT_TRUE(pools);
  EXPECT_FALSE(pools->pool4 || pools->vip4);
  EXPECT_TRUE(pools->pool6 && pools->vip6);
}

TEST(PoolsTest, OverlapWithADefaultIsSeenOnceTheUlaIsKnown) {
  const auto config = parse_pools("", "fd12:3456:789a::/48", "", "").value();
  const auto pools = resolve_pools(config, kUla);
  ASSERT_FALSE(pools);
  EXPECT_THAT(pools.error().what, HasSubstr("pool.vip6: fd12:3456:789a:2::/64 overlaps pool.ipv6"));
  EXPECT_TRUE(resolve_pools(config, prefix("fd99::/48")));
}

TEST(PoolsTest, RouteThatOverlapsIsNamed) {
  const auto pools = resolve_pools({}, kUla).value();
  const std::vector<HostRoute> harmless = {{prefix("0.0.0.0/0"), "eth0"},
                                           {prefix("::/0"), "eth0"},
                                           {prefix("192.0.2.0/24"), "eth0"},
                                           {prefix("10.215.0.0/16"), "eth1"}};
  EXPECT_TRUE(check_routes(pools, harmless));
  for (const auto* route : {"10.0.0.0/8", "10.214.3.4/32", "fd12:3456:789a:1::/80"}) {
    const auto status = check_routes(pools, std::vector<HostRoute>{{prefix(route), "tun0"}});
    ASSERT_FALSE(status) << route;
    EXPECT_EQ(status.error().code, ErrorCode::kConflict);
    EXPECT_THAT(status.error().what, HasSubstr(fmt::format("overlaps the host's route {} dev tun0",
                                                           prefix(route).to_string())));
  }
}

}  // namespace
}  // namespace meshd
