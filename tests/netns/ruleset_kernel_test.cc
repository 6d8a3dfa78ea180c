// The table in the kernel: our byte code against nft's own of the same text, changes of
// elements against a fresh installation, and repairs of what others did to it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "meshd/lower_ruleset.h"
#include "meshd/table_repair.h"
#include "netlink/nft_batch.h"
#include "netlink/nft_dump.h"
#include "policy/base_table.h"
#include "policy/diff.h"
#include "policy/render.h"
#include "tests/support/netns.h"
#include "tests/support/ruleset_samples.h"
#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

using netlink::NftBatch;
using netlink::NftDump;
using policy::Element;
using policy::SetId;
using test::output_of;
using test::run;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr std::uint32_t kNoFlags = 0;

// With every rule that there can be.
policy::Settings clustered() {
  auto settings = test::sample_settings();
  settings.in_cluster = true;
  settings.tunnel = "mesh0";
  return settings;
}

class RulesetKernelTest : public testing::Test {
 protected:
  void SetUp() override {
    auto entered = test::PrivateNetns::enter();
    ASSERT_TRUE(entered) << entered.error().what;
    open();
  }
  void open() {
    auto opened = netlink::Socket::open();
    ASSERT_TRUE(opened) << opened.error().what;
    socket_.emplace(*std::move(opened));
  }

  // What differed; the table is right afterwards.
  std::vector<std::string> repair(const std::vector<Element>& wanted,
                                  std::uint32_t flags = kNoFlags) {
    const auto installed = NftDump::read(*socket_, policy::kTableName);
    std::optional<std::uint32_t> generation;
    if (installed) generation = installed->generation;
    NftBatch batch{std::string(policy::kTableName), generation};
    auto what = put_repair(batch, table_, wanted, flags, installed ? &*installed : nullptr);
    EXPECT_TRUE(what) << what.error().what;
    if (!what) return {};
    EXPECT_EQ(what->empty(), batch.empty());
    auto committed = std::move(batch).commit(*socket_);
    EXPECT_TRUE(committed) << committed.error().what;
    return *what;
  }
  void apply(const policy::Delta& delta) {
    NftBatch batch{std::string(policy::kTableName)};
    const auto put = put_delta(batch, delta);
    ASSERT_TRUE(put) << put.error().what;
    const auto committed = std::move(batch).commit(*socket_);
    ASSERT_TRUE(committed) << committed.error().what;
  }
  std::vector<Element> installed_elements() {
    std::vector<Element> elements;
    const auto dump = NftDump::read(*socket_, policy::kTableName);
    EXPECT_TRUE(dump);
    for (std::size_t i = 0; dump && i < policy::kSetCount; ++i) {
      const auto id = static_cast<SetId>(i);
      const auto* set = dump->find_set(policy::set_name(id));
      for (std::size_t n = 0; set != nullptr && n < set->elements.size(); ++n) {
        elements.push_back(raise_element(id, set->elements[n]).value());
      }
    }
    std::ranges::sort(elements);
    return elements;
  }
  static std::string listing() { return output_of("nft list table inet meshd"); }
  static void nft(const std::string& command) {
    const auto result = run("nft '" + command + "'");
    ASSERT_EQ(result.exit_code, 0) << command << ": " << result.output;
  }

  std::optional<netlink::Socket> socket_;
  policy::Table table_ =
      policy::base_table(clustered(), {.forwarding4_was_off = true, .forwarding6_was_off = true});
  std::vector<Element> elements_ = test::RandomElements(1).make(12);
};

// Lines in which two texts differ, for messages.
std::string first_difference(const std::string& a, const std::string& b) {
  std::size_t line = 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (a[i] != b[i]) {
      const auto from = a.rfind('\n', i) + 1, other = b.rfind('\n', i) + 1;
      return "line " + std::to_string(line) + "\n  " + a.substr(from, 160) + "\n  " +
             b.substr(other, 160);
    }
    if (a[i] == '\n') ++line;
  }
  return a.size() == b.size() ? "" : "lengths";
}

TEST_F(RulesetKernelTest, ByteCodeIsWhatNftMakesOfTheText) {
  // Without the rules that nft has no words for: EveryRuleComesBackAsWritten has them.
  for (auto& chain : table_.chains) {
    std::erase_if(chain.rules, [](const auto& rule) { return !policy::nft_can_write(rule); });
  }
  ASSERT_THAT(repair(elements_), ElementsAre("there was no table"));
  const auto ours = listing();
  const auto our_dump = NftDump::read(*socket_, policy::kTableName);
  ASSERT_TRUE(our_dump);

  const TempDir directory;
  const auto file = directory / "table.nft";
  std::ofstream(file) << policy::render(table_, elements_);
  nft("delete table inet meshd");
  const auto loaded = run("nft -f " + file);
  ASSERT_EQ(loaded.exit_code, 0) << loaded.output;
  const auto theirs = listing();
  EXPECT_EQ(ours, theirs) << first_difference(ours, theirs);

  // And beneath the listing, where nft merges neighbouring loads into one.
  const auto their_dump = NftDump::read(*socket_, policy::kTableName);
  ASSERT_TRUE(their_dump);
  ASSERT_EQ(our_dump->rules.size(), their_dump->rules.size());
  std::vector<std::string> differing;
  for (std::size_t i = 0; i < our_dump->rules.size(); ++i) {
    if (our_dump->rules[i].exprs != their_dump->rules[i].exprs) {
      differing.push_back(our_dump->rules[i].chain + "\n" +
                          netlink::exprs_text(our_dump->rules[i].exprs) + "nft:\n" +
                          netlink::exprs_text(their_dump->rules[i].exprs));
    }
  }
  const bool only_merged_icmp = std::ranges::all_of(
      differing, [](const std::string& rule) { return rule.starts_with("raw_out\n"); });
  EXPECT_TRUE(only_merged_icmp && differing.size() == 4) << testing::PrintToString(differing);
}

TEST_F(RulesetKernelTest, EveryRuleComesBackAsWritten) {
  ASSERT_THAT(repair(elements_), ElementsAre("there was no table"));
  const auto dump = NftDump::read(*socket_, policy::kTableName);
  ASSERT_TRUE(dump) << dump.error().what;
  for (const auto& chain : table_.chains) {
    std::size_t i = 0;
    for (const auto& rule :
         std::ranges::equal_range(dump->rules, chain.name, {}, &netlink::RuleDump::chain)) {
      ASSERT_LT(i, chain.rules.size());
      EXPECT_EQ(netlink::exprs_text(rule.exprs), netlink::exprs_text(lower_rule(chain.rules[i])))
          << policy::render_rule(chain.rules[i]);
      ++i;
    }
    EXPECT_EQ(i, chain.rules.size()) << chain.name;
  }
  EXPECT_THAT(dump->foreign, IsEmpty());
}

TEST_F(RulesetKernelTest, NothingDiffersNothingIsWritten) {
  repair(elements_);
  const auto generation = netlink::read_generation(*socket_);
  EXPECT_THAT(repair(elements_), IsEmpty());
  EXPECT_EQ(netlink::read_generation(*socket_).value(), generation.value());
}

TEST_F(RulesetKernelTest, ChangeEqualsFreshInstallation) {
  test::RandomElements random(7);
  auto have = random.make(15);
  repair(have);
  for (int round = 0; round < 30; ++round) {
    const auto next = random.make(15);
    const auto delta = policy::diff(have, next);
    ASSERT_FALSE(delta.remove.empty());
    apply(delta);
    EXPECT_THAT(repair(next), IsEmpty()) << "round " << round;
    have = next;
  }
  const auto changed = installed_elements();
  EXPECT_EQ(changed, have);
  nft("delete table inet meshd");
  repair(have);
  EXPECT_EQ(changed, installed_elements());
}

TEST_F(RulesetKernelTest, ContainersAddNoChainRuleOrSet) {
  repair({});
  const auto count = [this] {
    const auto dump = NftDump::read(*socket_, policy::kTableName).value();
    return std::array{dump.chains.size(), dump.rules.size(), dump.sets.size(),
                      dump.counters.size()};
  };
  const auto before = count();
  std::vector<Element> many;
  for (std::uint32_t n = 1; n <= 2000; ++n) {
    const auto address = test::ip("10.213.0.0").plus(n);
    many.push_back(policy::ElementBuilder(SetId::kLocal4).addr(address).build());
    many.push_back(policy::ElementBuilder(SetId::kAllow4)
                       .addr(address)
                       .addr(test::ip("10.213.255.1"))
                       .proto(Proto::kTcp)
                       .port(5432)
                       .build());
  }
  apply({{}, many});
  EXPECT_EQ(count(), before);
}

TEST_F(RulesetKernelTest, ElementThatIsNotWellFormedIsRefusedBeforeTheKernel) {
  repair({});
  NftBatch batch{std::string(policy::kTableName)};
  const auto bad = policy::ElementBuilder(SetId::kAllow4).addr(test::ip("10.0.0.1")).build();
  const auto put = put_delta(batch, {{}, {bad}});
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().code, ErrorCode::kInternal);
  EXPECT_THAT(put.error().what, HasSubstr("allow4"));
}

// Somebody's edit, and what the repair calls it.
struct Edit {
  std::string name, command, found;
};
// GoogleTest finds its printer by this name.
void PrintTo(const Edit& edit, std::ostream* out) {  // NOLINT(readability-identifier-naming)
  *out << edit.command;
}

class RulesetEditTest : public RulesetKernelTest, public testing::WithParamInterface<Edit> {};

// The listing's order of chains and of elements is that of their making.
std::vector<std::string> sorted_lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  std::ranges::sort(lines);
  return lines;
}

TEST_P(RulesetEditTest, IsFoundAndPutRight) {
  repair(elements_);
  const auto before = listing();
  const auto result = run(GetParam().command);
  ASSERT_EQ(result.exit_code, 0) << result.output;
  ASSERT_NE(listing(), before) << "the edit did nothing";
  EXPECT_THAT(repair(elements_), Contains(HasSubstr(GetParam().found)));
  EXPECT_EQ(sorted_lines(listing()), sorted_lines(before));
  EXPECT_THAT(repair(elements_), IsEmpty());
}

std::string with_rule(const std::string& chain, const std::string& text, const std::string& then) {
  return "h=$(nft -a list chain inet meshd " + chain + " | grep -F '" + text +
         "' | head -1 | sed 's/.*# handle //'); " + then;
}

INSTANTIATE_TEST_SUITE_P(
    Edits, RulesetEditTest,
    testing::Values(
        Edit{"RuleDeleted",
             with_rule("decide", "ct state invalid", "nft delete rule inet meshd decide handle $h"),
             "rules of chain decide differed (12, not 13)"},
        Edit{"RuleReplaced",
             with_rule("refuse", "goto answer",
                       "nft replace rule inet meshd refuse handle $h accept"),
             "rules of chain refuse differed"},
        Edit{"RuleAdded", "nft insert rule inet meshd forw accept", "rules of chain forw differed"},
        Edit{"RuleWithAnInlineSetAdded",
             "nft insert rule inet meshd forw ip saddr { 1.2.3.4, 10.0.0.0/8 } accept",
             "rules of chain forw differed"},
        Edit{"ChainFlushed", "nft flush chain inet meshd egress", "rules of chain egress differed"},
        Edit{"TableFlushed", "nft flush table inet meshd", "rules of chain guard differed (0"},
        Edit{"BaseChainDeleted", "nft flush chain inet meshd inp; nft delete chain inet meshd inp",
             "chain inp was missing"},
        Edit{"BaseChainMoved",
             "nft flush chain inet meshd inp; nft delete chain inet meshd inp; "
             "nft 'add chain inet meshd inp { type filter hook input priority 5; }'",
             "chain inp had another hook or policy"},
        Edit{"PolicyChanged", "nft 'chain inet meshd forw { policy drop; }'",
             "chain forw had another hook or policy"},
        Edit{"ChainAdded",
             "nft 'add chain inet meshd x { type filter hook forward priority 0; policy drop; }'",
             "chain x was not ours"},
        Edit{"VerdictMapAdded",
             "nft 'add map inet meshd m { type ipv4_addr : verdict; elements = { 1.2.3.4 : jump "
             "answer } }'; nft 'add rule inet meshd guard ip saddr vmap @m'",
             "set m was not ours"},
        Edit{"SetAdded", "nft 'add set inet meshd x { type ipv4_addr; flags interval; }'",
             "set x was not ours"},
        Edit{"CounterAdded", "nft add counter inet meshd c_x", "counter c_x was not ours"},
        Edit{"QuotaAdded", "nft add quota inet meshd q 5 mbytes", "object q was not ours"},
        Edit{"SetFlushed", "nft flush set inet meshd allow4", "elements of allow4 were missing"},
        Edit{"IntervalSetFlushed", "nft flush map inet meshd eg6", "elements of eg6 were missing"},
        Edit{"MapFlushed", "nft flush map inet meshd vip6", "elements of vip6 were missing"},
        Edit{"ElementAdded", "nft add element inet meshd allow4 { 10.9.9.9 . 10.9.9.8 . tcp . 22 }",
             "1 elements of allow4 were not wanted"},
        Edit{"IntervalAdded", "nft add element inet meshd mesh4 { 203.0.113.0/24 }",
             "1 elements of mesh4 were not wanted"},
        Edit{"ConcatIntervalAdded", "nft add element inet meshd src4 { 0x77 . 0.0.0.0/0 }",
             "1 elements of src4 were not wanted"},
        Edit{"UserAdded", "nft add element inet meshd users { 4711 }",
             "1 elements of users were not wanted"},
        Edit{"TableDeleted", "nft delete table inet meshd", "there was no table"}),
    [](const auto& edit) { return edit.param.name; });

TEST_F(RulesetKernelTest, ElementDeletedIsFound) {
  repair(elements_);
  const auto victim = *std::ranges::find(elements_, SetId::kEgressProfile4, &Element::set);
  apply({{victim}, {}});
  EXPECT_THAT(repair(elements_), ElementsAre("1 elements of egp4 were missing"));
}

TEST_F(RulesetKernelTest, OtherDataInAMapIsFound) {
  repair(elements_);
  const auto victim = *std::ranges::find(elements_, SetId::kEgressProfile4, &Element::set);
  auto builder = policy::ElementBuilder(SetId::kEgressProfile4);
  builder.addr(IpAddress::v4(victim.key().first<4>())).data().number(0xdead);
  apply({{victim}, {builder.build()}});
  EXPECT_THAT(repair(elements_),
              ElementsAre("1 elements of egp4 were not wanted", "1 elements of egp4 were missing"));
  EXPECT_THAT(repair(elements_), IsEmpty());
}

TEST_F(RulesetKernelTest, SetOfAnotherTypeIsReplaced) {
  nft("add table inet meshd");
  nft("add set inet meshd allow4 { type ipv4_addr; elements = { 1.2.3.4 } }");
  EXPECT_THAT(repair(elements_), Contains("set allow4 was of another type"));
  EXPECT_THAT(repair(elements_), IsEmpty());
}

TEST_F(RulesetKernelTest, RepairOfRulesKeepsElementsAndTheirCounters) {
  repair(elements_);
  nft("delete element inet meshd local4 { " +
      policy::element_text(*std::ranges::find(elements_, SetId::kLocal4, &Element::set)) + " }");
  nft("add element inet meshd allow4 { 10.9.9.9 . 10.9.9.8 . tcp . 22 counter packets 5 bytes 9 }");
  auto wanted = elements_;
  wanted.push_back(policy::ElementBuilder(SetId::kAllow4)
                       .addr(test::ip("10.9.9.9"))
                       .addr(test::ip("10.9.9.8"))
                       .proto(Proto::kTcp)
                       .port(22)
                       .build());
  std::ranges::sort(wanted);
  nft("flush chain inet meshd decide");
  repair(wanted);
  EXPECT_THAT(listing(), HasSubstr("10.9.9.9 . 10.9.9.8 . tcp . 22 counter packets 5 bytes 9"));
}

TEST_F(RulesetKernelTest, SettingsOfTheLimitsTakeForceAtOnce) {
  repair(elements_);
  auto settings = test::sample_settings();
  settings.dns_client_rate = 77;
  table_ = policy::base_table(settings, {});
  EXPECT_THAT(repair(elements_), Not(IsEmpty()));
  EXPECT_THAT(listing(), HasSubstr("limit rate over 77/second burst 154 packets"));
  EXPECT_THAT(repair(elements_), IsEmpty());
}

class RulesetOwnerTest : public RulesetKernelTest {
 protected:
  static constexpr std::uint32_t kOwned = netlink::kTableOwner | netlink::kTablePersist;
};

TEST_F(RulesetOwnerTest, OrphanIsClaimedWithNothingElseWritten) {
  repair(elements_, kOwned);
  socket_.reset();
  open();
  EXPECT_THAT(repair(elements_, kOwned), ElementsAre("the table had no owner"));
  EXPECT_THAT(repair(elements_, kOwned), IsEmpty());
  EXPECT_NE(run("nft flush table inet meshd").exit_code, 0);
}

TEST_F(RulesetOwnerTest, TableThatNeverHadAnOwnerIsMadeAnew) {
  repair(elements_);
  EXPECT_THAT(repair(elements_, kOwned), Contains("the table had flags 0x0, not 0x6"));
  EXPECT_THAT(repair(elements_, kOwned), IsEmpty());
}

}  // namespace
}  // namespace meshd
