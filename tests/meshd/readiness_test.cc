#include "meshd/readiness.h"

#include <gtest/gtest.h>

namespace meshd {
namespace {

using namespace std::chrono_literals;
using policy::FamilyReady;

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

policy::Workload workload() {
  policy::Workload w;
  w.declaration.serves = {{{Proto::kTcp, 5432, 5432}, ""},
                          {{Proto::kTcp, 8000, 8100}, ""},
                          {{Proto::kUdp, 53, 53}, ""}};
  w.declaration.publish.push_back(
      {Proto::kTcp, 8080, false, std::nullopt, {}, {}, {}, policy::Access::kOwner});
  w.attachment.emplace();
  w.attachment->v4 = ip("10.213.0.5");
  w.attachment->v6 = ip("fd00::5");
  return w;
}

Listening look(const std::vector<netlink::Listener>& listeners) {
  const auto w = workload();
  return judge(w.declaration, *w.attachment, listeners);
}

TEST(ReadinessTest, OnlySingleTcpPortsAreWatched) {
  EXPECT_EQ(ports_to_watch(workload().declaration), (std::vector<std::uint16_t>{5432, 8080}));
}

TEST(ReadinessTest, ListenerOnAnyAddressServesItsFamily) {
  const auto seen = look({{ip("0.0.0.0"), 5432}});
  EXPECT_EQ(seen.ready.at(5432), (FamilyReady{true, false}));
  EXPECT_TRUE(seen.problems.empty());
}

TEST(ReadinessTest, DualStackListenerServesBothAndV6OnlyServesOne) {
  EXPECT_EQ(look({{ip("::"), 5432, false}}).ready.at(5432), (FamilyReady{true, true}));
  EXPECT_EQ(look({{ip("::"), 5432, true}}).ready.at(5432), (FamilyReady{false, true}));
}

TEST(ReadinessTest, ListenerOnLoopbackOnlyIsAProblemNotReadiness) {
  const auto seen = look({{ip("127.0.0.1"), 5432}});
  EXPECT_TRUE(seen.ready.empty());
  ASSERT_EQ(seen.problems.size(), 1U);
  EXPECT_EQ(seen.problems.front(), "5432/tcp listens on 127.0.0.1 only");
}

TEST(ReadinessTest, LoopbackBesideARealListenerIsNoProblem) {
  const auto seen = look({{ip("127.0.0.1"), 5432}, {ip("10.213.0.5"), 5432}});
  EXPECT_TRUE(seen.ready.at(5432).v4);
  EXPECT_TRUE(seen.problems.empty());
}

TEST(ReadinessTest, ReadyWhenEveryWatchedPortListensOnSomeFamily) {
  auto w = workload();
  EXPECT_FALSE(is_ready(w));
  w.tcp_ready[5432] = {true, false};
  EXPECT_FALSE(is_ready(w));
  w.tcp_ready[8080] = {false, true};
  EXPECT_TRUE(is_ready(w));
  EXPECT_TRUE(worth_watching(w));  // each could still get its other family
  w.tcp_ready[5432] = w.tcp_ready[8080] = {true, true};
  EXPECT_FALSE(worth_watching(w));
  w.attachment.reset();
  EXPECT_FALSE(is_ready(w));
}

TEST(ReadinessTest, NoneIsReadyAtAttachAndHttpWaitsForItsProbeAlone) {
  auto w = workload();
  w.declaration.ready = policy::ReadyMode::kNone;
  EXPECT_TRUE(is_ready(w));
  w.declaration.ready = policy::ReadyMode::kHttp;
  w.declaration.ready_http_port = 8080;
  EXPECT_FALSE(is_ready(w));
  w.tcp_ready[8080] = {true, false};
  EXPECT_TRUE(is_ready(w));
}

// The other family's failure is no problem of one that is served.
TEST(ReadinessTest, HttpFamiliesAreToldAsOneLook) {
  HttpLook look;
  look.begin();
  look.begin();
  EXPECT_FALSE(look.end(Family::kV6, 80, "connect: refused")) << "the other may still be there";
  const auto seen = look.end(Family::kV4, 80, "");
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->ready.at(80), (policy::FamilyReady{true, false}));
  EXPECT_TRUE(seen->problems.empty());
  EXPECT_TRUE(look.over());
}

TEST(ReadinessTest, HttpIsReadyAtOnceWhateverTheOtherFamilySays) {
  HttpLook look;
  look.begin();
  look.begin();
  ASSERT_TRUE(look.end(Family::kV6, 80, ""));
  EXPECT_FALSE(look.over());
  EXPECT_FALSE(look.end(Family::kV4, 80, "answered 503"));
  EXPECT_TRUE(look.over());
}

TEST(ReadinessTest, HttpProblemsOfAllFamiliesAreToldTogether) {
  HttpLook look;
  look.begin();
  look.begin();
  EXPECT_FALSE(look.end(Family::kV4, 80, "answered 503"));
  const auto seen = look.end(Family::kV6, 80, "connect: refused");
  ASSERT_TRUE(seen);
  EXPECT_TRUE(seen->ready.empty());
  EXPECT_EQ(seen->problems, (std::vector<std::string>{"answered 503", "connect: refused"}));
}

TEST(ReadinessTest, LooksSlowDownWithTime) {
  Duration every = kLookFirst;
  for (int i = 0; i < 20; ++i) every = next_look(false, {}, every);
  EXPECT_EQ(every, Duration(kLookLast));
  EXPECT_EQ(next_look(true, 1s, every), Duration(kLookSettling));
  EXPECT_EQ(next_look(true, 1min, every), Duration(kLookSlow));
}

TEST(ReadinessTest, FindsTheNamespaceOfAProcessByInode) {
  auto own = netlink::Netns::own();
  ASSERT_TRUE(own) << own.error().what;
  policy::Attachment attachment;
  attachment.netns = {own->id().dev, own->id().ino};
  attachment.netns_path = "/nonexistent";
  NetnsFinder finder;
  const auto found = finder.open(attachment, TimePoint(1s));
  ASSERT_TRUE(found) << found.error().what;
  EXPECT_EQ(found->id(), own->id());
  attachment.netns.ino = 1;
  EXPECT_FALSE(finder.open(attachment, TimePoint(2s)));
}

}  // namespace
}  // namespace meshd
