#include "policy/base_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "policy/render.h"

namespace meshd::policy {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::Not;

Settings both_families() {
  const auto ip = [](std::string_view text) { return IpAddress::parse(text).value(); };
  const auto prefix = [](std::string_view text) { return Prefix::parse(text).value(); };
  Settings settings;
  settings.pool4 = prefix("10.213.0.0/16");
  settings.pool6 = prefix("fd01:2::/64");
  settings.resolver4[0] = ip("169.254.1.1");
  settings.resolver4[1] = ip("169.254.1.2");
  settings.resolver6[0] = ip("fd88:53::53");
  settings.resolver6[1] = ip("fd88:53::54");
  return settings;
}

Settings in_cluster(bool is) {
  auto settings = both_families();
  settings.in_cluster = settings.gateway = is;
  if (is) settings.tunnel = "mesh0";
  return settings;
}

// By itself, and a gateway of a cluster, which has all that its other nodes have.
class BaseTableTest : public testing::TestWithParam<bool> {
 protected:
  BaseTableTest() {
    for (const auto& chain : table_.chains) by_name_[chain.name] = &chain;
  }

  [[nodiscard]] std::vector<std::string> texts(const std::string& chain) const {
    std::vector<std::string> lines;
    for (const auto& rule : by_name_.at(chain)->rules) lines.push_back(render_rule(rule));
    return lines;
  }
  // What a set's key or a map's value consists of.
  [[nodiscard]] std::vector<Component> key_of(const std::string& set) const {
    for (const auto& dynamic : table_.dynamic_sets) {
      if (dynamic.name == set) return {dynamic.key};
    }
    const auto& info = info_of(set);
    return {info.key.begin(), info.key.end()};
  }
  static const SetInfo& info_of(const std::string& set) {
    for (std::size_t i = 0; i < kSetCount; ++i) {
      const auto& info = set_info(static_cast<SetId>(i));
      if (info.name == set) return info;
    }
    ADD_FAILURE() << "no set " << set;
    return set_info(SetId::kUsers);
  }
  static std::vector<Component> kinds(const std::vector<Field>& fields) {
    std::vector<Component> kinds;
    for (const auto field : fields) kinds.push_back(field_info(field).kind);
    return kinds;
  }

  // Of a node that did not forward before, which has a use for all of its chains.
  Table table_ = base_table(in_cluster(GetParam()),
                            {.forwarding4_was_off = true, .forwarding6_was_off = true});
  std::map<std::string, const Chain*> by_name_;
};

TEST_P(BaseTableTest, JumpsOnlyToChainsThatExistAndAreNoBaseChains) {
  for (const auto& chain : table_.chains) {
    for (const auto& rule : chain.rules) {
      for (const auto& part : rule) {
        const auto* verdict = std::get_if<Verdict>(&part);
        if (verdict == nullptr || verdict->chain.empty()) continue;
        ASSERT_TRUE(by_name_.contains(verdict->chain)) << verdict->chain;
        EXPECT_FALSE(by_name_[verdict->chain]->base) << verdict->chain;
      }
    }
  }
}

TEST_P(BaseTableTest, EveryChainIsUsed) {
  std::set<std::string> targets;
  for (const auto& chain : table_.chains) {
    for (const auto& rule : chain.rules) {
      for (const auto& part : rule) {
        if (const auto* verdict = std::get_if<Verdict>(&part)) targets.insert(verdict->chain);
      }
    }
  }
  for (const auto& chain : table_.chains) {
    EXPECT_NE(chain.base.has_value(), targets.contains(chain.name)) << chain.name;
  }
}

TEST_P(BaseTableTest, EveryLookUpHasTheKeyOfItsSet) {
  const auto check = [this](const Part& part) {
    if (const auto* lookup = std::get_if<InSet>(&part)) {
      EXPECT_EQ(kinds(lookup->key), key_of(lookup->set)) << lookup->set;
    } else if (const auto* meter = std::get_if<Meter>(&part)) {
      EXPECT_EQ(kinds({meter->key}), key_of(meter->set)) << meter->set;
    } else if (const auto* over = std::get_if<ConnectionsOver>(&part)) {
      EXPECT_EQ(kinds({over->key}), key_of(over->set)) << over->set;
    } else if (const auto* profile = std::get_if<InProfile>(&part)) {
      EXPECT_EQ(kinds(profile->owner), key_of(profile->map)) << profile->map;
      auto key = kinds(profile->rest);
      key.insert(key.begin(), info_of(profile->map).data[0]);
      EXPECT_EQ(key, key_of(profile->set)) << profile->set;
      auto counted = kinds(profile->owner);
      EXPECT_EQ(info_of(profile->set).data.empty(), !profile->by_row) << profile->set;
      if (profile->by_row) counted.insert(counted.begin(), info_of(profile->set).data[0]);
      if (profile->counts.empty()) return;
      EXPECT_EQ(counted, key_of(profile->counts)) << profile->counts;
      EXPECT_TRUE(info_of(profile->counts).counter) << profile->counts;
    } else if (const auto* map = std::get_if<TranslateByMap>(&part)) {
      EXPECT_EQ(kinds(map->key), key_of(map->map)) << map->map;
      EXPECT_EQ(info_of(map->map).data.size(), map->with_port ? 2U : 1U) << map->map;
    }
  };
  for (const auto& chain : table_.chains) {
    for (const auto& rule : chain.rules) {
      for (const auto& part : rule) check(part);
    }
  }
}

TEST_P(BaseTableTest, EverySetIsLookedUp) {
  const auto text = render(table_, {});
  for (std::size_t i = 0; i < kSetCount; ++i) {
    const auto id = static_cast<SetId>(i);
    const auto name = std::string(set_name(id));
    const bool of_cluster = id >= SetId::kRemote4 && id <= SetId::kTrunk;
    EXPECT_EQ(text.contains("@" + name + " ") || text.contains("@" + name + "\n"),
              GetParam() || !of_cluster)
        << name;
  }
}

TEST_P(BaseTableTest, PortsAreReadOnlyWhereTheProtocolIsKnown) {
  const auto is_port = [](Field field) {
    return field == Field::kSourcePort || field == Field::kDestPort ||
           field == Field::kSourceBlock || field == Field::kDestBlock;
  };
  for (const auto& chain : table_.chains) {
    for (const auto& rule : chain.rules) {
      bool protocol = false;
      for (const auto& part : rule) {
        const auto* match = std::get_if<Match>(&part);
        if (match == nullptr) continue;
        if (match->field == Field::kL4proto && !match->negated) protocol = true;
        EXPECT_TRUE(protocol || !is_port(match->field)) << render_rule(rule);
      }
      for (const auto& part : rule) {
        const auto* lookup = std::get_if<InSet>(&part);
        if (lookup == nullptr || std::ranges::none_of(lookup->key, is_port)) continue;
        EXPECT_THAT(lookup->key, Contains(Field::kL4proto)) << render_rule(rule);
      }
    }
  }
}

TEST_P(BaseTableTest, RefusesMeshInterfacesAfterEachChainThatDecides) {
  EXPECT_THAT(texts("guard"), Contains("iifgroup 77 counter name c_spoof drop"));
  EXPECT_THAT(texts("forw"), Contains("iifgroup 77 counter name c_refused drop"));
  EXPECT_THAT(texts("forw"), Contains("oifgroup 77 counter name c_refused drop"));
  EXPECT_EQ(texts("inp")[1], "iifgroup 77 counter name c_host drop");
  EXPECT_EQ(texts("inp").size(), GetParam() ? 9U : 2U);
  EXPECT_EQ(texts("outp").back(), "oifgroup 77 drop");
  for (const std::string v : {"4", "6"}) {
    const std::string ip = v == "4" ? "ip" : "ip6";
    // What is local has left the chain before that.
    EXPECT_THAT(texts("pre_late"),
                IsSupersetOf<std::string>({ip + " daddr @local" + v + " accept",
                                           ip + " daddr @mesh" + v + " jump untargeted",
                                           ip + " daddr @mesh" + v + " drop"}));
    EXPECT_THAT(texts("outp"), Contains(ip + " daddr @mesh" + v + " drop"));
  }
}

TEST_P(BaseTableTest, ChainsThatDecideEndInAVerdict) {
  for (const auto* name :
       {"form4", "form6", "untargeted", "decide", "back", "inward", "inward_back", "egress",
        "egress_back", "icmps", "pass", "refuse", "refuse_c", "answer", "inp_c", "outp_c"}) {
    const auto& last = by_name_.at(name)->rules.back();
    EXPECT_EQ(last.size(), 1U) << name << ": its last rule has a condition";
    EXPECT_TRUE(std::holds_alternative<Verdict>(last[0]) || std::holds_alternative<Reject>(last[0]))
        << name;
  }
}

// Seen: without it the replies of a revoked flow went on by the consumer's egress.
TEST_P(BaseTableTest, EgressBeginsByRefusingMeshToMesh) {
  EXPECT_EQ(texts("egress").front(), "oifgroup 77 goto refuse");
  EXPECT_EQ(texts("egress_back").front(), "iifgroup 77 goto refuse");
}

// Seen: a service moved, and whoever had just called the old one was refused.
TEST_P(BaseTableTest, WhomAChangeOvertookIsNotRefused) {
  const auto all = texts("refuse");
  const auto refusing = std::ranges::find(all, "counter name c_refused");
  ASSERT_NE(refusing, all.end());
  const std::vector<std::string> before(all.begin(), refusing);
  const std::string held = " counter name c_held drop";
  const std::string translated = "iifgroup 77 ct state new ct status dnat ";
  EXPECT_THAT(before, testing::Contains(translated + "ct status confirmed" + held));
  for (const std::string v : {"4", "6"}) {
    const std::string ip = v == "4" ? "ip" : "ip6";
    const std::string asked = translated + ip + " saddr . ct original " + ip + " daddr";
    EXPECT_THAT(before, testing::Contains(asked + " . meta l4proto . th dport @hold" + v + held));
    EXPECT_THAT(before, testing::Contains(asked + " . meta l4proto . th dport & 0xfff0 @hold" + v +
                                          "_b16" + held));
    const std::string from_elsewhere =
        ip + " saddr @remote" + v + " ct state new " + ip + " daddr ";
    const std::string gone = "@mesh" + v + " " + ip + " daddr != @local" + v;
    for (const auto& to : {"@drain" + v, gone}) {
      EXPECT_EQ(std::ranges::count(before, from_elsewhere + to + held), GetParam() ? 1 : 0);
    }
  }
}

TEST_P(BaseTableTest, EverySecondVersionIsThere) {
  std::multiset<std::string> v4, v6;
  for (const auto& chain : table_.chains) {
    for (const auto& rule : chain.rules) {
      const auto text = render_rule(rule);
      if (text.contains("ip6 ") || text.contains("icmpv6 ")) {
        v6.insert(chain.name);
      } else if (text.contains("ip saddr") || text.contains("ip daddr")) {
        v4.insert(chain.name);
      }
    }
  }
  for (const auto* name :
       {"guard",     "guard_c",  "dns",         "raw_out", "dnat_pre",    "dnat_out",
        "snat_post", "pre_late", "untargeted",  "forw",    "decide",      "fresh",
        "back",      "inward",   "inward_back", "egress",  "egress_back", "icmps",
        "pass",      "refuse_c", "inp_c",       "outp"}) {
    EXPECT_GT(v4.count(name), 0U) << name;
    EXPECT_EQ(v4.count(name), v6.count(name)) << name;
  }
}

TEST_P(BaseTableTest, LimitOfQueriesIsTheSettings) {
  auto settings = both_families();
  settings.dns_client_rate = 7;
  const auto text = render(base_table(settings, {}), {});
  EXPECT_THAT(text, HasSubstr("limit rate over 7/second burst 14 packets"));
  settings.dns_client_rate = 0;
  EXPECT_THAT(render(base_table(settings, {}), {}), HasSubstr("over 1/second burst 2 packets"));
  settings.dns_client_rate = 4'000'000'000;
  EXPECT_THAT(render(base_table(settings, {}), {}),
              HasSubstr("over 4000000000/second burst 4000000000 packets"));
}

TEST_P(BaseTableTest, ForwardsForOthersByFamilyUnlessItsForwardingWasOff) {
  const auto unforwarded = [](bool off4, bool off6) {
    const auto table =
        base_table(both_families(), {.forwarding4_was_off = off4, .forwarding6_was_off = off6});
    const auto forw = std::ranges::find(table.chains, "forw", &Chain::name);
    std::vector<std::string> found;
    for (const auto& rule : forw->rules) {
      auto text = render_rule(rule);
      if (text.find("others") != std::string::npos) found.push_back(std::move(text));
    }
    return found;
  };
  const std::string four = "meta nfproto 2 jump others4";
  const std::string six = "meta nfproto 10 jump others6";
  EXPECT_THAT(unforwarded(false, false), testing::IsEmpty());
  EXPECT_THAT(unforwarded(true, false), testing::ElementsAre(four));
  EXPECT_THAT(unforwarded(false, true), testing::ElementsAre(six));
  EXPECT_THAT(unforwarded(true, true), testing::ElementsAre(four, six));
}

TEST_P(BaseTableTest, LogsToTheGroupOfTheOptions) {
  const auto text = render(base_table(both_families(), {.log_group = 91}), {});
  EXPECT_THAT(text, HasSubstr("log prefix \"meshd:spoof \" group 91 snaplen 64"));
  EXPECT_THAT(text, Not(HasSubstr("group 88")));
}

TEST_P(BaseTableTest, FamilyThatIsOffHasNoResolverRulesButAllSets) {
  auto settings = both_families();
  settings.pool6.reset();
  const auto text = render(base_table(settings, {}), {});
  EXPECT_THAT(text, Not(HasSubstr("fd88:53::5")));
  EXPECT_THAT(text, HasSubstr("set allow6 {"));
  EXPECT_THAT(text, HasSubstr("@allow6 goto pass"));
}

INSTANTIATE_TEST_SUITE_P(All, BaseTableTest, testing::Bool(),
                         [](const auto& test) { return test.param ? "InCluster" : "Alone"; });

}  // namespace
}  // namespace meshd::policy
