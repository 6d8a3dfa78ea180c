// Explanations say what the kernel does and what would change it.
#include "policy/explain.h"

#include <gtest/gtest.h>

#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using namespace std::chrono_literals;
using enum FlowVerdict;

class ExplainTest : public testing::Test {
 protected:
  ExplainTest() {
    w_.apply(
        "{id: c, owner: ada, workflow: r, peers: [{name: db, ports: [{port: 80}]}, {id: i}],"
        " egress: [{cidr: 0.0.0.0/0, ports: [{port: 443}]}]},"
        "{id: s, owner: ada, workflow: r, name: db, hold: 60s, serves: [{port: 80},"
        " {port: 90, end_port: 99}], publish: [{port: 80, node_port: 25000}]},"
        "{id: i, owner: ada, workflow: r, name: api, admit: OWNER, serves: [{port: 22}]},"
        "{id: e, owner: eve, workflow: q}");
    for (const auto* id : {"c", "s", "i", "e"}) w_.attach(id);
  }
  [[nodiscard]] Explanation ask(std::string_view source, std::string_view destination,
                                std::uint16_t port, Proto proto = Proto::kTcp) const {
    const auto result = explain(w_.world, source, destination, proto, port);
    if (!result) return {kRefused, "error: " + result.error().what, {}, {}};
    return *result;
  }
  static std::string first(const Explanation& answer) {
    return answer.lines.empty() ? "no lines" : answer.lines.front();
  }
  static std::string last(const Explanation& answer) {
    return answer.lines.empty() ? "no lines" : answer.lines.back();
  }
  PolicyWorld w_;
};

TEST_F(ExplainTest, ServiceIsHeldThenAllowed) {
  EXPECT_EQ(ask("c", "db", 80).verdict, kHeld);
  EXPECT_EQ(ask("c", "db", 80).reason,
            "no endpoint of db of workflow r is ready: held for another 60 s");
  w_.world.now += 59500ms;
  EXPECT_EQ(ask("c", "db", 80).reason,
            "no endpoint of db of workflow r is ready: held for another 1 s");
  w_.world.now += 500ms;
  EXPECT_EQ(ask("c", "db", 80).verdict, kRefused);
  w_.listens("s", 80);
  for (const auto* name : {"db", "db.r.wf.mesh.internal", "10.214.0.2", "s", "10.213.0.2",
                           "fd00::2", "s.id.mesh.internal."}) {
    const auto answer = ask("c", name, 80);
    EXPECT_EQ(answer.verdict, kAllowed) << name << ": " << answer.reason;
    EXPECT_EQ(answer.reason, "c declares the peer db (peers[0])");
    EXPECT_EQ(answer.lines.size(), 3U);
  }
  w_.drain("s");
  EXPECT_EQ(ask("c", "s", 80).reason, "s is draining: open connections only");
}

// One replica is granted and not there, the other is there and not granted: a packet meets
// the second.
TEST_F(ExplainTest, NobodyWaitsWhereAnotherReplicaAnswers) {
  w_.apply(
      "{id: c, owner: ada, workflow: r, peers: [{name: db, ports: [{port: 80}]},"
      " {id: later, ports: [{port: 95}]}]},"
      "{id: later, owner: ada, workflow: r, name: db, hold: 60s,"
      " serves: [{port: 90, end_port: 99}]}");
  const auto answer = ask("c", "db", 95);
  EXPECT_EQ(answer.verdict, kRefused);
  EXPECT_EQ(answer.reason, "c declares the peer db (peers[0]) without tcp/95");
  EXPECT_EQ(answer.missing, "in c: peers[0].ports: [{port: 95}]");
}

// Ports become ready one by one: what the kernel leads on is what is called allowed.
TEST_F(ExplainTest, RangesAreReadyAtAttach) {
  w_.apply("{id: c, owner: ada, workflow: r, peers: [{name: db}]}");
  EXPECT_EQ(ask("c", "db", 95).verdict, kAllowed);
  EXPECT_EQ(ask("c", "db", 80).verdict, kHeld) << "the single port is not";
}

TEST_F(ExplainTest, WhoDoesNotNameAServiceDoesNotWaitForIt) {
  EXPECT_EQ(w_.elements("hold4").size(), 1U) << "db, not api";
  const auto answer = ask("c", "api", 22);
  EXPECT_EQ(answer.verdict, kRefused) << answer.reason;
  EXPECT_EQ(ask("c", "i", 22).verdict, kAllowed) << "the instance itself is open";
}

TEST_F(ExplainTest, RefusalSaysWhatIsMissing) {
  EXPECT_EQ(ask("e", "s", 80).missing, "in e: peers: [{id: s}]") << "db would be q's";
  EXPECT_EQ(ask("c", "s", 95).missing, "in c: peers[0].ports: [{port: 95}]");
  EXPECT_EQ(ask("c", "s", 80, Proto::kUdp).missing,
            "in c: peers[0].ports: [{port: 80, protocol: UDP}]");
  EXPECT_EQ(ask("c", "i", 23).missing, "in i: serves: [{port: 23}]");
  w_.apply("{id: f, owner: eve, workflow: q, peers: [{id: s}]}");
  EXPECT_EQ(ask("f", "s", 80).missing, "in s: admit_owners: [eve]");
  EXPECT_EQ(ask("f", "s", 80).reason, "s admits its own workflow and owner only");
  w_.detach("s");
  EXPECT_EQ(ask("c", "s", 80).reason, "s is not attached");
}

TEST_F(ExplainTest, OutsideGoesByEgress) {
  EXPECT_EQ(ask("c", "198.51.100.9", 443).verdict, kAllowed);
  EXPECT_EQ(ask("c", "198.51.100.9", 80).missing,
            "in c: egress: [{cidr: \"198.51.100.9\", ports: [{port: 80}]}]");
  EXPECT_EQ(ask("c", "2001:db8:9::", 80, Proto::kUdp).missing,
            "in c: egress: [{cidr: \"2001:db8:9::\", ports: [{port: 80, protocol: UDP}]}]");
  EXPECT_EQ(ask("e", "198.51.100.9", 443).verdict, kRefused);
  EXPECT_EQ(ask("c", "10.213.9.9", 443).reason, "10.213.9.9 is nobody's address");
  EXPECT_EQ(ask("c", "192.0.2.1", 443).reason,
            "192.0.2.1 is the node's own: egress never includes it");
  EXPECT_EQ(ask("c", "169.254.169.254", 443).reason,
            "169.254.169.254 is in 169.254.0.0/16: egress never includes it");
  EXPECT_EQ(ask("e", "169.254.1.1", 53, Proto::kUdp).verdict, kAllowed);
}

TEST_F(ExplainTest, PublishedPortsByTheirSources) {
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.1", 25000).verdict, kAllowed);
  EXPECT_EQ(ask("203.0.113.1", "192.0.2.1", 25000).missing,
            "in s: publish[0].allow_from: [\"198.51.100.0/24\", \"203.0.113.1\"]")
      << "a list of its own stands instead of the configured one";
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.1", 25001).reason,
            "no container publishes node port tcp/25001");
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.77", 25000).reason,
            "192.0.2.77 is no address where published ports answer");
  const auto direct = ask("198.51.100.7", "s", 80);
  EXPECT_EQ(direct.verdict, kRefused);
  EXPECT_EQ(first(direct), "s publishes tcp/80 as node port 25000");
  EXPECT_EQ(ask("203.0.113.1", "10.213.0.2", 80).reason,
            "203.0.113.1 is not among the sources it admits")
      << "the log of refused packets has the address behind the translation";
  EXPECT_EQ(ask("203.0.113.1", "10.213.0.2", 90).reason,
            "only published ports are reached from outside, at the node's address");
  w_.drain("s");
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.1", 25000).reason, "s is draining: open connections only");
  w_.detach("s");
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.1", 25000).reason, "s is not attached");
}

// Bare names mean something only where they are written.
TEST_F(ExplainTest, AdviceIsANameOnlyWhereItResolves) {
  w_.apply(
      "{id: x, owner: ada, workflow: r},{id: y, owner: ada, scope: CLUSTER},"
      "{id: m, owner: ada, scope: CLUSTER, name: model, serves: [{port: 80}]}");
  EXPECT_EQ(ask("x", "s", 80).missing, "in x: peers: [{name: db}]");
  EXPECT_EQ(ask("y", "s", 80).missing, "in y: peers: [{id: s}]");
  EXPECT_EQ(ask("x", "m", 80).missing, "in x: peers: [{name: model, scope: CLUSTER}]");
  EXPECT_EQ(ask("y", "m", 80).missing, "in y: peers: [{name: model, scope: CLUSTER}]");
  EXPECT_EQ(ask("x", "y", 80).missing, "in x: peers: [{id: y}]") << "it has no name";
}

TEST_F(ExplainTest, ReplicasMustAgreeInWhomTheyAdmit) {
  w_.apply(
      "{id: s2, owner: ada, workflow: r, name: db, hold: 60s, serves: [{port: 80}]},"
      "{id: f, owner: eve, workflow: q, peers: [{id: s2}]}");
  EXPECT_EQ(ask("f", "s2", 80).missing,
            "in every replica of db of workflow r: admit_owners: [eve]");
}

TEST_F(ExplainTest, HttpIsTheProxiesBusiness) {
  w_.apply(
      "{id: h, owner: ada, scope: CLUSTER, publish: [{port: 1, node_port: 25009},"
      " {port: 8888, node_port: 25010, http: true}]}");
  w_.attach("h");
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.1", 25010).missing,
            "in the node's configuration: publish.proxies: [\"198.51.100.7\"]");
  EXPECT_EQ(ask("203.0.113.7", "192.0.2.1", 25010).verdict, kAllowed);
}

TEST_F(ExplainTest, Port53LeadsToTheResolverWhateverTheAddress) {
  for (const auto* server : {"8.8.8.8", "2001:db8:9::53", "192.0.2.1", "169.254.169.254",
                             "100.100.100.200", "fe80::1"}) {
    for (const auto proto : {Proto::kTcp, Proto::kUdp}) {
      const auto answer = ask("e", server, 53, proto);
      EXPECT_EQ(answer.verdict, kAllowed) << server << ": " << answer.reason;
      const bool v6 = std::string_view(server).find(':') != std::string_view::npos;
      EXPECT_EQ(answer.reason,
                fmt::format("port 53 of any address leads to the node's resolver, {}",
                            v6 ? "fd02::1" : "169.254.1.1"));
    }
    EXPECT_EQ(ask("e", server, 54).verdict, kRefused) << server;
  }
  EXPECT_EQ(ask("e", "fd02::1", 53).reason, "the node's resolver answers every container");
  EXPECT_EQ(ask("e", "169.254.1.2", 53).reason,
            "169.254.1.2 answers what was addressed to others only; ask 169.254.1.1");
  EXPECT_EQ(ask("e", "10.213.9.9", 53).verdict, kRefused) << "mesh addresses are left alone";
  EXPECT_EQ(ask("e", "10.214.0.2", 53).verdict, kRefused);
  EXPECT_EQ(ask("e", "224.0.0.251", 53).verdict, kRefused);
  EXPECT_EQ(ask("e", "255.255.255.255", 53).verdict, kRefused);
  EXPECT_EQ(ask("e", "ff02::fb", 53).verdict, kRefused);
  w_.workload("e").attachment->v6.reset();
  EXPECT_EQ(ask("e", "2001:db8:9::53", 53).reason, "e has no IPv6 address");
  w_.detach("e");
  EXPECT_EQ(ask("e", "8.8.8.8", 53).reason, "e is not attached");
}

TEST_F(ExplainTest, WhereEgressNeverLeads) {
  w_.apply("{id: c, owner: ada, workflow: r, egress: [{cidr: 0.0.0.0/0}, {cidr: \"::/0\"}]}");
  for (const auto* address :
       {"127.0.0.1", "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "::ffff:8.8.8.8", "fe80::a9fe:a9fe",
        "ff02::1", "224.0.0.1", "192.0.2.1", "2001:db8::1"}) {
    const auto answer = ask("c", address, 80);
    EXPECT_EQ(answer.verdict, kRefused) << address;
    EXPECT_TRUE(answer.reason.ends_with("egress never includes it")) << answer.reason;
    EXPECT_EQ(answer.missing, "") << "nothing declared would open it";
  }
  for (const auto* address : {"100.100.100.201", "168.63.129.17", "8.8.8.8", "fd00:ec2::253"}) {
    EXPECT_EQ(ask("c", address, 80).verdict, kAllowed) << address;
  }
  EXPECT_EQ(ask("c", "8.8.8.8", 4789, Proto::kUdp).reason,
            "udp/4789 is a port of tunnels: egress never includes it");
  EXPECT_EQ(ask("c", "8.8.8.8", 4789).verdict, kAllowed);
  w_.workload("c").attachment->default_route = false;
  w_.apply("{id: c, owner: ada, workflow: r}");
  EXPECT_EQ(ask("c", "8.8.8.8", 80).missing, "") << "its attachment rules egress out";
  EXPECT_EQ(ask("c", "8.8.8.8", 80).lines.size(), 1U);
}

// Translated first, judged afterwards: the node port of another container is that container.
TEST_F(ExplainTest, NodePortsFromInside) {
  EXPECT_EQ(ask("c", "192.0.2.1", 25000).verdict, kAllowed);
  EXPECT_EQ(first(ask("c", "192.0.2.1", 25000)), "s publishes tcp/80 as node port 25000");
  EXPECT_EQ(ask("e", "192.0.2.1", 25000).missing, "in e: peers: [{id: s}]");
  w_.detach("s");
  EXPECT_EQ(ask("c", "192.0.2.1", 25000).reason,
            "192.0.2.1 is the node's own: egress never includes it");
}

TEST_F(ExplainTest, TheNodesOwnProcesses) {
  for (const auto* from : {"192.0.2.1", "127.0.0.1", "169.254.1.1", "2001:db8::1"}) {
    const auto answer = ask(from, "s", 4711);
    EXPECT_EQ(answer.verdict, kAllowed) << from << ": " << answer.reason;
    EXPECT_EQ(answer.reason,
              "from the node itself uid 0 reaches containers, and nobody else, "
              "since node.allow_users is empty");
  }
  w_.world.settings.allow_uids = {1000, 1001};
  EXPECT_EQ(ask("192.0.2.1", "10.213.0.2", 80).reason,
            "from the node itself uid 0 reaches containers, and the uids of node.allow_users "
            "(1000, 1001)");
  EXPECT_EQ(first(ask("192.0.2.1", "192.0.2.1", 25000)), "s publishes tcp/80 as node port 25000");
  EXPECT_EQ(ask("192.0.2.1", "db", 80).reason, "no endpoint of db of workflow r is ready");
  w_.listens("s", 80, {false, true});
  EXPECT_EQ(first(ask("192.0.2.1", "db", 80)), "db of workflow r leads to s");
  EXPECT_EQ(ask("192.0.2.1", "10.214.0.2", 80).verdict, kRefused) << "not over IPv4";
  EXPECT_EQ(ask("192.0.2.1", "10.213.9.9", 80).reason, "10.213.9.9 is nobody's address");
  EXPECT_EQ(explain(w_.world, "192.0.2.1", "8.8.8.8", Proto::kTcp, 80).error().what,
            "explain: neither 192.0.2.1 nor 8.8.8.8 is a container's: what the node sends "
            "elsewhere is not judged here");
  w_.detach("s");
  EXPECT_EQ(ask("192.0.2.1", "s", 80).reason, "s is not attached");
  EXPECT_EQ(ask("10.213.9.9", "192.0.2.1", 25000).verdict, kRefused) << "forged";
}

TEST_F(ExplainTest, SourceByTheNameOfAService) {
  w_.listens("i", 22);
  w_.apply(
      "{id: i, owner: ada, workflow: r, name: api, admit: OWNER, serves: [{port: 22}],"
      " peers: [{name: db}]}");
  EXPECT_EQ(ask("api", "s", 80).verdict, kAllowed);
  EXPECT_EQ(ask("api.r.wf.mesh.internal", "s", 80).verdict, kAllowed);
  w_.apply("{id: i2, owner: eve, workflow: q, name: api, serves: [{port: 22}]}");
  const auto error = explain(w_.world, "api", "s", Proto::kTcp, 80);
  ASSERT_FALSE(error);
  EXPECT_EQ(error.error().code, ErrorCode::kInvalid);
  EXPECT_EQ(error.error().what,
            "explain: api is the name of several services: "
            "api.q.wf.mesh.internal, api.r.wf.mesh.internal");
  EXPECT_EQ(ask("api.r.wf.mesh.internal", "s", 80).verdict, kAllowed);
  w_.apply("{id: api, owner: ada, workflow: r}");
  EXPECT_EQ(ask("api", "s", 80).reason, "api declares no peer db") << "an id goes before";
  w_.apply("{id: s2, owner: ada, workflow: r, name: db, hold: 60s, serves: [{port: 80}]}");
  EXPECT_EQ(last(ask("db", "i", 22)), "asked for s, the first of 2 replicas of db of workflow r");
}

TEST_F(ExplainTest, OneselfIsNoPeerAndMayStandBehindOnesName) {
  w_.apply(
      "{id: s, owner: ada, workflow: r, name: db, hold: 60s, peers: [{name: db}],"
      " serves: [{port: 80}]}");
  EXPECT_EQ(ask("s", "s", 80).verdict, kRefused);
  EXPECT_TRUE(ask("s", "s", 80).reason.starts_with("s is the source itself"));
  EXPECT_EQ(ask("s", "10.213.0.2", 80).verdict, kRefused);
  EXPECT_EQ(ask("s", "db", 80).verdict, kHeld);
  w_.listens("s", 80);
  EXPECT_EQ(ask("s", "db", 80).verdict, kAllowed) << "slots are not per consumer";
  EXPECT_EQ(last(ask("s", "db", 80)), "it leads back to s itself");
  w_.apply("{id: s2, owner: ada, workflow: r, name: db, hold: 60s, serves: [{port: 80}]}");
  w_.attach("s2");
  w_.listens("s2", 80);
  EXPECT_EQ(last(ask("s", "db", 80)), "s2 admits s") << "the other replica goes before";
}

// By a VIP the family is known, and the two may differ.
TEST_F(ExplainTest, FamiliesOfAVip) {
  w_.apply("{id: c, owner: ada, workflow: r, peers: [{name: db, ports: [{port: 80}]}]}");
  const auto& service = w_.world.services.at({Scope::kWorkflow, "r", "db"});
  const auto v4 = service.vip4->to_string(), v6 = service.vip6->to_string();
  EXPECT_EQ(ask("c", v4, 80).verdict, kHeld);
  w_.listens("s", 80, {false, true});
  EXPECT_EQ(ask("c", v6, 80).verdict, kAllowed);
  EXPECT_EQ(ask("c", v4, 80).verdict, kRefused);
  EXPECT_EQ(ask("c", v4, 80).reason,
            "no endpoint of db of workflow r is ready over IPv4: it is "
            "there over the other family only");
  EXPECT_EQ(ask("c", "db", 80).verdict, kAllowed);
}

TEST_F(ExplainTest, UnknownIsNoVerdict) {
  EXPECT_EQ(explain(w_.world, "nobody", "s", Proto::kTcp, 80).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(ask("c", "nobody", 80).reason, "nobody declares nobody");
}

}  // namespace
}  // namespace meshd::policy
