// A plan that follows thousands of random changes is the plan made from nothing, its deltas
// add up to it, and its flows are those of the oracle.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/oracle.h"
#include "tests/support/policy_world.h"
#include "tests/support/random_declarations.h"

namespace meshd::policy {
namespace {

using namespace std::chrono_literals;

class ChurnTest : public testing::TestWithParam<unsigned> {
 protected:
  ChurnTest() { follow(compiler_.rebuild(w_.world)); }

  unsigned draw(unsigned below) { return random_.draw(below); }

  std::optional<std::string> anybody() {
    if (w_.world.workloads.empty()) return std::nullopt;
    auto at = w_.world.workloads.begin();
    std::advance(at, draw(static_cast<unsigned>(w_.world.workloads.size())));
    return at->first;
  }

  Touched step() {
    const auto somebody = anybody();
    const auto action = draw(10);
    if (!somebody || action < 3) return redeclare(std::string("w") + std::to_string(draw(8)));
    auto& workload = w_.workload(*somebody);
    if (action == 3) {
      w_.world.now += std::chrono::seconds(draw(60));
      return compiler_.due(w_.world.now);
    }
    if (!workload.attachment) return action < 6 ? w_.forget(*somebody) : w_.attach(*somebody);
    if (action < 5) return w_.detach(*somebody);
    if (action == 5) return w_.drain(*somebody);
    return w_.listens(*somebody, draw(2) == 0 ? 80 : 81, {draw(3) == 0, draw(3) != 0});
  }

  // Refused declarations change nothing, and nothing is touched.
  Touched redeclare(const std::string& id) {
    const auto text = random_.declaration(id);
    if (!w_.plan(text)) return {};
    ++taken_;
    return w_.apply(text);
  }

  void follow(const PlanDelta& delta) {
    for (const auto& element : delta.elements.remove) EXPECT_EQ(mirror_.erase(element), 1U);
    for (const auto& element : delta.elements.add) EXPECT_TRUE(mirror_.insert(element).second);
    for (const auto& address : delta.views_gone) EXPECT_EQ(views_.erase(address), 1U);
    for (const auto& view : delta.views) {
      for (const auto& address : view->addresses) views_[address] = view;
    }
  }

  void check_against_plan_from_nothing() const {
    Compiler fresh;
    [[maybe_unused]] const auto all = fresh.rebuild(w_.world);
    const auto elements = fresh.elements();
    EXPECT_EQ(PolicyWorld::texts(compiler_.elements()), PolicyWorld::texts(elements));
    EXPECT_TRUE(std::ranges::equal(mirror_, elements)) << "the deltas add up to something else";
    EXPECT_EQ(compiler_.next_deadline(), fresh.next_deadline());
    std::size_t addresses = 0;
    for (const auto& view : fresh.views()) {
      for (const auto& address : view->addresses) {
        ++addresses;
        const auto known = views_.find(address);
        ASSERT_NE(known, views_.end()) << view->client;
        EXPECT_EQ(*known->second, *view) << view->client;
      }
    }
    EXPECT_EQ(views_.size(), addresses);
    std::map<SetId, std::size_t> counts;
    for (const auto& element : elements) ++counts[element.set];
    for (const auto& [set, count] : counts) EXPECT_EQ(compiler_.element_count(set), count);
    for (std::size_t i = 0; i < kSetCount; ++i) {
      const auto set = static_cast<SetId>(i);
      EXPECT_EQ(compiler_.worst_case_count(set), fresh.worst_case_count(set)) << set_name(set);
      EXPECT_GE(compiler_.worst_case_count(set), compiler_.element_count(set)) << set_name(set);
    }
  }

  // The worst cases are what comes when everything is ready, and when everything goes: as
  // large as promised, and no larger.
  void check_worst_cases() const {
    PolicyWorld all_ready = w_, all_gone = w_;
    for (auto& [id, workload] : all_ready.world.workloads) {
      workload.draining = false;
      for (const auto port : {std::uint16_t{80}, std::uint16_t{81}})
        workload.tcp_ready[port] = {true, true};
    }
    for (auto& [id, workload] : all_gone.world.workloads) workload.draining = true;
    for (auto& [key, service] : all_gone.world.services) {
      service.endpoint_lost_at = all_gone.world.now;
    }
    const auto count = [](const World& world, SetId set) {
      Compiler compiler;
      [[maybe_unused]] const auto all = compiler.rebuild(world);
      return compiler.element_count(set);
    };
    for (const auto set : {SetId::kVip4, SetId::kVip6, SetId::kVip4Block, SetId::kVip6Block}) {
      EXPECT_EQ(compiler_.worst_case_count(set), count(all_ready.world, set)) << set_name(set);
    }
    for (const auto set : {SetId::kHold4, SetId::kHold6, SetId::kHold4Block, SetId::kHold6Block}) {
      EXPECT_EQ(compiler_.worst_case_count(set), count(all_gone.world, set)) << set_name(set);
    }
  }

  [[nodiscard]] bool allowed(const IpAddress& from, const IpAddress& to, Proto proto,
                             int port) const {
    const bool v4 = from.is_v4();
    return has(v4 ? SetId::kAllow4 : SetId::kAllow6, from, to, proto, port) ||
           has(v4 ? SetId::kAllow4Block : SetId::kAllow6Block, from, to, proto,
               port / kBlock * kBlock);
  }
  [[nodiscard]] bool has(SetId set, const IpAddress& from, const IpAddress& to, Proto proto,
                         int port) const {
    return compiler_.contains(ElementBuilder(set)
                                  .addr(from)
                                  .addr(to)
                                  .proto(proto)
                                  .port(static_cast<std::uint16_t>(port))
                                  .build());
  }

  void check_flows() {
    for (const auto& [from, c] : w_.world.workloads) {
      for (const auto& [to, s] : w_.world.workloads) {
        if (!c.attachment || !s.attachment) continue;
        for (const int port : {16, 17, 29, 30, 31, 32, 47, 48, 50, 51, 79, 80, 81, 82}) {
          for (const auto proto : {Proto::kTcp, Proto::kUdp}) {
            const bool may = oracle::may_reach(c.declaration, s.declaration, proto, port);
            flows_ += may ? 1 : 0;
            EXPECT_EQ(allowed(*c.attachment->v4, *s.attachment->v4, proto, port), may);
            EXPECT_EQ(allowed(*c.attachment->v6, *s.attachment->v6, proto, port), may);
          }
        }
      }
    }
  }

  PolicyWorld w_;
  Compiler compiler_;
  std::set<Element> mirror_;
  std::map<IpAddress, std::shared_ptr<const ViewPlan>> views_;
  RandomDeclarations random_{GetParam()};
  int taken_ = 0, flows_ = 0;
};

TEST_P(ChurnTest, FollowingIsTheSameAsStartingAnew) {
  for (int i = 0; i < 400 && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    const auto touched = step();
    follow(compiler_.update(w_.world, touched));
    // Time passed for everybody, not for the touched alone.
    follow(compiler_.update(w_.world, compiler_.due(w_.world.now)));
    check_against_plan_from_nothing();
    check_flows();
    if (i % 10 == 0) check_worst_cases();
  }
  EXPECT_GT(taken_, 30);
  EXPECT_GT(flows_, 100) << "a world without flows shows nothing";
}

INSTANTIATE_TEST_SUITE_P(Seeds, ChurnTest, testing::Range(1U, 9U));

}  // namespace
}  // namespace meshd::policy
