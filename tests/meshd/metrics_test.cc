// The text that a monitor reads of a node.
#include "meshd/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <sstream>

namespace meshd {
namespace {

using testing::HasSubstr;
using testing::Not;

NodeMetrics sample() {
  NodeMetrics m;
  m.version = "0.1.0";
  m.node = "n1";
  m.counts.commands[{"attach", "done"}] = 3;
  m.counts.commands[{"attach", "not_found"}] = 1;
  m.workloads = {{"declared", 1}, {"ready", 2}};
  m.dropped = {{"c_refused", 7}};
  m.dns.queries = 5;
  m.dns.answers[0] = 3;
  m.dns.answers[3] = 2;
  m.dns.answers[9] = 1;
  m.generations = {4, 3, 2, 1};
  m.behind = true;
  return m;
}

TEST(NodeMetricsTest, SaysWhatIsTrue) {
  const auto text = render(sample());
  for (const auto* line :
       {"meshd_info{version=\"0.1.0\",node=\"n1\"} 1\n",
        "meshd_commands_total{command=\"attach\",outcome=\"done\"} 3\n",
        "meshd_commands_total{command=\"attach\",outcome=\"not_found\"} 1\n",
        "meshd_workloads{state=\"ready\"} 2\n",
        "meshd_dropped_packets_total{counter=\"c_refused\"} 7\n",
        "meshd_dns_answers_total{rcode=\"NOERROR\"} 3\n",
        "meshd_dns_answers_total{rcode=\"NXDOMAIN\"} 2\n",
        "meshd_dns_answers_total{rcode=\"9\"} 1\n", "meshd_generation{stage=\"stored\"} 4\n",
        "meshd_generation{stage=\"named\"} 1\n", "meshd_behind 1\n", "meshd_healthy 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(NodeMetricsTest, OfAClusterOnlyWhereThereIsOne) {
  auto m = sample();
  EXPECT_THAT(render(m), Not(HasSubstr("meshd_controller_connected")));
  m.cluster = ClusterCounts{.connected = true, .sessions = 2, .revision = 9};
  EXPECT_THAT(render(m), HasSubstr("meshd_controller_connected 1\n"));
  EXPECT_THAT(render(m), HasSubstr("meshd_slice_revision 9\n"));
}

// A family that stood in two places would be refused whole.
TEST(NodeMetricsTest, EachFamilyStandsOnce) {
  auto m = sample();
  m.cluster.emplace();
  std::istringstream lines(render(m));
  std::set<std::string> families;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("# TYPE ")) continue;
    EXPECT_TRUE(families.insert(line).second) << line;
  }
  EXPECT_GT(families.size(), 20U);
}

TEST(NodeMetricsTest, EveryOutcomeHasAWord) {
  EXPECT_EQ(metrics::outcome_word({}), "done");
  std::set<std::string> words;
  for (const auto code :
       {ErrorCode::kInvalid, ErrorCode::kNotFound, ErrorCode::kConflict, ErrorCode::kUnsupported,
        ErrorCode::kExhausted, ErrorCode::kSystem, ErrorCode::kNotInForce, ErrorCode::kInternal}) {
    EXPECT_TRUE(words.insert(metrics::outcome_word(fail(code, "why"))).second);
  }
}

}  // namespace
}  // namespace meshd
