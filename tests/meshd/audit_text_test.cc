#include "meshd/audit_text.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "base/log.h"

namespace meshd {
namespace {

using testing::ElementsAre;

policy::Declaration of(std::string id, std::string owner) {
  policy::Declaration declaration;
  declaration.id = std::move(id);
  declaration.owner = std::move(owner);
  return declaration;
}

TEST(AuditTextTest, AnApplyNamesEveryWorkloadAndItsOwner) {
  EXPECT_THAT(apply_lines({of("db", "ada"), of("worker", "bob")}),
              ElementsAre("apply db of ada, worker of bob"));
}

TEST(AuditTextTest, ALongApplyIsSeveralLinesOfWhichTheLogCutsNone) {
  std::vector<policy::Declaration> all;
  for (int i = 0; i < 1000; ++i) all.push_back(of(fmt::format("w{}", i), std::string(128, 'o')));
  std::string whole;
  for (const auto& line : apply_lines(all)) {
    EXPECT_TRUE(line.starts_with("apply w"));
    EXPECT_LT(line.size() + 1000, log::kMaxMessageBytes);
    whole += line + ",";
  }
  for (const auto& one : all)
    EXPECT_TRUE(whole.contains(fmt::format("{} of {},", one.id, one.owner)));
}

TEST(AuditTextTest, ACallerIsAUserAndAProcess) {
  EXPECT_EQ(caller_text({1000, 42}), "uid 1000 pid 42");
  EXPECT_EQ(caller_text(kUnknownCaller), "unknown caller");
}

}  // namespace
}  // namespace meshd
