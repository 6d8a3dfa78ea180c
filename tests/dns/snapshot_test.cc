#include "dns/snapshot.h"

#include <gtest/gtest.h>

#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

TEST(SnapshotTest, AChangeMakesAnotherOneAndSharesTheRest) {
  Snapshot first(sample_settings());
  const auto base = ip_of("10.213.0.1");
  for (unsigned i = 0; i < 500; ++i) first.set(base.plus(i), sample_view());
  Snapshot second = first;
  const auto changed = sample_view();
  second.set(base.plus(7), changed);
  second.remove(base.plus(8));
  second.set(base.plus(1000), changed);
  EXPECT_EQ(second.view(base.plus(7)), changed.get());
  EXPECT_EQ(second.view(base.plus(8)), nullptr);
  EXPECT_NE(first.view(base.plus(7)), changed.get()) << "readers keep what they hold";
  EXPECT_NE(first.view(base.plus(8)), nullptr);
  EXPECT_EQ(first.view(base.plus(1000)), nullptr);
  for (unsigned i = 9; i < 500; ++i) EXPECT_EQ(first.view(base.plus(i)), second.view(base.plus(i)));
  EXPECT_EQ(&first.settings(), &second.settings());
}

TEST(SnapshotTest, AViewOutlivesItsSnapshot) {
  std::shared_ptr<const View> kept;
  {
    Snapshot snapshot(sample_settings());
    snapshot.set(ip_of("fd00:1::9"), sample_view());
    kept = snapshot.shared_view(ip_of("fd00:1::9"));
    EXPECT_EQ(snapshot.shared_view(ip_of("fd00:1::8")), nullptr);
  }
  ASSERT_NE(kept, nullptr);
  EXPECT_EQ(kept->client, "c1");
}

TEST(SnapshotTest, PlainClientsAreThoseOfTheEnginesPrefixes) {
  const Snapshot snapshot(sample_settings());
  EXPECT_TRUE(snapshot.is_plain_client(ip_of("172.17.255.1")));
  EXPECT_FALSE(snapshot.is_plain_client(ip_of("172.18.0.1")));
  EXPECT_FALSE(snapshot.is_plain_client(ip_of("::ffff:172.17.0.1")));
}

TEST(SnapshotTest, NamesBringWhatStandsAboveThemUpToTheZone) {
  View view;
  view.add(wire_of("db.wf1.wf.mesh.internal"), {}, wire_of("mesh.internal"));
  EXPECT_TRUE(view.non_terminals.contains(wire_of("wf1.wf.mesh.internal")));
  EXPECT_TRUE(view.non_terminals.contains(wire_of("wf.mesh.internal")));
  EXPECT_EQ(view.non_terminals.size(), 2U) << "neither the zone nor the name itself";
  view.add(wire_of("db"), {}, wire_of("mesh.internal"));
  EXPECT_EQ(view.non_terminals.size(), 2U);
}

}  // namespace
}  // namespace meshd::dns
