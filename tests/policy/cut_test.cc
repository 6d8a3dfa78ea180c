// Open connections that an apply ends: named before it happens, and only those.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/changes.h"
#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

// Attached in this order: c is 10.213.0.1, s is 10.213.0.2, c6 and s6 likewise.
class CutTest : public testing::Test {
 protected:
  CutTest() {
    w_.apply(std::string(kProvider) + "," + kConsumer);
    w_.attach("c");
    w_.attach("s");
    w_.listens("s", 80);
    vip_ = *w_.world.services.begin()->second.vip4;
    node_ = w_.world.settings.publish_addresses[0];
  }

  static constexpr const char* kProvider =
      "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}, {port: 90}],"
      " publish: [{port: 80, node_port: 25000, allow_from: [198.51.100.0/24]}]}";
  static constexpr const char* kConsumer =
      "{id: c, owner: ada, workflow: r, peers: [{name: db}],"
      " egress: [{cidr: 203.0.113.0/24, ports: [{port: 443}]}]}";

  // "SUBJECT: DETAIL" of what the apply would cut.
  [[nodiscard]] std::vector<std::string> cut(const std::string& workloads) const {
    const auto outcome = w_.plan(workloads);
    if (!outcome) return {"refused: " + outcome.error().what};
    std::vector<std::string> lines;
    const auto changes = cut_connections(w_.world, *outcome, live_);
    EXPECT_TRUE(std::ranges::is_sorted(changes));
    for (const auto& change : changes) {
      EXPECT_EQ(change.kind, Change::Kind::kConnectionCut);
      lines.push_back(change.subject + ": " + change.detail);
    }
    EXPECT_TRUE(lines.empty() || may_cut(w_.world, *outcome)) << workloads;
    return lines;
  }
  [[nodiscard]] bool may(const std::string& workloads) const {
    return may_cut(w_.world, w_.plan(workloads).value());
  }

  void open(const IpAddress& source, const IpAddress& asked, std::uint16_t asked_port,
            const IpAddress& server, std::uint16_t port, Proto proto = Proto::kTcp) {
    live_.push_back({proto, source, asked, asked_port, server, port});
  }

  PolicyWorld w_;
  std::vector<LiveConnection> live_;
  IpAddress c_ = ip("10.213.0.1"), s_ = ip("10.213.0.2"), vip_, node_;
};

TEST_F(CutTest, FlowsByEitherSide) {
  open(c_, vip_, 80, s_, 80);
  open(c_, s_, 80, s_, 80);
  open(c_, s_, 90, s_, 90);
  open(ip("fd00::1"), ip("fd00::2"), 80, ip("fd00::2"), 80);
  EXPECT_THAT(cut(kConsumer), IsEmpty()) << "nothing changes";
  const std::vector<std::string> all = {"c -> s tcp/80: 3 open connections end",
                                        "c -> s tcp/90: 1 open connection ends"};
  EXPECT_EQ(cut("{id: c, owner: ada, workflow: r}"), all) << "the consumer gives it up";
  EXPECT_EQ(cut("{id: s, owner: ada, workflow: r, name: db}"), all) << "the provider ends it";
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r, peers: [{name: db, ports: [{port: 80}]}]}"),
              ElementsAre("c -> s tcp/90: 1 open connection ends"));
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r, peers: [{name: db, ports: [{port: 80,"
                  " end_port: 90}]}]}"),
              IsEmpty())
      << "written otherwise";
}

TEST_F(CutTest, WhoStopsBeingTheServiceLosesWhatCameByItsName) {
  w_.apply("{id: c, owner: ada, workflow: r, peers: [{name: db}, {id: s}]}");
  open(c_, vip_, 80, s_, 80);
  open(c_, s_, 90, s_, 90);
  EXPECT_THAT(cut("{id: s, owner: ada, workflow: r, name: other,"
                  " serves: [{port: 80}, {port: 90}]}"),
              ElementsAre("c -> s tcp/80: 1 open connection ends"))
      << "the flow by id stays allowed, the name's translation goes";
}

TEST_F(CutTest, ReadinessAndDrainingEndNothing) {
  w_.workload("s").tcp_ready.clear();
  open(c_, vip_, 80, s_, 80);
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r, peers: [{name: db}, {id: x}]}"), IsEmpty());
  w_.drain("s");
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r}"),
              ElementsAre("c -> s tcp/80: 1 open connection ends"));
}

TEST_F(CutTest, EgressByDestinationAndPort) {
  open(c_, ip("203.0.113.5"), 443, ip("203.0.113.5"), 443);
  open(c_, ip("203.0.113.6"), 443, ip("203.0.113.6"), 443);
  open(c_, ip("8.8.8.8"), 53, ip("169.254.1.2"), 53, Proto::kUdp);  // to the node's resolver
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r}"),
              ElementsAre("c -> outside tcp/443: 2 open connections end"));
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r, egress: [{cidr: 203.0.113.5}]}"),
              ElementsAre("c -> outside tcp/443: 1 open connection ends"));
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r, egress: [{cidr: 203.0.113.0/24,"
                  " ports: [{port: 443, protocol: UDP}]}]}"),
              ElementsAre("c -> outside tcp/443: 2 open connections end"));
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r, egress: [{cidr: 0.0.0.0/0}]}"), IsEmpty());
  w_.apply("{id: c, owner: ada, workflow: r, egress: [{cidr: 0.0.0.0/0}]}");
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r}"),
              ElementsAre("c -> outside tcp/443: 2 open connections end"))
      << "the resolver needs no egress";
}

TEST_F(CutTest, PublicationsBySourceAndNodePort) {
  open(ip("198.51.100.7"), node_, 25000, s_, 80);
  open(ip("198.51.100.200"), node_, 25000, s_, 80);
  open(node_, node_, 25000, s_, 80);  // the node's own process
  const auto published = [](std::string_view publish) {
    return fmt::format(
        "{{id: s, owner: ada, workflow: r, name: db, serves: [{{port: 80}}, {{port: 90}}]{}}}",
        publish);
  };
  EXPECT_THAT(cut(published("")), ElementsAre("node -> s tcp/80: 1 open connection ends",
                                              "outside -> s tcp/80: 2 open connections end"));
  EXPECT_THAT(cut(published(", publish: [{port: 80, node_port: 25000, allow_from:"
                            " [198.51.100.0/25]}]")),
              ElementsAre("outside -> s tcp/80: 1 open connection ends"));
  EXPECT_THAT(cut(published(", publish: [{port: 80, node_port: 25000, http: true}]")),
              ElementsAre("outside -> s tcp/80: 2 open connections end"));
  EXPECT_THAT(cut(published(", publish: [{port: 80, node_port: 25001, allow_from:"
                            " [198.51.100.0/24]}]")),
              ElementsAre("node -> s tcp/80: 1 open connection ends",
                          "outside -> s tcp/80: 2 open connections end"))
      << "the node port moves";
  EXPECT_THAT(cut(published(", publish: [{port: 80, node_port: 25000, allow_from:"
                            " [198.51.0.0/16]}]")),
              IsEmpty());
}

// A container may come to another by the node's address: then its peers decide.
TEST_F(CutTest, NodePortFromInside) {
  open(c_, node_, 25000, s_, 80);
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r}"),
              ElementsAre("c -> s tcp/80: 1 open connection ends"));
  EXPECT_THAT(cut("{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}]}"),
              ElementsAre("c -> s tcp/80: 1 open connection ends"))
      << "the publication goes, the flow stays";
}

TEST_F(CutTest, OthersAreNobodysBusiness) {
  open(ip("198.51.100.7"), ip("203.0.113.1"), 22, ip("203.0.113.1"), 22);
  open(ip("203.0.113.9"), node_, 25000, s_, 80);  // never was permitted
  open(c_, s_, 22, s_, 22);                       // nor this
  open(ip("198.51.100.7"), s_, 80, s_, 80);       // nor without translation
  open(c_, ip("10.214.9.9"), 80, s_, 80);         // a translation that is not ours
  EXPECT_THAT(cut("{id: c, owner: ada, workflow: r},{id: s, owner: ada, workflow: r}"), IsEmpty());
}

// Reading the connections costs: what only adds must not ask for it.
TEST_F(CutTest, AdditionsCutNothing) {
  EXPECT_FALSE(may(kConsumer));
  EXPECT_FALSE(may("{id: new, owner: ada, workflow: r, peers: [{name: db}]}"));
  EXPECT_FALSE(
      may("{id: c, owner: ada, workflow: r, peers: [{name: db}, {id: x}], hold: 1s,"
          " serves: [{port: 1}], publish: [{port: 1}],"
          " egress: [{cidr: 203.0.113.0/24, ports: [{port: 443}]}, {cidr: 10.0.0.0/8}]}"));
  for (const auto* less :
       {"{id: c, owner: ada, workflow: r}", "{id: c, owner: ada, workflow: r, peers: [{name: db}]}",
        "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}, {port: 90}],"
        " publish: [{port: 80, node_port: 25001, allow_from: [198.51.100.0/24]}]}",
        "{id: s, owner: ada, workflow: r, name: x, serves: [{port: 80}, {port: 90}],"
        " publish: [{port: 80, node_port: 25000, allow_from: [198.51.100.0/24]}]}"}) {
    EXPECT_TRUE(may(less)) << less;
  }
  w_.detach("c");
  EXPECT_FALSE(may("{id: c, owner: ada, workflow: r}")) << "it has no connections";
}

}  // namespace
}  // namespace meshd::policy
