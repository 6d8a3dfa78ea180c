// Workloads on other nodes: what this node has of a flow to or from them, what its containers
// see of them, and what follows when a confirmation, an address or a node changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/changes.h"
#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::UnorderedElementsAre;
using Texts = std::vector<std::string>;

constexpr PortRange tcp(std::uint16_t first, std::uint16_t last = 0) {
  return {Proto::kTcp, first, last == 0 ? first : last};
}

constexpr std::string_view kPair =
    "{id: c, owner: ada, workflow: r, peers: [{name: db}]},"
    "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80, name: web},"
    " {port: 32, end_port: 48}]}";

enum class At { kHere, kElsewhere, kNowhere };

struct Case {
  std::string_view name;
  At consumer, provider;
  std::vector<PortRange> confirmed;
  // Without the two addresses.
  Texts allow, hold;
  bool pair;
};

void put(PolicyWorld& w, const std::string& id, At at) {
  if (at == At::kHere) w.attach(id);
  if (at == At::kElsewhere) w.place(id, "n2", id == "c" ? 1 : 2);
}

// Of the sets whose names begin so, IPv4 alone: "b16 tcp . 32", when the two are these.
Texts between(const PolicyWorld& w, const std::string& set, const std::string& from,
              const std::string& to) {
  Texts lines;
  for (const auto& line : w.elements(set)) {
    const auto pair = fmt::format(" {} . {} . ", from, to);
    const auto at = line.find(pair);
    if (at == std::string::npos) continue;
    lines.push_back((line.starts_with(set + "_b16") ? "b16 " : "") + line.substr(at + pair.size()));
  }
  return lines;
}

class RemotePairTest : public testing::TestWithParam<Case> {};

TEST_P(RemotePairTest, EachOfTheTwoNodesHasItsPart) {
  const auto& test = GetParam();
  PolicyWorld w;
  w.apply(std::string(kPair));
  put(w, "c", test.consumer);
  put(w, "s", test.provider);
  if (!test.confirmed.empty()) w.confirm("c", "s", test.confirmed);
  const auto text = [&](const char* id, Family family) {
    const auto& address = w.workload(id).address(family);
    return address ? address->to_string() : std::string("nowhere");
  };
  for (const auto family : kFamilies) {
    const std::string v = family == Family::kV4 ? "4" : "6";
    const auto from = text("c", family), to = text("s", family);
    EXPECT_EQ(between(w, "allow" + v, from, to), test.allow) << test.name;
    EXPECT_EQ(between(w, "hold" + v, from, to), test.hold) << test.name;
    EXPECT_EQ(!w.elements("pair" + v).empty(), test.pair) << test.name;
    EXPECT_THAT(w.elements("allow" + v), SizeIs(test.allow.size()));
  }
  // Nothing else is here of who is elsewhere.
  const auto here = (test.consumer == At::kHere ? 1U : 0U) + (test.provider == At::kHere ? 1U : 0U);
  for (const auto* set : {"bind4", "local6", "self4"}) EXPECT_THAT(w.elements(set), SizeIs(here));
}

const Texts kAll = {"tcp . 48", "tcp . 80", "b16 tcp . 32"};

INSTANTIATE_TEST_SUITE_P(
    All, RemotePairTest,
    testing::Values(
        Case{"both here", At::kHere, At::kHere, {}, kAll, {}, true},
        Case{"to elsewhere, not confirmed", At::kHere, At::kElsewhere, {}, {}, kAll, false},
        Case{"to elsewhere", At::kHere, At::kElsewhere, {tcp(32, 48), tcp(80)}, kAll, {}, true},
        Case{"to elsewhere, more confirmed than granted",
             At::kHere,
             At::kElsewhere,
             {tcp(1, 65535)},
             kAll,
             {},
             true},
        Case{"to elsewhere, one of them",
             At::kHere,
             At::kElsewhere,
             {tcp(80)},
             {"tcp . 80"},
             {"tcp . 48", "b16 tcp . 32"},
             true},
        Case{"to elsewhere, in the middle of a block",
             At::kHere,
             At::kElsewhere,
             {tcp(34, 48), tcp(80)},
             {"tcp . 34", "tcp . 35", "tcp . 36", "tcp . 37", "tcp . 38", "tcp . 39", "tcp . 40",
              "tcp . 41", "tcp . 42", "tcp . 43", "tcp . 44", "tcp . 45", "tcp . 46", "tcp . 47",
              "tcp . 48", "tcp . 80"},
             {"tcp . 32", "tcp . 33"},
             true},
        Case{"to elsewhere, another protocol",
             At::kHere,
             At::kElsewhere,
             {{Proto::kUdp, 80, 80}},
             {},
             kAll,
             false},
        // Who is confirmed for a consumer elsewhere is that node's business.
        Case{"from elsewhere", At::kElsewhere, At::kHere, {}, kAll, {}, true},
        Case{"from elsewhere, confirmed", At::kElsewhere, At::kHere, {tcp(80)}, kAll, {}, true},
        Case{"both elsewhere", At::kElsewhere, At::kElsewhere, {tcp(80)}, {}, {}, false},
        Case{"to nowhere", At::kHere, At::kNowhere, {tcp(80)}, {}, {}, false},
        Case{"from nowhere", At::kNowhere, At::kElsewhere, {tcp(80)}, {}, {}, false}),
    [](const auto& test) { return fmt::format("Case{}", test.index); });

class RemoteTest : public testing::Test {
 protected:
  RemoteTest() {
    w_.apply(std::string(kPair));
    w_.attach("c");
    w_.place("s", "n2", 2);
    follow(compiler_.rebuild(w_.world));
  }
  void follow(const PlanDelta& delta) {
    for (const auto& view : delta.views) view_ = view;
  }
  void update(const Touched& touched) {
    follow(compiler_.update(w_.world, touched));
    Compiler fresh;
    [[maybe_unused]] const auto all = fresh.rebuild(w_.world);
    EXPECT_EQ(PolicyWorld::texts(compiler_.elements()), PolicyWorld::texts(fresh.elements()));
    for (std::size_t i = 0; i < kSetCount; ++i) {
      const auto set = static_cast<SetId>(i);
      EXPECT_EQ(compiler_.worst_case_count(set), fresh.worst_case_count(set)) << set_name(set);
      EXPECT_GE(compiler_.worst_case_count(set), compiler_.element_count(set)) << set_name(set);
    }
  }
  [[nodiscard]] Texts texts(std::string_view sets) const {
    return PolicyWorld::texts(compiler_.elements(), sets);
  }
  [[nodiscard]] Texts exactly(const std::string& set) const {
    auto lines = texts(set);
    std::erase_if(lines, [&](const std::string& line) { return !line.starts_with(set + " "); });
    return lines;
  }
  [[nodiscard]] const VisibleName* name(std::string_view fqdn) const {
    const auto found = std::ranges::find(view_->names, fqdn, &VisibleName::fqdn);
    return found == view_->names.end() ? nullptr : &*found;
  }

  PolicyWorld w_;
  Compiler compiler_;
  std::shared_ptr<const ViewPlan> view_;
};

TEST_F(RemoteTest, ConfirmationIsForTheAddressesOfNow) {
  const auto all = [this] { update(w_.confirm("c", "s", {tcp(1, 65535)})); };
  all();
  EXPECT_THAT(texts("allow"), SizeIs(6));
  update(w_.place("s", "n2", 3));  // attached anew
  EXPECT_THAT(texts("allow"), IsEmpty());
  EXPECT_THAT(texts("hold4"), Contains("hold4 10.213.0.1 . 10.213.200.3 . tcp . 80"));
  all();
  w_.detach("c");
  update(w_.attach("c"));
  EXPECT_THAT(texts("allow"), IsEmpty());
  EXPECT_THAT(texts("hold4"), Contains("hold4 10.213.0.2 . 10.213.200.3 . tcp . 80"));
}

TEST_F(RemoteTest, FamiliesAreConfirmedEachByItself) {
  w_.confirm("c", "s", {tcp(80)});
  w_.world.confirmed["c"]["s"].to6 = IpAddress::parse("fd00::bad").value();
  update(w_.touch("c"));
  EXPECT_THAT(texts("allow"), ElementsAre("allow4 10.213.0.1 . 10.213.200.2 . tcp . 80"));
  EXPECT_THAT(texts("hold6"), Contains("hold6 fd00::1 . fd00::200:2 . tcp . 80"));
  // A family that one of the two does not have at all.
  w_.workload("s").remote->v6.reset();
  update(w_.touch("s"));
  EXPECT_THAT(texts("hold6"), Not(Contains(HasSubstr("fd00::200"))));
}

TEST_F(RemoteTest, GrowingKeepsWhatIsConfirmedOpen) {
  update(w_.confirm("c", "s", {tcp(32, 48), tcp(80)}));
  update(
      w_.apply("{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80, name: web},"
               " {port: 32, end_port: 48}, {port: 90}]}"));
  EXPECT_THAT(exactly("allow4"), SizeIs(2));
  EXPECT_EQ(between(w_, "hold4", "10.213.0.1", "10.213.200.2"), Texts{"tcp . 90"});
  update(w_.apply("{id: c, owner: ada, workflow: r}"));
  EXPECT_THAT(texts("allow"), IsEmpty());
  EXPECT_THAT(texts("hold"), IsEmpty());
}

// Nothing is applied when a confirmation comes or goes, so there must be room for either.
TEST_F(RemoteTest, RoomIsKeptForBothStates) {
  const auto rooms = [this] {
    std::vector<std::size_t> counts;
    for (const auto set : {SetId::kAllow4, SetId::kAllow4Block, SetId::kHold4, SetId::kHold4Block,
                           SetId::kAllow6, SetId::kAllow6Block, SetId::kHold6, SetId::kHold6Block})
      counts.push_back(compiler_.worst_case_count(set));
    return counts;
  };
  // To the provider, and in the hold sets to the VIP.
  const std::vector<std::size_t> wanted = {2, 1, 4, 2, 2, 1, 4, 2};
  EXPECT_EQ(rooms(), wanted);
  update(w_.confirm("c", "s", {tcp(1, 65535)}));
  EXPECT_EQ(rooms(), wanted);
  EXPECT_GE(compiler_.element_count(SetId::kAllow4), 2U);
}

TEST_F(RemoteTest, ReadyReplicasStandBehindTheVip) {
  w_.apply("{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}]}");
  update(w_.touch("s"));
  EXPECT_THAT(exactly("vip4"), IsEmpty());
  const std::string held = "hold4 10.213.0.1 . 10.214.0.1 . tcp . 80";
  EXPECT_THAT(texts("hold4"), Contains(held));
  update(w_.listens("s", 80));
  EXPECT_THAT(exactly("vip4"), SizeIs(kSlots));
  EXPECT_THAT(exactly("vip4"), Each(HasSubstr("10.213.200.2")));
  EXPECT_THAT(texts("hold4"), Not(Contains(held))) << "by now its endpoint is waited for";
  EXPECT_THAT(texts("hold4"), Contains("hold4 10.213.0.1 . 10.213.200.2 . tcp . 80"));
  update(w_.apply("{id: t, owner: ada, workflow: r, name: db, serves: [{port: 80}]}"));
  update(w_.attach("t"));
  update(w_.listens("t", 80));
  const auto slots = exactly("vip4");
  EXPECT_EQ(std::ranges::count_if(slots, [](const auto& s) { return s.contains("10.213.0.2"); }),
            kSlots / 2);
  update(w_.drain("s"));
  EXPECT_THAT(exactly("vip4"), Each(HasSubstr("10.213.0.2")));
}

// Which service waits for an endpoint is the business of consumers that are here.
TEST_F(RemoteTest, NobodyElsewhereIsHeldHere) {
  w_.detach("c");
  update(w_.place("c", "n3", 1));
  EXPECT_THAT(texts("hold"), IsEmpty());
  EXPECT_FALSE(compiler_.next_deadline());
  EXPECT_THAT(compiler_.views(), IsEmpty());
}

TEST_F(RemoteTest, OfAConsumerElsewhereOnlyItsFlowsAreHere) {
  update(
      w_.apply("{id: x, owner: ada, workflow: r, name: web, peers: [{name: api}],"
               " publish: [{port: 80}], egress: [{cidr: 0.0.0.0/0}], serves: [{port: 1}]},"
               "{id: y, owner: ada, workflow: r, name: api, serves: [{port: 7}]}"));
  update(w_.attach("y"));
  const auto before = compiler_.element_count(SetId::kMesh4);
  update(w_.place("x", "n3", 9));
  EXPECT_THAT(texts("allow4"), ElementsAre("allow4 10.213.200.9 . 10.213.0.2 . tcp . 7"));
  for (const auto* sets : {"pub", "eg4", "egp", "src"}) EXPECT_THAT(texts(sets), IsEmpty()) << sets;
  EXPECT_THAT(texts("bind4"), SizeIs(2));
  EXPECT_EQ(compiler_.element_count(SetId::kMesh4), before);
  update(w_.apply("{id: x, owner: ada, workflow: r, name: web}"));
  EXPECT_THAT(texts("allow4"), IsEmpty());
}

TEST_F(RemoteTest, NamesLeadToOtherNodes) {
  const auto* instance = name("s.id.mesh.internal");
  ASSERT_NE(instance, nullptr);
  EXPECT_EQ(instance->v4->to_string(), "10.213.200.2");
  EXPECT_EQ(instance->v6->to_string(), "fd00::200:2");
  EXPECT_FALSE(instance->stale);
  EXPECT_EQ(instance->srv.size(), 1U);
  update(w_.listens("s", 80, {true, false}));
  const auto* service = name("db.r.wf.mesh.internal");
  ASSERT_NE(service, nullptr);
  EXPECT_TRUE(service->v4);
  // The range is ready at attach, over both families.
  EXPECT_TRUE(service->v6);
}

// The consumer's node refuses what the provider's could only be silent to.
TEST_F(RemoteTest, WhoDrainsElsewhereTakesNothingNewFromHere) {
  w_.drain("s");
  update(w_.touch("s"));
  EXPECT_THAT(texts("drain4"), ElementsAre("drain4 10.213.200.2"));
  EXPECT_THAT(texts("drain6"), ElementsAre("drain6 fd00::200:2"));
}

// A node that is not heard of keeps its names, and they say so.
TEST_F(RemoteTest, NamesOfAStaleNodeAreMarked) {
  w_.workload("s").remote->stale = true;
  update(w_.touch("s"));
  EXPECT_TRUE(name("s.id.mesh.internal")->stale);
  EXPECT_TRUE(name("s.id.mesh.internal")->v4);
  EXPECT_TRUE(name("db.r.wf.mesh.internal")->stale);
  update(w_.apply("{id: t, owner: ada, workflow: r, name: db, serves: [{port: 80}]}"));
  update(w_.place("t", "n3", 4));
  EXPECT_FALSE(name("db.r.wf.mesh.internal")->stale) << "another replica is heard of";
  EXPECT_TRUE(name("s.id.mesh.internal")->stale);
  EXPECT_FALSE(name("c.id.mesh.internal")->stale);
}

TEST_F(RemoteTest, OtherNodesAreInTheTable) {
  auto& nodes = w_.world.nodes;
  const auto prefix = [](const char* text) { return Prefix::parse(text).value(); };
  const auto ip = [](const char* text) { return IpAddress::parse(text).value(); };
  w_.world.settings.node_name = "n1";
  w_.world.settings.trunks = {"mesh0", "uplink"};
  w_.world.settings.in_cluster = true;
  w_.world.settings.tunnel = "mesh0";
  w_.world.settings.block4 = prefix("10.213.0.0/24");
  follow(compiler_.rebuild(w_.world));
  EXPECT_THAT(texts("trunk"), SizeIs(2));
  EXPECT_THAT(texts("peers"), IsEmpty());
  nodes["n2"] = {"n2", {prefix("10.213.200.0/24"), prefix("fd00::200:0/112")}, {ip("192.0.2.2")}};
  nodes["n3"] = {"n3", {prefix("10.213.201.0/24")}, {ip("192.0.2.3"), ip("2001:db8::3")}};
  nodes["n1"] = {"n1", {prefix("10.213.0.0/24")}, {ip("192.0.2.1")}};  // this one itself
  Touched touched;
  touched.nodes = true;
  update(touched);
  EXPECT_THAT(texts("remote4"), SizeIs(2));
  EXPECT_THAT(texts("remote6"), SizeIs(1));
  EXPECT_THAT(texts("never4"), Contains(HasSubstr("192.0.2.3"))) << "egress never leads there";
  // Overlapping intervals would make the kernel refuse everything. The first by name has it.
  nodes["n4"] = {"n4", {prefix("10.213.200.0/22")}, {}};
  // Neither this node's own nor what is not the mesh's can be another's.
  nodes["n5"] = {"n5", {prefix("10.213.0.128/25"), prefix("192.0.2.0/24")}, {}};
  update(touched);
  EXPECT_THAT(texts("remote4"), SizeIs(2));
  nodes.clear();
  update(touched);
  EXPECT_THAT(texts("remote"), IsEmpty());
  EXPECT_THAT(texts("peers"), IsEmpty());
}

// By the tunnel each node speaks for its own blocks, by each of its addresses, and for what is
// not the mesh's at all.
TEST_F(RemoteTest, NodesSpeakForTheirOwnBlocks) {
  auto& world = w_.world;
  const auto prefix = [](const char* text) { return Prefix::parse(text).value(); };
  const auto ip = [](const char* text) { return IpAddress::parse(text).value(); };
  world.settings.in_cluster = true;
  world.settings.tunnel = "mesh0";
  world.nodes["n2"] = {"n2", {prefix("10.213.200.0/24")}, {ip("192.0.2.2"), ip("2001:db8::2")}};
  world.nodes["n3"] = {"n3", {prefix("10.213.201.0/24")}, {ip("192.0.2.3")}};
  follow(compiler_.rebuild(world));
  const auto number = [&](const char* block) -> std::string {
    for (const auto& text : texts("origin4")) {
      if (text.contains(block)) return text.substr(text.rfind(' ') + 1);
    }
    return "none";
  };
  const auto n2 = number("10.213.200.0-10.213.200.255"), n3 = number("10.213.201.0-10.213.201.255");
  EXPECT_NE(n2, n3);
  EXPECT_EQ(number("0.0.0.0-10.212.255.255"), "0x00000000");
  EXPECT_EQ(number("10.215.0.0-255.255.255.255"), "0x00000000");
  EXPECT_THAT(texts("origin4"), SizeIs(4)) << "VIPs send nothing";
  EXPECT_THAT(texts("origin6"), Not(IsEmpty()));
  EXPECT_THAT(
      texts("peers4"),
      UnorderedElementsAre("peers4 0x00000000 . 192.0.2.2", "peers4 " + n2 + " . 192.0.2.2",
                           "peers4 0x00000000 . 192.0.2.3", "peers4 " + n3 + " . 192.0.2.3"));
  EXPECT_THAT(texts("peers6"), UnorderedElementsAre("peers6 0x00000000 . 2001:db8::2",
                                                    "peers6 " + n2 + " . 2001:db8::2"));
  // Without a tunnel nobody looks them up.
  world.settings.tunnel.reset();
  follow(compiler_.rebuild(world));
  EXPECT_THAT(texts("origin"), IsEmpty());
  EXPECT_THAT(texts("peers"), IsEmpty());
}

// A connection to another node is cut as one between two here.
TEST_F(RemoteTest, PlansSayWhichFlowsToOtherNodesEnd) {
  auto outcome = w_.plan("{id: c, owner: ada, workflow: r}");
  ASSERT_TRUE(outcome);
  const auto c = *w_.workload("c").attachment->v4, s = *w_.workload("s").remote->v4;
  const std::vector<LiveConnection> live = {{Proto::kTcp, c, s, 80, s, 80}};
  const auto cut = cut_connections(w_.world, *outcome, live);
  ASSERT_EQ(cut.size(), 1U);
  EXPECT_EQ(cut[0].subject, "c -> s tcp/80");
}

}  // namespace
}  // namespace meshd::policy
