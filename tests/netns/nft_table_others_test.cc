// A table that others may want as well: whose it is, who may change it, and reading it meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/nft_table.h"

namespace meshd::netlink {
namespace {

using ::testing::HasSubstr;

class NftTableOthersTest : public test::NftTable {};

TEST_F(NftTableOthersTest, OwnedTableRefusesOthersAndGoesWithItsSocket) {
  load(kTableOwner);
  EXPECT_EQ(dump().owner, socket_->port_id());
  EXPECT_THAT(test::output_of("nft add chain inet t foreign"),
              HasSubstr("Operation not permitted"));
  EXPECT_EQ(test::output_of("nft flush ruleset"), "");
  EXPECT_FALSE(dump().rules.empty());
  socket_.reset();
  EXPECT_EQ(test::output_of("nft list ruleset"), "");
}

TEST_F(NftTableOthersTest, PersistentTableOutlivesItsOwnerAndIsClaimedAgain) {
  NftBatch probe("t");
  ASSERT_TRUE(probe.put_table(kTableOwner | kTablePersist));
  if (!std::move(probe).check(*socket_)) {  // before kernel 6.9: not a table with half its flags
    NftBatch batch("t");
    ASSERT_TRUE(batch.put_table(kTableOwner | kTablePersist));
    EXPECT_FALSE(std::move(batch).commit(*socket_));
    EXPECT_EQ(test::output_of("nft list ruleset"), "");
    return;
  }
  load(kTableOwner | kTablePersist);
  socket_.reset();
  auto opened = Socket::open();
  ASSERT_TRUE(opened);
  socket_.emplace(*std::move(opened));
  auto orphan = dump();
  EXPECT_EQ(orphan.owner, 0U);
  EXPECT_EQ(orphan.rules.size(), test::sample_rules().size());
  NftBatch claim("t");
  ASSERT_TRUE(claim.put_table(kTableOwner | kTablePersist));
  ASSERT_TRUE(std::move(claim).commit(*socket_));
  EXPECT_EQ(dump().owner, socket_->port_id());
  EXPECT_THAT(test::output_of("nft delete table inet t"), HasSubstr("Operation not permitted"));
}

// Puts an element into two sets by one transaction and takes both away by the next, over
// and over, in a process of its own. Returns its pid.
pid_t start_writer(const SetSpec& first, const SetSpec& last, int transactions) {
  const pid_t child = fork();
  if (child != 0) return child;
  const Bytes flow = test::flow_key(1, 2, 6, 80), user = host_bytes(1000);
  auto socket = Socket::open();
  for (int i = 0; socket && i < transactions; ++i) {
    NftBatch batch("t");
    const std::vector<ElementView> a = {{.key = flow}}, b = {{.key = user}};
    const bool put = i % 2 == 0;
    const auto one = put ? batch.put_elements(first, a) : batch.del_elements(first, a);
    const auto two = put ? batch.put_elements(last, b) : batch.del_elements(last, b);
    if (!one || !two || !std::move(batch).commit(*socket)) _exit(1);
  }
  _exit(0);
}

TEST_F(NftTableOthersTest, DumpWhileOthersWriteIsOfOneGeneration) {
  load();
  const pid_t writer = start_writer(test::flow_set(), sample_set("users"), 20'000);
  ASSERT_GT(writer, 0);
  int status = 0, reads = 0;
  while (waitpid(writer, &status, WNOHANG) == 0) {
    const auto read = NftDump::read(*socket_, "t");
    if (!read) {
      ASSERT_EQ(read.error().sys_errno, EAGAIN) << read.error().what;
      continue;
    }
    ++reads;
    ASSERT_EQ(read->find_set("allow4")->elements.size(), read->find_set("users")->elements.size());
  }
  EXPECT_EQ(status, 0);
  RecordProperty("reads", reads);
  EXPECT_TRUE(NftDump::read(*socket_, "t"));
}

TEST_F(NftTableOthersTest, WithoutPrivilegeCommitIsRefusedAndSaysSo) {
  load();
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[2] = {};
  ASSERT_EQ(syscall(SYS_capset, &header, none), 0);
  auto plain = Socket::open();
  ASSERT_TRUE(plain);
  NftBatch batch("t");
  ASSERT_TRUE(batch.flush_rules());
  const auto refused = std::move(batch).commit(*plain);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().sys_errno, EPERM);
  EXPECT_FALSE(outcome_unknown(refused.error()));
}

}  // namespace
}  // namespace meshd::netlink
