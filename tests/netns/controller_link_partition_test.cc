// A node and its controller in two network namespaces, and all or half of the packets between
// them lost for a while. The controller is a process of its own: sockets belong to the namespace
// of the thread that made them, and gRPC's threads are whose they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <atomic>
#include <chrono>
#include <new>
#include <optional>
#include <string>

#include "pki/grpc_credentials.h"
#include "tests/support/fake_controller.h"
#include "tests/support/link_driver.h"
#include "tests/support/netns.h"
#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

using namespace std::chrono_literals;
using test::output_of;

constexpr const char* kController = "10.99.0.2:7443";
// Keepalive: 2 s of silence, 2 s for the answer, and one that may pass on a busy machine.
constexpr auto kNoticed = 5s;
constexpr auto kBack = 3s;
constexpr auto kSlack = 2s;  // of a machine that is busy with other things; coming back needs none

// What both processes see.
struct Board {
  std::atomic<bool> in_namespace = false, configured = false, serving = false;
  std::atomic<int> open = 0;
};

class LinkPartitionTest : public testing::Test {
 protected:
  explicit LinkPartitionTest(test::FakeController::Part part = test::FakeController::Part::kAnswer)
      : part_(part) {}
  void SetUp() override {
    const auto entered = test::PrivateNetns::enter();
    ASSERT_TRUE(entered) << entered.error().what;
    ASSERT_TRUE(pki::require_tls13());
    void* const memory =
        mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    board_ = new (memory) Board();
    child_ = fork();
    ASSERT_GE(child_, 0);
    if (child_ == 0) serve();
    ASSERT_TRUE(wait_for(board_->in_namespace));
    const auto in_child = "nsenter -t " + std::to_string(child_) + " -n ip ";
    ASSERT_EQ(output_of("ip link add v0 type veth peer name v1 netns " + std::to_string(child_)),
              "");
    ASSERT_EQ(output_of("ip addr add 10.99.0.1/24 dev v0 && ip link set v0 up"), "");
    ASSERT_EQ(output_of(in_child + "addr add 10.99.0.2/24 dev v1"), "");
    ASSERT_EQ(output_of(in_child + "link set v1 up"), "");
    board_->configured = true;
    ASSERT_TRUE(wait_for(board_->serving));
    ASSERT_EQ(output_of("nft add table inet cut"), "");
  }
  void TearDown() override {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
  }

  [[nodiscard]] LinkOptions options() const {
    const auto files = authority_.write(dir_.path(), pki::holder_of("lab", pki::Role::kNode, "n1"),
                                        pki::real_now());
    return {.node = "n1",
            .controller = {.addresses = {kController},
                           .join_file = {},
                           .authorities_file = files.authorities,
                           .identity_file = files.identity},
            .files = files};
  }

  // The node's packets are lost on the way out, in, or both, for so long.
  void lose_packets(bool out, bool in, Duration time) {
    test::LinkDriver node(options());
    ASSERT_TRUE(node.run_until_connected(10s)) << node.problem_now;
    ASSERT_TRUE(node.run_until([&] { return board_->open == 1; }));
    const auto cut = BootClock::now();
    if (out) drop("output");
    if (in) drop("input");
    std::optional<Duration> here, there;
    (void)node.run_until(
        [&] {
          if (!here && !node.is_connected) here = BootClock::now() - cut;
          if (!there && board_->open == 0) there = BootClock::now() - cut;
          return false;
        },
        time);
    ASSERT_TRUE(here) << "the node has not noticed";
    ASSERT_TRUE(there) << "the controller has not noticed";
    EXPECT_LT(*here, kNoticed + kSlack);
    EXPECT_LT(*there, kNoticed + kSlack);
    EXPECT_FALSE(node.is_connected);
    ASSERT_EQ(output_of("nft flush table inet cut"), "");
    const auto healed = BootClock::now();
    EXPECT_TRUE(node.run_until_connected(15s)) << node.problem_now;
    const auto back = BootClock::now() - healed;
    EXPECT_LT(back, kBack);
    RecordProperty("noticed_here_ms", static_cast<int>(*here / 1ms));
    RecordProperty("noticed_there_ms", static_cast<int>(*there / 1ms));
    RecordProperty("back_ms", static_cast<int>(back / 1ms));
    printf("noticed here %d ms, there %d ms; back %d ms\n", static_cast<int>(*here / 1ms),
           static_cast<int>(*there / 1ms), static_cast<int>(back / 1ms));
  }
  void thaw() const { kill(child_, SIGCONT); }

 private:
  static void drop(const std::string& hook) {
    ASSERT_EQ(output_of("nft 'add chain inet cut " + hook + " { type filter hook " + hook +
                        " priority 0; }; add rule inet cut " + hook + " drop'"),
              "");
  }
  static bool wait_for(const std::atomic<bool>& flag) {
    for (int i = 0; i < 2000 && !flag; ++i) poll(nullptr, 0, 5);
    return flag;
  }
  [[noreturn]] void serve() {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (unshare(CLONE_NEWNET) != 0) _exit(1);
    board_->in_namespace = true;
    if (!wait_for(board_->configured)) _exit(1);
    test::FakeController controller(authority_, dir_.path(),
                                    {.address = "10.99.0.2", .cluster = 7443, .join = 7444});
    controller.part = part_;
    board_->serving = true;
    while (true) {
      board_->open = controller.open.load();
      poll(nullptr, 0, 5);
    }
  }

  TempDir dir_;
  const test::FakeController::Part part_;
  const pki::SampleAuthority authority_{pki::real_now()};
  Board* board_ = nullptr;
  pid_t child_ = -1;
};

TEST_F(LinkPartitionTest, ASessionComesBackAfterEightSecondsWithoutPackets) {
  lose_packets(true, true, 8s);
}

TEST_F(LinkPartitionTest, ASessionComesBackAfterFifteenSecondsWithoutPackets) {
  lose_packets(true, true, 15s);
}

TEST_F(LinkPartitionTest, ASessionComesBackWhenOnlyTheNodesPacketsWereLost) {
  lose_packets(true, false, 9s);
}

TEST_F(LinkPartitionTest, ASessionComesBackWhenOnlyTheControllersPacketsWereLost) {
  lose_packets(false, true, 9s);
}

// Its kernel acknowledges what is sent, so that only keepalive finds it; a ping of the transport's
// own, which measures the way after a message, is then never answered either.
class FrozenControllerTest : public LinkPartitionTest {
 protected:
  FrozenControllerTest() : LinkPartitionTest(test::FakeController::Part::kFreeze) {}
};

TEST_F(FrozenControllerTest, IsLeftThoughItFrozeAmidAConversation) {
  test::LinkDriver node(options());
  ASSERT_TRUE(node.run_until_connected()) << node.problem_now;
  const auto before = node.messages.size();
  node.report(1);
  ASSERT_TRUE(node.run_until([&] { return node.messages.size() > before; }));
  const auto frozen = BootClock::now();
  ASSERT_TRUE(node.run_until_disconnected());
  EXPECT_LT(BootClock::now() - frozen, kNoticed + kSlack);
  thaw();
  EXPECT_TRUE(node.run_until_connected()) << node.problem_now;
}

}  // namespace
}  // namespace meshd
