// Names: what a container is told of its refusals lives no longer than the container.
#include "meshd/names.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "dns/name.h"

namespace meshd {
namespace {

constexpr std::uint16_t kTypeA = 1, kTypeTxt = 16, kTypeSrv = 33;

class NamesTest : public testing::Test {
 protected:
  static dns::ZoneSettings zone() {
    dns::ZoneSettings settings;
    settings.zone = dns::to_wire("mesh.internal").value();
    return settings;
  }
  static IpAddress address(int number) {
    return IpAddress::parse(fmt::format("10.213.{}.{}", number / 256, number % 256)).value();
  }
  void attach(const std::string& client, const IpAddress& at) {
    auto plan = std::make_shared<policy::ViewPlan>();
    plan->client = client;
    plan->addresses = {at};
    NameChanges changes;
    changes.merge({plan}, {});
    names_.publish(std::move(changes));
  }
  void detach(const IpAddress& at) {
    NameChanges changes;
    changes.merge({}, {at});
    names_.publish(std::move(changes));
  }
  [[nodiscard]] std::vector<std::string> why(const IpAddress& at) const {
    std::vector<std::string> lines;
    for (const auto& record : names_.resolve(at, "why.mesh.internal", kTypeTxt).answers) {
      lines.push_back(record.data);
    }
    return lines;
  }
  Names names_{zone()};
};

TEST_F(NamesTest, WhyFollowsTheClientToEveryAddress) {
  attach("a", address(1));
  attach("a", address(2));
  names_.set_why("a", {"db: no"});
  EXPECT_EQ(why(address(1)).size(), 1U);
  EXPECT_EQ(why(address(2)), why(address(1)));
  detach(address(1));
  EXPECT_EQ(why(address(2)).size(), 1U);
}

TEST_F(NamesTest, AnIdThatIsUsedAgainInheritsNoRefusals) {
  attach("a", address(1));
  names_.set_why("a", {"db: no"});
  detach(address(1));
  attach("a", address(2));
  EXPECT_TRUE(why(address(2)).empty());
}

TEST_F(NamesTest, AnAddressThatIsUsedAgainInheritsNoRefusals) {
  attach("a", address(1));
  names_.set_why("a", {"db: no"});
  attach("b", address(1));
  EXPECT_TRUE(why(address(1)).empty());
  names_.set_why("a", {"db: no"});
  attach("a", address(2));
  EXPECT_TRUE(why(address(2)).empty());
}

TEST_F(NamesTest, EveryNameOfAStaleNodeIsMarked) {
  auto plan = std::make_shared<policy::ViewPlan>();
  plan->client = "a";
  plan->addresses = {address(1)};
  for (const bool stale : {true, false}) {
    const std::string label = stale ? "lost" : "here";
    plan->names.push_back({label + ".svc.mesh.internal",
                           {label},
                           address(2),
                           {},
                           {{"sql", Proto::kTcp, 5432}},
                           stale});
  }
  NameChanges changes;
  changes.merge({plan}, {});
  names_.publish(std::move(changes));
  const auto mark = [&](const std::string& name, std::uint16_t type) {
    const auto resolved = names_.resolve(address(1), name, type);
    EXPECT_EQ(resolved.answers.size(), 1U) << name;
    return resolved.ede;
  };
  for (const std::string end : {".svc.mesh.internal", ""}) {
    EXPECT_EQ(mark("lost" + end, kTypeA), "Stale Answer");
    EXPECT_EQ(mark("here" + end, kTypeA), "");
  }
  EXPECT_EQ(mark("_sql._tcp.lost.svc.mesh.internal", kTypeSrv), "Stale Answer");
  EXPECT_EQ(mark("_sql._tcp.here.svc.mesh.internal", kTypeSrv), "");
}

TEST_F(NamesTest, NothingIsKeptOfTenThousandThatCameAndWent) {
  for (int i = 0; i < 10'000; ++i) {
    const auto id = fmt::format("c{}", i);
    attach(id, address(i % 250 + 1));
    names_.set_why(id, {"db: no"});
    detach(address(i % 250 + 1));
    names_.set_why(id, {"said too late"});
  }
  for (int i = 0; i < 10'000; ++i) {
    attach(fmt::format("c{}", i), address(1));
    ASSERT_TRUE(why(address(1)).empty()) << i;
  }
}

}  // namespace
}  // namespace meshd
