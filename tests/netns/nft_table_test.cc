// Tables written by NftBatch, as nft and NftDump read them back from the kernel.
#include "tests/support/nft_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "netlink/nft_features.h"
#include "netlink/nft_monitor.h"

namespace meshd::netlink {
namespace {

using test::flow_key;
using test::flow_set;
using test::output_of;
using ::testing::HasSubstr;

class NftTableTest : public test::NftTable {};

TEST_F(NftTableTest, DumpEqualsWhatWasPut) {
  load();
  const auto read = dump();
  EXPECT_EQ(read.flags, 0U);
  EXPECT_TRUE(read.foreign.empty()) << ::testing::PrintToString(read.foreign);
  auto chains = test::sample_chains();
  std::ranges::sort(chains, {}, &ChainSpec::name);
  ASSERT_EQ(read.chains.size(), chains.size());
  for (std::size_t i = 0; i < chains.size(); ++i) EXPECT_EQ(read.chains[i].spec, chains[i]);
  auto sets = test::sample_sets();
  std::ranges::sort(sets, {}, &SetSpec::name);
  ASSERT_EQ(read.sets.size(), sets.size());
  for (std::size_t i = 0; i < sets.size(); ++i) {
    EXPECT_EQ(read.sets[i].spec, sets[i]) << sets[i].name;
  }
  ASSERT_EQ(read.counters.size(), 1U);
  EXPECT_EQ(read.counters[0].name, "c_spoof");
}

TEST_F(NftTableTest, RulesReadBackAreTheRulesThatWerePut) {
  load();
  auto wanted = test::sample_rules();
  std::ranges::stable_sort(wanted, {}, &test::SampleRule::chain);
  const auto read = dump();
  ASSERT_EQ(read.rules.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_EQ(read.rules[i].chain, wanted[i].chain);
    EXPECT_EQ(read.rules[i].comment, wanted[i].comment);
    EXPECT_EQ(read.rules[i].exprs, wanted[i].exprs) << "read:\n"
                                                    << exprs_text(read.rules[i].exprs) << "put:\n"
                                                    << exprs_text(wanted[i].exprs);
  }
}

TEST_F(NftTableTest, NftListsSetsWithTheirTypes) {
  load();
  EXPECT_THAT(output_of("nft list set inet t bind4"),
              HasSubstr("type ifname . ether_addr . ipv4_addr"));
  EXPECT_THAT(output_of("nft list set inet t src4"),
              HasSubstr("type mark . ipv4_addr\n\t\tflags interval"));
  EXPECT_THAT(output_of("nft list map inet t vip4"),
              HasSubstr("type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr"));
  EXPECT_THAT(output_of("nft list set inet t allow4"), HasSubstr("counter"));
  EXPECT_THAT(output_of("nft list set inet t frag4"), HasSubstr("timeout 10s"));
}

TEST_F(NftTableTest, ListsAsTheSameTextThatNftItselfLoads) {
  const std::string text = R"(table inet t {
    counter c_spoof { }
    set bind4 { type ifname . ether_addr . ipv4_addr; size 8192; }
    set mesh4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 240.0.0.0/4 } }
    map egp4 { type ipv4_addr : mark; size 8192; elements = { 10.0.0.1 : 5 } }
    chain decide { }
    chain guard { type filter hook prerouting priority -450; policy accept;
      iifgroup 77 jump decide comment "from containers"
      iifname . ether saddr . ip saddr @bind4 goto decide
      meta pkttype != host counter name c_spoof drop
      meta l4proto != { tcp, udp } log prefix "meshd:spoof " group 88 snaplen 64
    }
  })";
  const auto want = output_of("nft -f - <<'END'\n" + text + "\nEND\nnft list table inet t");
  output_of("nft delete table inet t");
  ASSERT_THAT(want, HasSubstr("comment \"from containers\""));

  NftBatch batch("t");
  ASSERT_TRUE(batch.put_table());
  ASSERT_TRUE(batch.put_counter("c_spoof"));
  for (const auto* name : {"bind4", "mesh4", "egp4"}) ASSERT_TRUE(batch.put_set(sample_set(name)));
  ASSERT_TRUE(batch.put_chain({.name = "decide"}));
  ASSERT_TRUE(batch.put_chain(test::sample_chains()[0]));
  for (const auto& rule : test::sample_filter_rules()) {
    if (rule.chain != "guard") continue;
    ASSERT_TRUE(batch.put_rule(rule.chain, rule.exprs, rule.comment));
  }
  const Bytes ten = {10, 0, 0, 0}, ten_end = {10, 255, 255, 255}, high = {240, 0, 0, 0},
              high_end = {255, 255, 255, 255}, host = {10, 0, 0, 1}, five = host_bytes(5);
  const std::vector<ElementView> ranges = {{.key = high, .key_end = high_end},
                                           {.key = ten, .key_end = ten_end}};
  ASSERT_TRUE(batch.put_elements(sample_set("mesh4"), ranges));
  ASSERT_TRUE(
      batch.put_elements(sample_set("egp4"), std::vector{ElementView{.key = host, .data = five}}));
  auto committed = std::move(batch).commit(*socket_);
  ASSERT_TRUE(committed) << committed.error().what;
  EXPECT_EQ(output_of("nft list table inet t"), want);
}

TEST_F(NftTableTest, IntervalsReadBackAsTheyWerePut) {
  load();
  const Bytes a = {10, 0, 0, 0}, a_end = {10, 255, 255, 255}, b = {11, 0, 0, 0},
              b_end = {11, 0, 0, 0}, c = {240, 0, 0, 0}, c_end = {255, 255, 255, 255};
  // Adjacent, single and open to the end: the shapes that share or lack an end element.
  const std::vector<ElementView> put = {
      {.key = a, .key_end = a_end}, {.key = b}, {.key = c, .key_end = c_end}};
  ASSERT_TRUE(add(sample_set("mesh4"), put));
  const Bytes profile = {5, 0, 0, 0, 192, 0, 2, 0}, profile_end = {5, 0, 0, 0, 192, 0, 2, 255};
  ASSERT_TRUE(add(sample_set("src4"), {{.key = profile, .key_end = profile_end}}));

  const auto read = dump();
  const auto& mesh = read.find_set("mesh4")->elements;
  ASSERT_EQ(mesh.size(), 3U);
  EXPECT_EQ(read.find_set("mesh4")->damaged, 0U);
  const std::vector<std::pair<Bytes, Bytes>> wanted = {{a, a_end}, {b, b_end}, {c, c_end}};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(std::ranges::equal(mesh[i].key, wanted[i].first));
    EXPECT_TRUE(std::ranges::equal(mesh[i].key_end, wanted[i].second));
  }
  const auto& source = read.find_set("src4")->elements;
  ASSERT_EQ(source.size(), 1U);
  EXPECT_TRUE(std::ranges::equal(source[0].key_end, profile_end));

  NftBatch remove("t");
  ASSERT_TRUE(remove.del_elements(sample_set("mesh4"), std::vector{put[0]}));
  ASSERT_TRUE(std::move(remove).commit(*socket_));
  const auto left = dump();
  ASSERT_EQ(left.find_set("mesh4")->elements.size(), 2U);
  EXPECT_TRUE(std::ranges::equal(left.find_set("mesh4")->elements[0].key, b));
}

TEST_F(NftTableTest, ErrorNamesTheElementAndLeavesTheTableUnchanged) {
  load();
  const auto before = output_of("nft list ruleset");
  const Bytes fine = flow_key(0x0a000001, 0x0a000002, 6, 80);
  const Bytes missing = flow_key(0x0a000001, 0x0a000003, 6, 5432);
  NftBatch batch("t");
  ASSERT_TRUE(batch.put_elements(flow_set(), std::vector{ElementView{.key = fine}}));
  ASSERT_TRUE(batch.del_elements(
      flow_set(), std::vector{ElementView{.key = fine}, ElementView{.key = missing}}));
  const auto refused = std::move(batch).commit(*socket_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().sys_errno, ENOENT);
  EXPECT_THAT(refused.error().what,
              HasSubstr("delete from set allow4: 10.0.0.1 . 10.0.0.3 . 6 . 5432"));
  EXPECT_FALSE(outcome_unknown(refused.error()));
  EXPECT_EQ(output_of("nft list ruleset"), before);
}

TEST_F(NftTableTest, ErrorNamesTheChainOfTheRefusedRule) {
  load();
  NftBatch batch("t");
  ASSERT_TRUE(batch.put_rule("decide", {Lookup{.set = "nowhere", .from = Reg{0}}}));
  const auto refused = std::move(batch).commit(*socket_);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("rule in chain decide"));
}

TEST_F(NftTableTest, FullSetIsExhaustedNotSystem) {
  load();
  SetSpec trunk = sample_set("trunk");
  std::vector<Bytes> names;
  for (int i = 0; i < 65; ++i) names.push_back(ifname_bytes("v" + std::to_string(i)));
  std::vector<ElementView> views;
  for (const auto& name : names) views.push_back({.key = name});
  const auto refused = add(trunk, views);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kExhausted);
  EXPECT_THAT(refused.error().what, HasSubstr("trunk"));
  EXPECT_TRUE(dump().find_set("trunk")->elements.empty());
}

TEST_F(NftTableTest, StaleGenerationIsAConflict) {
  load();
  const auto seen = dump().generation;
  ASSERT_EQ(output_of("nft add chain inet t foreign"), "");
  NftBatch stale("t", seen);
  ASSERT_TRUE(stale.flush_rules());
  const auto refused = std::move(stale).commit(*socket_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kConflict);
  EXPECT_FALSE(dump().rules.empty());

  NftBatch fresh("t", dump().generation);
  ASSERT_TRUE(fresh.flush_rules());
  EXPECT_TRUE(std::move(fresh).commit(*socket_));
  EXPECT_TRUE(dump().rules.empty());
}

TEST_F(NftTableTest, MissingTableIsNotFound) {
  const auto read = NftDump::read(*socket_, "t");
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::kNotFound);
}

TEST_F(NftTableTest, SameNameInAnotherFamilyIsAnotherTable) {
  load();
  ASSERT_EQ(output_of("nft -f - <<'END'\ntable ip t { set s { type ipv4_addr; }\n"
                      "chain c { type filter hook input priority 0; drop; }\n}\nEND"),
            "");
  const auto read = dump();
  EXPECT_EQ(read.sets.size(), test::sample_sets().size());
  EXPECT_EQ(read.chains.size(), test::sample_chains().size());
  EXPECT_EQ(read.rules.size(), test::sample_rules().size());
}

TEST_F(NftTableTest, ForeignObjectsAreReported) {
  load();
  ASSERT_EQ(output_of("nft -f - <<'END'\ntable inet t { quota q { over 10 mbytes }\n"
                      "set x { type ipv4_addr; flags constant; }\n"
                      "map v { type ipv4_addr : verdict; }\n"
                      "chain decide { ct mark set 5; fib daddr type local accept; }\n}\nEND"),
            "");
  const auto read = dump();
  EXPECT_THAT(read.foreign, ::testing::ElementsAre("object q", "set v: its verdicts"));
  const auto unknown = [](const RuleDump& rule) {
    return std::ranges::any_of(
        rule.exprs, [](const Expr& e) { return std::holds_alternative<UnknownExpr>(e); });
  };
  EXPECT_EQ(std::ranges::count_if(read.rules, unknown), 2);
}

TEST_F(NftTableTest, ElementCountersCountPackets) {
  load();
  NftBatch batch("t");
  ASSERT_TRUE(
      batch.put_chain({"out", BaseChain{ChainType::kFilter, Hook::kOutput, 0, Policy::kAccept}}));
  const auto rule = test::joined(
      test::ipv4_source(0),
      {PayloadLoad{PayloadBase::kNetwork, 16, 4, Reg{1}}, MetaLoad{MetaKey::kL4proto, Reg{2}},
       PayloadLoad{PayloadBase::kTransport, 2, 2, Reg{3}}, Lookup{.set = "allow4", .from = Reg{0}},
       CounterRef{"c_spoof"}});
  ASSERT_TRUE(batch.put_rule("out", rule));
  ASSERT_TRUE(batch.flush_chain("inp"));
  const Bytes key = flow_key(0x7f000001, 0x7f000001, 17, 9);
  ASSERT_TRUE(batch.put_elements(flow_set(), std::vector{ElementView{.key = key}}));
  ASSERT_TRUE(std::move(batch).commit(*socket_));
  ASSERT_EQ(output_of("bash -c 'for i in 1 2 3; do echo -n hello >/dev/udp/127.0.0.1/9; done'"),
            "");
  const auto elements = read_elements(*socket_, "t", flow_set());
  ASSERT_TRUE(elements);
  ASSERT_EQ(elements->size(), 1U);
  EXPECT_EQ((*elements)[0].packets, 3U);
  EXPECT_EQ((*elements)[0].bytes, 3U * (20 + 8 + 5));
  const auto counters = read_counters(*socket_, "t");
  ASSERT_TRUE(counters);
  EXPECT_EQ(counters->at(0).packets, 3U);
}

TEST_F(NftTableTest, HundredThousandElementsGoInAndComeBack) {
  load();
  std::vector<Bytes> keys;
  for (std::uint32_t i = 0; i < 100'000; ++i) {
    keys.push_back(flow_key(0x0a000000 + i, 0x0a800001, 6, 5432));
  }
  std::vector<ElementView> views;
  for (const auto& key : keys) views.push_back({.key = key});
  auto added = add(flow_set(), views);
  ASSERT_TRUE(added) << added.error().what;
  const auto read = dump();
  const auto& elements = read.find_set("allow4")->elements;
  std::vector<Bytes> back;  // in no order
  for (std::size_t i = 0; i < elements.size(); ++i) {
    back.emplace_back(elements[i].key.begin(), elements[i].key.end());
  }
  std::ranges::sort(back);
  std::ranges::sort(keys);
  ASSERT_EQ(back, keys);
  NftBatch remove("t");
  ASSERT_TRUE(remove.del_elements(flow_set(), views));
  ASSERT_TRUE(std::move(remove).commit(*socket_));
  EXPECT_TRUE(dump().find_set("allow4")->elements.empty());
}

TEST_F(NftTableTest, PutIsRepeatableAndFlushEmpties) {
  load();
  const Bytes key = flow_key(1, 2, 6, 80);
  ASSERT_TRUE(add(flow_set(), {{.key = key}}));
  ASSERT_TRUE(add(flow_set(), {{.key = key}}));
  EXPECT_EQ(dump().find_set("allow4")->elements.size(), 1U);
  NftBatch batch("t");
  ASSERT_TRUE(batch.put_table());
  for (const auto& set : test::sample_sets()) ASSERT_TRUE(batch.put_set(set));
  for (const auto& chain : test::sample_chains()) ASSERT_TRUE(batch.put_chain(chain));
  ASSERT_TRUE(batch.flush_set("allow4"));
  auto again = std::move(batch).commit(*socket_);
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_TRUE(dump().find_set("allow4")->elements.empty());
  EXPECT_EQ(dump().rules.size(), test::sample_rules().size());
}

TEST_F(NftTableTest, BaseChainPolicyCanBeChangedInPlace) {
  load();
  auto chain = test::sample_chains()[0];
  chain.base->policy = Policy::kDrop;
  NftBatch batch("t");
  ASSERT_TRUE(batch.put_chain(chain));
  ASSERT_TRUE(std::move(batch).commit(*socket_));
  const auto read = dump();
  const auto found =
      std::ranges::find(read.chains, chain.name, [](const ChainDump& c) { return c.spec.name; });
  EXPECT_EQ(found->spec.base->policy, Policy::kDrop);
}

TEST_F(NftTableTest, DeleteTableLeavesOthersAlone) {
  ASSERT_EQ(output_of("nft add table inet other"), "");
  load();
  NftBatch batch("t");
  ASSERT_TRUE(batch.delete_table());
  ASSERT_TRUE(std::move(batch).commit(*socket_));
  EXPECT_EQ(output_of("nft list tables"), "table inet other\n");
}

TEST_F(NftTableTest, ChainsOfOthersAreListed) {
  ASSERT_EQ(output_of("nft 'add table ip f; add chain ip f c "
                      "{ type filter hook forward priority 0; policy drop; }'"),
            "");
  const auto chains = list_chains(*socket_);
  ASSERT_TRUE(chains);
  ASSERT_EQ(chains->size(), 1U);
  EXPECT_EQ(chains->at(0).family, TableFamily::kIp);
  EXPECT_EQ(chains->at(0).table, "f");
  EXPECT_EQ(chains->at(0).spec.name, "c");
  ASSERT_TRUE(chains->at(0).spec.base);
  EXPECT_EQ(chains->at(0).spec.base->policy, Policy::kDrop);
  EXPECT_TRUE(read_rules(*socket_, {TableFamily::kIp6, "f", {"c"}})->empty());
}

TEST_F(NftTableTest, RulesOfOthersAreReadInsertedAndDeletedOneByOne) {
  ASSERT_EQ(output_of("nft 'add table ip f; add chain ip f c; add chain ip f d;"
                      "add rule ip f c counter return; add rule ip f d drop'"),
            "");
  const NamedChain chain{TableFamily::kIp, "f", {"c"}};
  const Exprs accept{MetaLoad{MetaKey::kIifname}, Compare{{}, CompareOp::kEqual, {'m', 'e'}},
                     Counter{}, Verdict{VerdictKind::kAccept}};
  NftBatch batch("f", std::nullopt, TableFamily::kIp);
  ASSERT_TRUE(batch.insert_rule("c", accept, "ours"));
  ASSERT_TRUE(std::move(batch).commit(*socket_));
  const auto rules = read_rules(*socket_, chain);
  ASSERT_TRUE(rules);
  ASSERT_EQ(rules->size(), 2U);
  EXPECT_EQ(rules->at(0).exprs, accept);
  EXPECT_EQ(rules->at(0).comment, "ours");
  EXPECT_EQ(rules->at(1).exprs, (Exprs{Counter{}, Verdict{VerdictKind::kReturn}}));
  NftBatch undo("f", std::nullopt, TableFamily::kIp);
  ASSERT_TRUE(undo.delete_rule("c", rules->at(0).handle));
  ASSERT_TRUE(std::move(undo).commit(*socket_));
  EXPECT_EQ(read_rules(*socket_, chain)->size(), 1U);
}

TEST_F(NftTableTest, FeaturesAreProbedWithoutATrace) {
  auto monitor = NftMonitor::make("meshd-probe");
  ASSERT_TRUE(monitor) << monitor.error().what;
  const auto before = read_generation(*socket_);
  const auto features = probe_features();
  ASSERT_TRUE(features) << features.error().what;
  for (const auto& feature : *features) {
    EXPECT_TRUE(feature.present) << feature.name << ": " << feature.why;
    EXPECT_EQ(feature.present, feature.why.empty());
  }
  EXPECT_TRUE(require_all(*features));
  EXPECT_EQ(output_of("nft list ruleset"), "");
  const auto after = read_generation(*socket_);
  ASSERT_TRUE(before && after);
  EXPECT_EQ(*before, *after);
  const auto events = monitor->read_events();
  ASSERT_TRUE(events);
  EXPECT_THAT(*events, testing::IsEmpty());
}

TEST_F(NftTableTest, CheckSaysWhatCommitWouldSay) {
  const auto fill = [](NftBatch& batch, std::string_view counter) {
    EXPECT_TRUE(batch.put_table());
    EXPECT_TRUE(batch.put_counter("there"));
    EXPECT_TRUE(batch.put_chain({.name = "c"}));
    EXPECT_TRUE(batch.put_rule("c", {CounterRef{std::string(counter)}}));
  };
  NftBatch checked("t"), committed("t"), good("t");
  fill(checked, "missing");
  fill(committed, "missing");
  fill(good, "there");
  const auto check = std::move(checked).check(*socket_);
  const auto commit = std::move(committed).commit(*socket_);
  ASSERT_FALSE(check);
  ASSERT_FALSE(commit);
  EXPECT_EQ(check.error().sys_errno, commit.error().sys_errno);
  EXPECT_THAT(check.error().what, HasSubstr("rule"));
  EXPECT_TRUE(std::move(good).check(*socket_));
  EXPECT_EQ(output_of("nft list ruleset"), "");
}

}  // namespace
}  // namespace meshd::netlink
