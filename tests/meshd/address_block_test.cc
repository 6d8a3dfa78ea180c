// A node of a cluster gives its containers addresses of its own share of the pools, and knows
// those of others.
#include <gtest/gtest.h>

#include <set>

#include "meshd/addressing.h"

namespace meshd {
namespace {

class AddressBlockTest : public testing::Test {
 protected:
  AddressBlockTest() {
    settings().pool4 = Prefix::parse("10.213.0.0/16").value();
    settings().pool6 = Prefix::parse("fd00::/64").value();
    settings().vip_pool4 = Prefix::parse("10.214.0.0/16").value();
    settings().block4 = Prefix::parse("10.213.16.0/29").value();
    settings().block6 = Prefix::parse("fd00::1:0/112").value();
  }
  policy::Settings& settings() { return world_.settings; }
  void attach(std::uint64_t last) {
    const auto made = allocate(world_, {}, last);
    ASSERT_TRUE(made) << made.error().what;
    auto& workload = world_.workloads[made->v4->to_string()];
    workload.declaration.id = made->v4->to_string();
    workload.attachment = *made;
    links_.insert(made->host_ifname);
  }

  policy::World world_;
  std::set<std::string> links_;
};

TEST_F(AddressBlockTest, AddressesAreOfTheBlock) {
  EXPECT_EQ(pool_size(settings()), 7U) << "the smaller one of the two";
  for (std::uint64_t last = 0; last < 6; ++last) attach(last);
  ASSERT_EQ(links_.size(), 6U);
  std::set<std::uint64_t> numbers;
  for (const auto& [id, workload] : world_.workloads) {
    const auto& attachment = *workload.attachment;
    EXPECT_TRUE(settings().block4->contains(*attachment.v4)) << id;
    EXPECT_TRUE(settings().block6->contains(*attachment.v6)) << id;
    numbers.insert(index_of(settings(), attachment));
  }
  EXPECT_EQ(numbers, (std::set<std::uint64_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_FALSE(allocate(world_, {}, 3)) << "the block is full";
  settings().block4.reset();
  settings().block6.reset();
  EXPECT_EQ(pool_size(settings()), 65535U);
}

TEST_F(AddressBlockTest, FamilyThatIsOffHasNoBlock) {
  settings().pool6.reset();
  const auto made = allocate(world_, {}, 0);
  ASSERT_TRUE(made);
  EXPECT_EQ(made->v4->to_string(), "10.213.16.1");
  EXPECT_FALSE(made->v6);
}

// A replica that is elsewhere and merely not ready keeps the connections that it has answered.
TEST_F(AddressBlockTest, EndpointsElsewhereAreKnown) {
  const auto vip = IpAddress::parse("10.214.0.1").value();
  const auto there = IpAddress::parse("10.213.32.1").value();
  world_.services[{policy::Scope::kCluster, {}, "db"}].vip4 = vip;
  auto& workload = world_.workloads["s"];
  workload.declaration.id = "s";
  workload.declaration.name = "db";
  workload.declaration.scope = policy::Scope::kCluster;
  workload.declaration.serves = {{{Proto::kTcp, 80, 80}, {}}};
  workload.remote = policy::Remote{"n2", there, {}};
  policy::Delta delta;
  delta.remove = {policy::ElementBuilder(policy::SetId::kVip4)
                      .addr(vip)
                      .proto(Proto::kTcp)
                      .port(80)
                      .number(0)
                      .data()
                      .addr(there)
                      .build()};
  const auto erased = [&] {
    EraseRequest erase;
    note_translations(world_, delta, [](const auto&) { return false; }, erase);
    return erase.translations;
  };
  ASSERT_EQ(erased().size(), 1U);
  EXPECT_TRUE(erased()[0].only_unanswered);
  const policy::LiveConnection live{Proto::kTcp, there, vip, 80, there, 80};
  EXPECT_FALSE(outlived(world_, {})(live));
  workload.declaration.serves.clear();
  ASSERT_EQ(erased().size(), 1U);
  EXPECT_FALSE(erased()[0].only_unanswered);
  EXPECT_TRUE(outlived(world_, {})(live));
  workload.remote.reset();
  EXPECT_TRUE(outlived(world_, {})(live)) << "nobody has that address any more";
}

}  // namespace
}  // namespace meshd
