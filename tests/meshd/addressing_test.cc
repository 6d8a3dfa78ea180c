// Which open connections a change of VIPs cuts: those to who is that service on that port no
// more, and nobody else's.
#include "meshd/addressing.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/node_fixture.h"

namespace meshd {
namespace {

class TranslationsTest : public NodeFixture {
 protected:
  static std::string workload(std::string_view id, std::string_view rest) {
    return fmt::format("workloads: [{{id: {}, owner: ada, workflow: wf1, {}}}]", id, rest);
  }
  void run(std::string_view id, std::string_view rest) {
    apply(workload(id, rest));
    attach(std::string(id));
  }
  // "tcp 8000-8015 to a", of IPv4, since the last call.
  std::vector<std::string> cut() {
    std::vector<std::string> lines;
    for (const auto& request : std::exchange(kernel_.erased, {})) {
      for (const auto& t : request.translations) {
        if (!t.from.is_v4()) continue;
        for (const auto& [id, declared] : node_->world().workloads) {
          if (!declared.attachment || declared.attachment->v4 != t.to) continue;
          lines.push_back(fmt::format("{} {}-{} to {}{}", proto_name(t.proto), t.first, t.last, id,
                                      t.only_unanswered ? ", unanswered" : ""));
        }
      }
    }
    return lines;
  }
};

using testing::ElementsAre;
using testing::IsEmpty;

TEST_F(TranslationsTest, BlockThatBecomesSinglePortsCutsOnlyWhatIsServedNoMore) {
  run("a", "name: db, serves: [{port: 8000, end_port: 8015}]");
  apply(workload("a",
                 "name: db, serves: [{port: 8000, end_port: 8010}, "
                 "{port: 8012, end_port: 8014}]"));
  EXPECT_THAT(cut(), ElementsAre("tcp 8000-8010 to a, unanswered", "tcp 8011-8011 to a",
                                 "tcp 8012-8014 to a, unanswered", "tcp 8015-8015 to a"));
}

TEST_F(TranslationsTest, SinglePortThatIsLeftToABlockCutsOnlyWhoGaveItUp) {
  run("a", "name: db, serves: [{port: 8000, end_port: 8015}]");
  run("b", "name: db, serves: [{port: 8004, end_port: 8005}]");
  apply(workload("b", "name: db, serves: [{port: 8004}]"));
  EXPECT_THAT(cut(), ElementsAre("tcp 8004-8004 to b, unanswered", "tcp 8005-8005 to a, unanswered",
                                 "tcp 8005-8005 to b"));
}

TEST_F(TranslationsTest, PortThatIsNotSeenReadyYetKeepsItsConnections) {
  run("a", "name: db, serves: [{port: 8000, end_port: 8015}]");
  apply(workload("a", "name: db, serves: [{port: 8000}, {port: 8001, end_port: 8015}]"));
  EXPECT_EQ(kernel_.count(policy::SetId::kVip4), 15 * policy::kSlots);
  EXPECT_THAT(cut(), ElementsAre("tcp 8000-8015 to a, unanswered"));
  listens("a", 8000);
  EXPECT_EQ(kernel_.count(policy::SetId::kVip4), 16 * policy::kSlots);
  EXPECT_THAT(cut(), IsEmpty());
}

TEST_F(TranslationsTest, WhoLeavesTheServiceIsCut) {
  run("a", "name: db, serves: [{port: 53, protocol: UDP}]");
  run("b", "name: db, serves: [{port: 53, protocol: UDP}]");
  apply(workload("a", "name: other, serves: [{port: 53, protocol: UDP}]"));
  EXPECT_THAT(cut(), ElementsAre("udp 53-53 to a"));
  drain("b");
  EXPECT_THAT(cut(), ElementsAre("udp 53-53 to b, unanswered"));
}

}  // namespace
}  // namespace meshd
