// The node under random commands, random faults and kills at any moment: what it told its
// callers is true afterwards, whatever came between.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "tests/support/node_fixture.h"

namespace meshd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Call = FakeKernel::Call;

class NodeChurnTest : public NodeFixture, public testing::WithParamInterface<unsigned> {
 protected:
  static constexpr int kWorkloads = 8;
  static constexpr int kSteps = 400;

  unsigned draw(unsigned below) {
    return std::uniform_int_distribution<unsigned>(0, below - 1)(random_);
  }
  static std::string id(unsigned n) { return "w" + std::to_string(n); }

  std::string declaration(unsigned n) {
    std::string yaml = "workloads: [{id: " + id(n) + ", owner: ada, workflow: wf1";
    if (draw(2) == 0) yaml += ", name: s" + std::to_string(draw(3));
    if (draw(3) != 0) yaml += ", serves: [{port: 80}, {port: 1000, end_port: 1020}]";
    if (draw(2) == 0) yaml += ", peers: [{name: s" + std::to_string(draw(3)) + "}]";
    if (draw(2) == 0) yaml += ", publish: [{port: 8080, allow_from: [192.0.2.0/24]}]";
    if (draw(3) == 0) yaml += ", egress: [{cidr: 198.51.100.0/24}]";
    return yaml + "}]";
  }

  void break_something() {
    constexpr Call kCalls[] = {Call::kConnect, Call::kDisconnect, Call::kCommit, Call::kConverge,
                               Call::kAudit,   Call::kListening,  Call::kErase};
    kernel_.fail_next(kCalls[draw(std::size(kCalls))], 1 + static_cast<int>(draw(4)));
  }

  // One command or event. What was answered with OK is remembered.
  void step() {
    const auto n = draw(kWorkloads);
    switch (draw(12)) {
      case 0:
      case 1:
      case 2:
        note(id(n), apply(declaration(n)));
        break;
      case 3:
      case 4:
        note(id(n), attach(id(n)));
        break;
      case 5:
        note(id(n), detach(id(n)));
        break;
      case 6:
        note(id(n), remove(id(n), draw(2) == 0), /*may_be_half=*/true);
        break;
      case 7:
        note(id(n), drain(id(n)));
        break;
      case 8:
        if (attached(id(n))) listens(id(n), 80);
        break;
      case 9:
        if (attached(id(n))) {  // the container ends
          const auto link = attachment(id(n)).host_ifname;
          kernel_.lose_link(link);
          node_->on_link_gone(link, now_);
          collect();
          std::erase_if(pending_, [&](const auto& entry) { return entry.first == id(n); });
          told_.erase(id(n));
        }
        break;
      case 10:
        break_something();
        break;
      default:
        pass(milliseconds(draw(2000)));
    }
  }

  void check_no_address_twice() {
    std::set<std::string> links;
    std::set<IpAddress> addresses;
    for (const auto& [name, workload] : node_->world().workloads) {
      if (!workload.attachment) continue;
      EXPECT_TRUE(links.insert(workload.attachment->host_ifname).second);
      EXPECT_TRUE(addresses.insert(*workload.attachment->v4).second);
      EXPECT_TRUE(addresses.insert(*workload.attachment->v6).second);
    }
  }

  // What every acknowledged command left holds in the process that lives now.
  void check_promises() {
    collect();
    for (const auto& [name, facts] : told_) EXPECT_EQ(facts_of(name), facts) << name;
  }
  // The callers of a killed process hear nothing.
  void collect_and_forget_pending() {
    collect();
    pending_.clear();
  }

 private:
  struct Facts {
    bool declared = false, draining = false;
    policy::Declaration declaration;
    std::optional<IpAddress> v4;
    bool operator==(const Facts&) const = default;
    friend std::ostream& operator<<(std::ostream& out, const Facts& f) {
      return out << (f.declared ? "declared" : "unknown") << (f.draining ? ", draining" : "")
                 << ", at " << (f.v4 ? f.v4->to_string() : "none") << ", name "
                 << f.declaration.name;
    }
  };

  [[nodiscard]] Facts facts_of(const std::string& name) const {
    const auto found = node_->world().workloads.find(name);
    if (found == node_->world().workloads.end()) return {};
    const auto& workload = found->second;
    Facts facts{true, workload.draining, workload.declaration, std::nullopt};
    if (workload.attachment) facts.v4 = workload.attachment->v4;
    return facts;
  }

  // A refusal changed nothing: what was told before still holds. (A forced delete detaches
  // first, and may have got that far.) While an answer is out, nothing is promised.
  void note(const std::string& name, Answer answer, bool may_be_half = false) {
    collect();
    const bool refused =
        answer->has_value() && !**answer && (**answer).error().code != ErrorCode::kNotInForce;
    if (refused && !may_be_half) return;
    told_.erase(name);
    pending_.emplace_back(name, std::move(answer));
    collect();
  }

  // With the facts of the moment: a later command on the same workload is noted later.
  void collect() {
    std::erase_if(pending_, [this](const auto& entry) {
      const auto& [name, answer] = entry;
      if (!answer->has_value()) return false;
      if (**answer) told_[name] = facts_of(name);
      return true;
    });
  }

  std::mt19937 random_{GetParam()};
  std::map<std::string, Facts> told_;
  std::vector<std::pair<std::string, Answer>> pending_;
};

TEST_P(NodeChurnTest, EndsWhereItSaidItWould) {
  for (int i = 0; i < kSteps; ++i) {
    SCOPED_TRACE("step " + std::to_string(i));
    step();
    check_no_address_twice();
    if (draw(25) == 0) {  // kill -9; a fault may still be there
      collect_and_forget_pending();
      start();
      check_promises();
      kernel_.work_again();
      ASSERT_TRUE(node_->converge(now_));
      check_promises();
      expect_kernel_is_as_planned();
    }
    if (HasFailure()) return;
  }
  kernel_.work_again();
  pass(seconds(20));
  node_->on_audit(now_);  // sweeps links that could not be removed at once
  EXPECT_EQ(node_->behind(), "");
  check_promises();
  expect_kernel_is_as_planned();
  const int writes = kernel_.writes();
  const auto planned = elements_planned();
  restart();
  EXPECT_EQ(kernel_.writes(), writes) << "a restart with all in place";
  EXPECT_EQ(elements_planned(), planned);
}

INSTANTIATE_TEST_SUITE_P(Seeds, NodeChurnTest, testing::Range(1U, 13U));

}  // namespace
}  // namespace meshd
