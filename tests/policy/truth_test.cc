// The truth function: its rows one by one, then against the oracle over random pairs.
#include "policy/truth.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/support/oracle.h"

namespace meshd::policy {
namespace {

constexpr PortRange tcp(std::uint16_t first, std::uint16_t last = 0) {
  return {Proto::kTcp, first, last == 0 ? first : last};
}
constexpr PortRange udp(std::uint16_t first, std::uint16_t last = 0) {
  return {Proto::kUdp, first, last == 0 ? first : last};
}

Declaration provider() {
  Declaration d;
  d.id = "db-1";
  d.owner = "ada";
  d.workflow = "run";
  d.name = "db";
  d.serves = {{tcp(80), "web"}, {udp(53), ""}, {tcp(8000, 8100), ""}};
  return d;
}
Declaration consumer(std::vector<PortRange> ports = {}) {
  Declaration d;
  d.id = "c";
  d.owner = "ada";
  d.workflow = "run";
  d.peers = {{"", "db", Scope::kWorkflow, std::move(ports)}};
  return d;
}

TEST(TruthTest, EachConditionIsNeeded) {
  const auto c = consumer({tcp(80), tcp(443)});
  auto s = provider();
  const auto ruling = [&](Proto proto, std::uint16_t port) {
    return decide(c, s, proto, port).ruling;
  };
  EXPECT_EQ(ruling(Proto::kTcp, 80), Ruling::kAllowed);
  EXPECT_EQ(ruling(Proto::kUdp, 80), Ruling::kPortNotListed) << "the protocol counts";
  EXPECT_EQ(ruling(Proto::kUdp, 53), Ruling::kPortNotListed) << "served, but not asked for";
  EXPECT_EQ(ruling(Proto::kTcp, 443), Ruling::kNotServed) << "asked for, but not served";
  s.owner = "bob";
  EXPECT_EQ(ruling(Proto::kTcp, 80), Ruling::kNotAdmitted);
  s.name = "cache";
  EXPECT_EQ(ruling(Proto::kTcp, 80), Ruling::kNoPeer);
}

TEST(TruthTest, ReasonsNameTheDeclarations) {
  EXPECT_EQ(decide(consumer(), provider(), Proto::kTcp, 80).reason,
            "c declares the peer db (peers[0])");
  EXPECT_EQ(decide(consumer({tcp(1)}), provider(), Proto::kUdp, 53).reason,
            "c declares the peer db (peers[0]) without udp/53");
  EXPECT_EQ(decide(consumer(), provider(), Proto::kTcp, 81).reason, "db-1 does not serve tcp/81");
  EXPECT_EQ(decide(provider(), consumer(), Proto::kTcp, 80).reason, "db-1 declares no peer c");
  auto other = consumer();
  other.owner = "bob";
  EXPECT_EQ(decide(other, provider(), Proto::kTcp, 80).reason,
            "db-1 admits its own workflow and owner only");
}

TEST(TruthTest, OneOfSeveralEntriesIsEnough) {
  auto c = consumer({tcp(80)});
  c.peers.push_back({"db-1", "", {}, {tcp(8050)}});
  const auto s = provider();
  EXPECT_EQ(decide(c, s, Proto::kTcp, 80).peer, 0U);
  EXPECT_EQ(decide(c, s, Proto::kTcp, 8050).peer, 1U);
  EXPECT_EQ(granted_ranges(c, s), (std::vector{tcp(80), tcp(8050)}));
}

TEST(TruthTest, NamesMeanTheirScope) {
  const auto s = provider();
  auto c = consumer();
  c.workflow = "other";
  EXPECT_FALSE(resolves_to(c, c.peers[0], s)) << "another run's db";
  c = consumer();
  c.peers[0].scope = Scope::kCluster;
  EXPECT_FALSE(resolves_to(c, c.peers[0], s)) << "the cluster's db";
  auto shared = provider();
  shared.scope = Scope::kCluster;
  EXPECT_TRUE(resolves_to(c, c.peers[0], shared));
  EXPECT_FALSE(resolves_to(consumer(), consumer().peers[0], shared));
  Declaration nameless = provider();
  nameless.name.clear();
  EXPECT_FALSE(resolves_to(c, {"c9", "", {}, {}}, nameless)) << "no name is not the name of all";
}

TEST(TruthTest, WhoIsAdmitted) {
  struct Row {
    Admit admit;
    bool same_owner, same_workflow, expected;
  };
  for (const auto& row :
       {Row{Admit::kWorkflow, true, true, true}, Row{Admit::kWorkflow, true, false, false},
        Row{Admit::kWorkflow, false, true, false}, Row{Admit::kOwner, true, false, true},
        Row{Admit::kOwner, false, true, false}, Row{Admit::kCluster, false, false, true}}) {
    auto s = provider();
    s.admit = row.admit;
    auto c = consumer();
    if (!row.same_owner) c.owner = "bob";
    if (!row.same_workflow) c.workflow = "other";
    EXPECT_EQ(admits(s, c), row.expected);
    s.admit_owners = {"eve", c.owner};
    EXPECT_TRUE(admits(s, c)) << "named owners come on top";
  }
  auto s = provider(), c = consumer();
  s.workflow.clear();
  c.workflow.clear();
  EXPECT_FALSE(admits(s, c)) << "no workflow is not a workflow in common";
}

TEST(TruthTest, RangesAreCutToWhatBothSay) {
  const auto s = provider();
  EXPECT_EQ(granted_ranges(consumer(), s), (std::vector{tcp(80), tcp(8000, 8100), udp(53)}));
  EXPECT_EQ(granted_ranges(consumer({tcp(8090, 9000)}), s), std::vector{tcp(8090, 8100)});
  EXPECT_EQ(granted_ranges(consumer({tcp(1, 65535)}), s), (std::vector{tcp(80), tcp(8000, 8100)}));
  EXPECT_TRUE(granted_ranges(consumer({tcp(8101)}), s).empty());
}

TEST(TruthTest, RangesAreJoined) {
  EXPECT_EQ(normalise(std::vector{tcp(5, 9), tcp(1, 4), tcp(3), udp(10), tcp(11)}),
            (std::vector{tcp(1, 9), tcp(11), udp(10)}));
  EXPECT_EQ(normalise(std::vector{tcp(65535), tcp(1, 65535)}), std::vector{tcp(1, 65535)});
  EXPECT_EQ(normalise(std::vector{tcp(65535), udp(1)}), (std::vector{tcp(65535), udp(1)}));
  EXPECT_TRUE(normalise(std::vector<PortRange>()).empty());
}

class RandomPairs {
 public:
  explicit RandomPairs(unsigned seed) : random_(seed) {}
  Declaration next(std::string id) {
    Declaration d;
    d.id = std::move(id);
    d.owner = pick({"ada", "bob"});
    d.workflow = pick({"", "run", "run", "other"});
    d.name = pick({"", "db", "db", "cache"});
    d.scope = d.workflow.empty() || draw(3) == 0 ? Scope::kCluster : Scope::kWorkflow;
    d.admit = static_cast<Admit>(draw(3));
    if (draw(4) == 0) d.admit_owners = {pick({"ada", "bob"})};
    for (auto i = draw(4); i > 0; --i) d.serves.push_back({range(), ""});
    for (auto i = draw(4); i > 0; --i) {
      Peer peer;
      if (draw(3) == 0) peer.id = pick({"a", "b"});
      if (peer.id.empty()) peer.name = pick({"db", "cache"});
      peer.scope = draw(2) == 0 ? Scope::kCluster : Scope::kWorkflow;
      for (auto n = draw(3); n > 0; --n) peer.ports.push_back(range());
      d.peers.push_back(std::move(peer));
    }
    return d;
  }

 private:
  unsigned draw(unsigned below) { return static_cast<unsigned>(random_() % below); }
  const char* pick(std::initializer_list<const char*> words) {
    return words.begin()[draw(static_cast<unsigned>(words.size()))];
  }
  PortRange range() {
    const auto first = static_cast<std::uint16_t>(1 + draw(12));
    const auto last = static_cast<std::uint16_t>(first + (draw(2) == 0 ? 0 : draw(5)));
    return {draw(3) == 0 ? Proto::kUdp : Proto::kTcp, first, last};
  }
  std::mt19937 random_;
};

TEST(TruthTest, AgreesWithTheOracle) {
  RandomPairs pairs(20260);
  int allowed = 0;
  for (int i = 0; i < 5000 && !HasFailure(); ++i) {
    const auto c = pairs.next("a"), s = pairs.next(i % 8 == 0 ? "a" : "b");
    const auto granted = granted_ranges(c, s);
    EXPECT_EQ(normalise(granted), granted) << "sorted, disjoint, joined";
    EXPECT_EQ(!granted.empty(), oracle::sees(c, s));
    for (const auto proto : {Proto::kTcp, Proto::kUdp}) {
      for (std::uint16_t port = 1; port <= 18; ++port) {
        const bool may = oracle::may_reach(c, s, proto, port);
        allowed += may ? 1 : 0;
        EXPECT_EQ(decide(c, s, proto, port).ruling == Ruling::kAllowed, may) << i << " " << port;
        EXPECT_EQ(std::ranges::any_of(granted,
                                      [&](const PortRange& r) { return r.contains(proto, port); }),
                  may)
            << i << " " << port;
      }
    }
  }
  EXPECT_GT(allowed, 1000) << "pairs that have nothing to do with each other show nothing";
}

}  // namespace
}  // namespace meshd::policy
