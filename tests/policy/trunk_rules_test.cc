// The rules of the table about other nodes: which there are, and in which order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "policy/base_table.h"
#include "policy/render.h"

namespace meshd::policy {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using Texts = std::vector<std::string>;

Settings routed() {
  Settings settings;
  settings.in_cluster = true;
  settings.trunks = {"uplink"};
  return settings;
}
Settings tunnelled() {
  auto settings = routed();
  settings.tunnel = "mesh0";
  return settings;
}

Texts texts(const Table& table, std::string_view chain) {
  Texts lines;
  const auto found = std::ranges::find(table.chains, chain, &Chain::name);
  if (found == table.chains.end()) return lines;
  for (const auto& rule : found->rules) lines.push_back(render_rule(rule));
  return lines;
}
// Where in the chain the rule is.
std::ptrdiff_t at(const Texts& lines, const std::string& rule) {
  const auto found = std::ranges::find(lines, rule);
  EXPECT_NE(found, lines.end()) << rule;
  return found - lines.begin();
}

TEST(TrunkRulesTest, NodeByItselfHasNoneOfThem) {
  auto settings = tunnelled();
  settings.in_cluster = false;
  EXPECT_EQ(base_table(settings, {}), base_table(Settings(), {}));
}

TEST(TrunkRulesTest, SourceMustBeAnotherNodesAndNeverOurs) {
  const auto table = base_table(tunnelled(), {});
  EXPECT_THAT(
      texts(table, "guard_t"),
      ElementsAre("ip saddr @local4 counter name c_foreign drop",
                  "ip6 saddr @local6 counter name c_foreign drop", "ip saddr @remote4 accept",
                  "ip6 saddr @remote6 accept", "iifgroup 78 icmp type { 3, 11, 12 } accept",
                  "iifgroup 78 icmpv6 type { 1, 2, 3, 4 } accept",
                  "iifgroup 78 counter name c_foreign drop"));
  // Containers here have left before, and who comes back has no mesh source.
  const auto guard = texts(table, "guard");
  const auto jump = at(guard, "iifname @trunk jump guard_t");
  EXPECT_LT(at(guard, "iifgroup 77 counter name c_spoof drop"), jump);
  EXPECT_LT(jump, at(guard, "ip saddr @mesh4 counter name c_foreign drop"));
  EXPECT_LT(jump, at(guard, "ip6 saddr @mesh6 counter name c_foreign drop"));
}

TEST(TrunkRulesTest, TunnelBringsFromEachNodeWhatIsItsOwn) {
  const auto table = base_table(tunnelled(), {});
  const auto input = texts(table, "inp");
  // Of a container's packet nothing comes so far.
  EXPECT_LT(at(input, "iifgroup 77 counter name c_host drop"),
            at(input, "meta l4proto udp th dport 8472 @th,96,24 88 jump tunnel"));
  EXPECT_THAT(texts(table, "tunnel"),
              ElementsAre("@th,224,16 2048 @th,336,32 map @origin4 . ip saddr @peers4 accept",
                          "@th,224,16 34525 @th,304,128 map @origin6 . ip saddr @peers4 accept",
                          "@th,224,16 2048 @th,336,32 map @origin4 . ip6 saddr @peers6 accept",
                          "@th,224,16 34525 @th,304,128 map @origin6 . ip6 saddr @peers6 accept",
                          "counter name c_foreign drop"));
  for (const auto& chain : base_table(routed(), {}).chains) {
    EXPECT_THAT(texts(base_table(routed(), {}), chain.name), Not(Contains(HasSubstr("8472 @th"))))
        << "a tunnel that is not ours is not our business";
  }
}

TEST(TrunkRulesTest, SegmentsAreClampedOnTheWayOutOfTheNode) {
  const auto forward = texts(base_table(routed(), {}), "forw");
  EXPECT_EQ(forward.front(),
            "iifgroup 77 oifgroup != 77 tcp flags & (syn | rst) == 2 "
            "tcp option maxseg size set rt mtu");
}

TEST(TrunkRulesTest, OthersThatANodeForwardsDoNotSpeakForIt) {
  for (const std::string ip : {"ip", "ip6"}) {
    const auto set = ip == "ip" ? " daddr @never4" : " daddr @never6";
    EXPECT_THAT(texts(base_table(tunnelled(), {}), "forw"),
                Contains(AllOf(StartsWith("meta l4proto udp th dport 8472 "), HasSubstr(ip + set),
                               EndsWith(" c_foreign drop"))));
  }
}

TEST(TrunkRulesTest, TargetsElsewhereAreHeldOrGoOn) {
  const auto lines = texts(base_table(routed(), {}), "untargeted");
  for (const std::string v : {"4", "6"}) {
    const std::string ip = v == "4" ? "ip" : "ip6";
    const auto hold = at(lines, ip + " saddr . " + ip + " daddr . meta l4proto . th dport @hold" +
                                    v + " counter name c_held drop");
    const auto goes_on = at(lines, "iifgroup 77 " + ip + " daddr @remote" + v + " accept");
    const auto reply =
        at(lines, "iifgroup 77 ct direction reply " + ip + " daddr @remote" + v + " accept");
    EXPECT_LT(reply, hold);
    EXPECT_LT(hold, goes_on);
    EXPECT_THAT(lines, Contains(ip + " saddr @remote" + v + " counter name c_held drop"));
  }
  EXPECT_EQ(lines.back(), "goto refuse");
}

TEST(TrunkRulesTest, NothingOfTheNodeIsForContainersElsewhere) {
  const auto table = base_table(tunnelled(), {});
  const auto input = texts(table, "inp");
  EXPECT_THAT(input, Contains("iifname @trunk ip saddr @mesh4 jump inp_t"));
  EXPECT_THAT(input, Contains("iifname @trunk ip6 saddr @mesh6 counter name c_host drop"));
  EXPECT_THAT(input, Contains("iifgroup 78 jump inp_t"));
  EXPECT_THAT(texts(table, "inp_t"),
              ElementsAre("ct direction reply ct state established,related accept",
                          "counter name c_host", "goto refuse"));
  const auto output = texts(table, "outp_c");
  EXPECT_LT(at(output, "ip daddr @remote4 meta skuid @users goto refuse"),
            at(output, "meta skuid @users accept"));
}

}  // namespace
}  // namespace meshd::policy
