// What a controller shows people of nodes that speak with it: events, explanations, refusals.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "controller/explain.h"
#include "controller/report.h"
#include "meshd/refusal_text.h"
#include "meshd/refusals.h"
#include "meshd/traffic.h"
#include "tests/support/cluster_nodes.h"

namespace meshd {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
namespace pb = mesh::v1;

constexpr auto kDb = "{id: db, owner: ada, workflow: r, name: db, serves: [{port: 80}]}";
constexpr auto kWorker = "{id: worker, owner: ada, workflow: r, peers: [{name: db}]}";
constexpr auto kStranger = "{id: stranger, owner: bob, workflow: q}";

class ClusterWatchTest : public ClusterNodesTest {
 protected:
  void watch() {
    controller_->tell_events([this](const pb::Event& event) {
      auto line = pb::Event::Kind::Value_Name(event.kind()) + " " + event.id();
      if (!event.peer().empty()) line += " -> " + event.peer();
      if (!event.node().empty()) line += " @" + event.node();
      events_.push_back(std::move(line));
      last_ = event;
    });
  }
  std::vector<std::string> heard() { return std::exchange(events_, {}); }

  pb::ExplainReply explained(const std::string& src, const std::string& dst,
                             std::uint32_t port = 80) {
    pb::ExplainRequest request;
    request.set_src(src);
    request.set_dst(dst);
    request.set_port(port);
    auto reply = controller::explain_reply(*controller_, request, now_.steady);
    if (reply) return *std::move(reply);
    pb::ExplainReply error;
    error.set_reason("error: " + reply.error().what);
    return error;
  }
  void tell_refused(const std::string& name, const std::string& consumer,
                    const std::string& provider, std::uint32_t port = 80, std::uint64_t count = 1) {
    pb::RefusedFlows flows;
    auto& flow = *flows.add_flows();
    flow.set_consumer(consumer);
    flow.set_provider(provider);
    flow.mutable_port()->set_port(port);
    flow.set_count(count);
    node(name).part().tell_refused(std::move(flows));
    pump();
    now_.steady += controller::kRefusedPause;
  }
  // "stranger db 80 x3: in stranger: peers".
  std::vector<std::string> refused() const {
    std::vector<std::string> lines;
    for (const auto& [pair, entry] : controller_->refused_pairs().all()) {
      lines.push_back(fmt::format("{} {} {} x{}: {}", pair.consumer, pair.provider, pair.port,
                                  entry.count, entry.missing));
    }
    return lines;
  }

  std::vector<std::string> events_;
  pb::Event last_;
};

TEST_F(ClusterWatchTest, TellsWhatHappensToContainersAndNodes) {
  watch();
  declare(kDb);
  attach("n1", "db");
  listens("n1", "db", 80);
  EXPECT_THAT(heard(), ElementsAre("DECLARED db", "ATTACHED db @n1", "READY db @n1"));
  node("n1").detach("db");
  pump();
  attach("n2", "db");
  EXPECT_THAT(heard(), ElementsAre("DETACHED db @n1", "MOVED db @n2", "ATTACHED db @n2"));
  disconnect("n1");
  pass(std::chrono::seconds(11));
  connect("n1");
  pump();
  EXPECT_THAT(heard(), ElementsAre("NODE_DOWN n1 @n1", "NODE_STALE n1 @n1", "NODE_UP n1 @n1"));
  forget("db");
  EXPECT_THAT(heard(), Contains("DELETED db @n2"));
}

TEST_F(ClusterWatchTest, TellsOfWhatAnotherControllerWasTold) {
  watch();
  auto other = controller::Controller::make(std::make_unique<controller::MemoryStore>(memory_),
                                            {.name = "c2"}, now_)
                   .value();
  auto read = policy::read_declarations("test", std::string("workloads: [") + kDb + "]").value();
  ASSERT_TRUE(
      other->declare({controller::Author::Role::kDispatcher, "d"}, std::move(read), "", now_));
  EXPECT_THAT(heard(), IsEmpty());
  controller_->on_store_notified(now_);
  EXPECT_THAT(heard(), ElementsAre("DECLARED db"));
}

TEST_F(ClusterWatchTest, NobodyIsToldWhenNobodyWatches) {
  watch();
  controller_->tell_events({});
  declare(kDb);
  attach("n1", "db");
  EXPECT_THAT(heard(), IsEmpty());
}

TEST_F(ClusterWatchTest, AFlowBetweenNodesIsHeldUntilItIsConfirmed) {
  declare(kDb);
  declare(kWorker);
  attach("n1", "db");
  listens("n1", "db", 80);
  node("n1").mute = true;  // it does not answer for the consumer
  attach("n2", "worker");
  auto held = explained("worker", "db");
  EXPECT_EQ(held.verdict(), pb::Verdict::HELD);
  EXPECT_EQ(held.reason(), "node n1 has not confirmed it yet");
  EXPECT_THAT(held.lines(), Contains("worker is on node n2"));
  EXPECT_THAT(held.lines(), Contains("db is on node n1"));
  node("n1").mute = false;
  pump();
  EXPECT_EQ(explained("worker", "db").verdict(), pb::Verdict::ALLOWED);
  EXPECT_EQ(explained("worker", "db.id.mesh.internal").verdict(), pb::Verdict::ALLOWED);
  EXPECT_EQ(explained("worker", "db", 81).reason(), "db does not serve tcp/81");
}

TEST_F(ClusterWatchTest, AnExplanationSaysWhatIsWrongWithTheNodesOnTheWay) {
  declare(kDb);
  declare(kWorker);
  attach("n1", "db");
  listens("n1", "db", 80);
  attach("n2", "worker");
  disconnect("n1");
  EXPECT_THAT(explained("worker", "db").lines(), Contains("node n1 is not connected"));
  pass(std::chrono::seconds(11));
  EXPECT_THAT(explained("worker", "db").lines(),
              Contains("node n1 is not connected, and has not been heard of for a while"));
  EXPECT_EQ(explained("worker", "db").verdict(), pb::Verdict::ALLOWED) << "its flows go on";
}

TEST_F(ClusterWatchTest, WhoIsNotReadyIsWaitedForAcrossNodes) {
  declare(kDb);
  declare(kWorker);
  attach("n2", "worker");
  EXPECT_EQ(explained("worker", "db").verdict(), pb::Verdict::HELD);
  EXPECT_THAT(explained("worker", "db").reason(), HasSubstr("held for another"));
  now_.steady += std::chrono::seconds(121);
  EXPECT_EQ(explained("worker", "db").verdict(), pb::Verdict::REFUSED);
  EXPECT_THAT(explained("worker", "db").reason(),
              HasSubstr("over, unless worker was attached less than 120 s ago"));
  EXPECT_EQ(explained("nobody", "db").reason(),
            "error: explain: nobody is no workload, service or address here");
  EXPECT_EQ(explained("worker", "db", 0).reason(), "error: explain: port: must be 1 to 65535");
}

TEST_F(ClusterWatchTest, RefusalsAreNamedCountedAndExplained) {
  declare(kDb);
  declare(kStranger);
  attach("n1", "db");
  attach("n2", "stranger");
  watch();
  // Of db that node knows no more than its address.
  tell_refused("n2", "stranger", node("n1").address("db"));
  tell_refused("n2", "stranger", node("n1").address("db", Family::kV6), 80, 2);
  EXPECT_THAT(refused(), ElementsAre("stranger db 80 x3: in stranger: peers: [{id: db}]"));
  EXPECT_THAT(heard(),
              ElementsAre("REFUSED_FLOW stranger -> db @n2", "REFUSED_FLOW stranger -> db @n2"));
  EXPECT_EQ(last_.count(), 2U);
  EXPECT_EQ(last_.missing(), "in stranger: peers: [{id: db}]");
  EXPECT_THAT(last_.detail(), HasSubstr("tcp/80: "));
  const auto vip = controller_->cluster().world().services.begin()->second.vip4->to_string();
  tell_refused("n2", "stranger", vip);
  EXPECT_THAT(refused(), Contains(HasSubstr("stranger db.r.wf.mesh.internal 80 x1")));
  EXPECT_EQ(controller_->refused_pairs().all()[0].second.owner, "bob");
}

TEST_F(ClusterWatchTest, ANodeIsBelievedOfItsOwnContainersOnly) {
  declare(kDb);
  declare(kStranger);
  attach("n1", "db");
  attach("n2", "stranger");
  tell_refused("n1", "stranger", "other");
  tell_refused("n1", "nobody", "db");
  tell_refused("n1", "", "db");
  tell_refused("n1", "stranger", "db", 70'000);
  tell_refused("n1", "stranger", "d\nb");
  tell_refused("n1", "stranger", "db", 80, 0);
  EXPECT_THAT(refused(), IsEmpty());
  EXPECT_EQ(controller_->counts().refused.at("refused_flows"), 5U) << "nobody may be gone by now";
  tell_refused("n1", "stranger", "db");
  EXPECT_EQ(refused().size(), 1U) << "the provider's node may";
  EXPECT_TRUE(node("n1").connected) << "and nobody's session ends by it";
}

TEST_F(ClusterWatchTest, TooManyAtOnceAndTooOftenAreLeftOut) {
  declare(kDb);
  declare(kStranger);
  attach("n2", "stranger");
  pb::RefusedFlows many;
  for (int i = 0; i <= controller::kMaxRefusedFlows; ++i) {
    auto& flow = *many.add_flows();
    flow.set_consumer("stranger");
    flow.set_provider("db");
    flow.mutable_port()->set_port(static_cast<std::uint32_t>(i + 1));
    flow.set_count(1);
  }
  node("n2").part().tell_refused(many);
  pump();
  EXPECT_THAT(refused(), IsEmpty());
  now_.steady += controller::kRefusedPause;
  many.mutable_flows()->RemoveLast();
  node("n2").part().tell_refused(many);
  node("n2").part().tell_refused(many);
  pump();
  EXPECT_EQ(refused().size(), policy::RefusedPairs::kPerConsumer);
  EXPECT_THAT(refused(), testing::Each(HasSubstr(" x1"))) << "the second came too soon";
  EXPECT_EQ(controller_->counts().refused.at("refused_flows"), 2U);
}

TEST_F(ClusterWatchTest, ANodeSaysWhoIsOnTheOther) {
  declare(kDb);
  declare(kWorker);
  attach("n1", "db");
  attach("n2", "worker");
  const auto& world = node("n2").process->world();
  const auto to_db = describe(world, {IpAddress::parse(node("n2").address("worker")).value(),
                                      IpAddress::parse(node("n1").address("db")).value(), 6, 81});
  EXPECT_EQ(to_db.consumer, "worker");
  EXPECT_EQ(to_db.provider, "db");
  EXPECT_EQ(to_db.detail, "tcp/81: db does not serve tcp/81 (db is on node n1)");
  EXPECT_EQ(to_db.missing, "in db: serves: [{port: 81}]");
  EXPECT_TRUE(to_db.is_pair);
  const auto at_db = describe(node("n1").process->world(),
                              {IpAddress::parse(node("n2").address("worker")).value(),
                               IpAddress::parse(node("n1").address("db")).value(), 17, 80});
  EXPECT_EQ(at_db.consumer, "worker");
  EXPECT_EQ(at_db.detail, "udp/80: db does not serve udp/80 (worker is on node n2)");
}

TEST_F(ClusterWatchTest, NodesAreAskedWhatPassesWhileSomebodyLooks) {
  auto& part = node("n1").part();
  EXPECT_LE(part.looked_until(), now_.steady);
  controller_->looking().note(now_.steady);
  pump();
  EXPECT_EQ(part.looked_until(), now_.steady + controller::kLookFor);
  pb::ToNode longer;
  longer.mutable_look()->set_for_s(1'000'000);
  part.on_message(longer, now_.steady);
  EXPECT_EQ(part.looked_until(), now_.steady + kMaxLook);
}

TEST_F(ClusterWatchTest, ThatNothingPassesIsSaidOnce) {
  auto& part = node("n1").part();
  const auto said = [&](const pb::Traffic& traffic) {
    const auto before = controller_->counts().messages;
    part.tell_traffic(traffic);
    pump();
    return controller_->counts().messages - before;
  };
  pb::Traffic some;
  some.set_over_ms(2000);
  some.add_flows()->set_consumer("worker");
  EXPECT_EQ(said({}), 0);
  EXPECT_EQ(said(some), 1);
  EXPECT_EQ(said({}), 1);
  EXPECT_EQ(said({}), 0);
}

TEST_F(ClusterWatchTest, ADismissedNodesSessionEndsAndItsContainersAreGone) {
  declare(kDb);
  attach("n1", "db");
  watch();
  ASSERT_TRUE(controller_->dismiss("n1", now_));
  pump();
  EXPECT_FALSE(node("n1").connected);
  EXPECT_FALSE(controller_->cluster().nodes().contains("n1"));
  EXPECT_EQ(controller_->cluster().placement("db"), nullptr);
  EXPECT_THAT(heard(), ElementsAre("NODE_DOWN n1 @n1", "NODE_GONE n1 @n1", "DETACHED db @n1"));
  EXPECT_TRUE(controller::is_dismissed(controller_->cluster(), "n1", "some key",
                                       pki::UtcTime(std::chrono::seconds(0))));
  EXPECT_TRUE(node("n2").connected);
}

}  // namespace
}  // namespace meshd
