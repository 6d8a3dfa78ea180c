#include "meshd/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>

#include "tests/support/store_dump.h"
#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr TimePoint kNow{seconds(1000)};

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

policy::Declaration declaration(std::string id) {
  policy::Declaration d;
  d.id = std::move(id);
  d.owner = "ada";
  d.workflow = "wf1";
  d.name = "db";
  return d;
}

policy::Attachment attachment() {
  policy::Attachment a;
  a.netns = {4, 0xffff'ffff'0000'0001};
  a.netns_path = "/run/netns/a b'c";
  a.ifname = "eth0";
  a.host_ifname = "mesh1";
  a.mac.bytes = {2, 0, 0, 0, 0, 0xff};
  a.v4 = ip("10.213.0.1");
  a.v6 = ip("fd00::1");
  a.default_route = false;
  a.prepared = true;
  a.attached_at = kNow;
  return a;
}

class StoreTest : public testing::Test {
 protected:
  static StoreOptions options(std::string boot = "boot-1") {
    StoreOptions result;
    result.boot_id = std::move(boot);
    result.now = kNow;
    return result;
  }
  Result<Store> open(const StoreOptions& with = options()) { return Store::open(dir_, with); }

  // Everything that can be stored, once.
  static std::vector<StoreChange> everything() {
    policy::Service service{"ada", ip("10.214.0.1"), ip("fd00:0:0:2::1"), kNow, kNow + seconds(1)};
    policy::Service v6_only{"bob", std::nullopt, ip("fd00:0:0:2::2"), kNow, {}};
    policy::Attachment v4_only = attachment();
    v4_only.v6.reset();
    return {
        PutNodePort{{"a", Proto::kUdp, 53}, 25353},  // before what it refers to
        PutDeclaration{"a", declaration("a")},
        PutDeclaration{"b", declaration("b")},
        PutDeclaration{"c", declaration("c")},
        PutAttachment{"a", attachment()},
        PutAttachment{"b", v4_only},
        PutDraining{"b"},
        PutReady{"a", true, {{5432, {true, false}}, {8080, {false, true}}, {65535, {true, true}}}},
        PutService{{policy::Scope::kWorkflow, "wf1", "db"}, service},
        PutService{{policy::Scope::kCluster, "", "llm"}, v6_only},
        PutNodePort{{"a", Proto::kTcp, 53}, 20000},
        PutQuarantine{ip("10.213.0.9"), kNow + seconds(60)},
        PutQuarantine{ip("fd00::9"), kNow + seconds(61)},
        PutIdleName{"llm", -7},
        PutLeftNetns{"gone", {{4, 0xffffffff00000002}, "/run/netns/gone"}},
        PutCluster{{{"c",
                     "mesh.internal",
                     Prefix::parse("10.213.0.0/16").value(),
                     {},
                     Prefix::parse("10.214.0.0/16").value(),
                     {},
                     Prefix::parse("10.213.7.0/24").value(),
                     {},
                     {}},
                    0xffffffff00000003}},
        PutLooseTerms{{Prefix::parse("192.0.2.8").value(), Prefix::parse("2001:db8::/64").value()},
                      30000,
                      32767},
        PutSliceItem{{0, "a"}, std::string("\0value", 6)},
        PutSliceItem{{7, "of a later kind"}, ""},
        PutConfirmation{"a",
                        "far",
                        {ip("10.213.7.1"),
                         {},
                         {},
                         ip("fd00::5"),
                         {{Proto::kTcp, 1, 5432}, {Proto::kUdp, 65535, 65535}}}},
        PutConfirmation{"a", "near", {}},
    };
  }

  TempDir temp_;
  const std::string dir_ = temp_ / "state";
};

TEST_F(StoreTest, NewStoreIsEmptyAndPrivate) {
  auto store = open();
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_EQ(dump(store->load().value()), "generation 0\n");
  struct stat info{};
  ASSERT_EQ(stat(dir_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700U);
  for (const auto* name : {"/meshd.db", "/lock", "/meshd.db-wal"}) {
    ASSERT_EQ(stat((dir_ + name).c_str(), &info), 0) << name;
    EXPECT_EQ(info.st_mode & 07777, 0600U) << name;
  }
}

TEST_F(StoreTest, EverythingComesBackAsItWasPut) {
  std::string before;
  {
    auto store = open();
    ASSERT_TRUE(store) << store.error().what;
    const auto status = store->apply(everything(), 7);
    ASSERT_TRUE(status) << status.error().what;
    before = dump(store->load().value());
  }
  auto store = open();
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_EQ(dump(store->load().value()), before);
  EXPECT_EQ(before,
            "generation 7\n"
            "workload a: a ada wf1 db draining=false ready=true\n"
            "  attached 4/18446744069414584321 /run/netns/a b'c eth0 mesh1 02:00:00:00:00:ff "
            "10.213.0.1 fd00::1 route=false prepared=true at=1000000000000\n"
            "  port 5432 true false\n  port 8080 false true\n  port 65535 true true\n"
            "workload b: b ada wf1 db draining=true ready=false\n"
            "  attached 4/18446744069414584321 /run/netns/a b'c eth0 mesh1 02:00:00:00:00:ff "
            "10.213.0.1 - route=false prepared=true at=1000000000000\n"
            "workload c: c ada wf1 db draining=false ready=false\n"
            "service 0 wf1 db: ada 10.214.0.1 fd00:0:0:2::1 1000000000000 1001000000000\n"
            "service 1  llm: bob - fd00:0:0:2::2 1000000000000 0\n"
            "node port a tcp 53: 20000\nnode port a udp 53: 25353\n"
            "resting 10.213.0.9 until 1060000000000\nresting fd00::9 until 1061000000000\n"
            "idle llm since -7\n"
            "left of gone: 4/18446744069414584322 /run/netns/gone\n"
            "cluster c mesh.internal revision 18446744069414584323: 10.213.0.0/16 - "
            "10.214.0.0/16 - 10.213.7.0/24 - proxy 192.0.2.8/32 proxy 2001:db8::/64 gateway "
            "30000-32767\n" +
                fmt::format("slice 0 a: 6 bytes, {}\nslice 7 of a later kind: 0 bytes, {}\n",
                            std::hash<std::string>()(std::string("\0value", 6)),
                            std::hash<std::string>()("")) +
                "confirmed a -> far: 10.213.7.1 - - fd00::5 tcp/1-5432 udp/65535-65535\n"
                "confirmed a -> near: - - - -\n");
}

TEST_F(StoreTest, WhatIsAmendedKeepsItsGeneration) {
  {
    auto store = open();
    ASSERT_TRUE(store && store->apply(everything(), 7));
    const StoreChange changes[] = {DropIdleName{"llm"}, PutIdleName{"x", 1'769'817'600}};
    const auto status = store->amend(changes);
    ASSERT_TRUE(status) << status.error().what;
    EXPECT_EQ(store->generation(), 7U);
  }
  auto store = open();
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_EQ(store->generation(), 7U);
  EXPECT_EQ(store->load()->idle_names, (std::map<std::string, std::int64_t>{{"x", 1'769'817'600}}));
}

TEST_F(StoreTest, DeclarationComesBackInEveryField) {
  auto full = declaration("full");
  full.serves = {{{Proto::kTcp, 5432, 5432}, "sql"}, {{Proto::kUdp, 8000, 8100}, ""}};
  full.admit = policy::Admit::kOwner;
  full.admit_owners = {"bob"};
  full.peers = {{"", "cache", policy::Scope::kWorkflow, {}},
                {"other", "", policy::Scope::kWorkflow, {{Proto::kTcp, 22, 22}}}};
  policy::Publication raw;
  raw.port = 5432;
  raw.node_port = 25432;
  raw.allow_from = {Prefix::parse("192.0.2.0/24").value()};
  policy::Publication http;
  http.port = 8888;
  http.http = true;
  http.label = "Notebook";
  http.path = "/lab";
  http.access = policy::Access::kCanRead;
  full.publish = {raw, http};
  full.egress = {{Prefix::parse("2001:db8::/32").value(), {{Proto::kTcp, 443, 443}}}};
  full.ready = policy::ReadyMode::kHttp;
  full.ready_http_port = 5432;
  full.ready_http_path = "/healthz";
  full.hold = seconds(7);
  {
    auto store = open();
    ASSERT_TRUE(store && store->apply(std::vector<StoreChange>{PutDeclaration{"full", full}}, 1));
  }
  auto store = open();
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_EQ(store->load()->workloads.at("full").declaration, full);
}

TEST_F(StoreTest, DroppingTakesWhatHangsOnItAlong) {
  auto store = open();
  ASSERT_TRUE(store);
  ASSERT_TRUE(store->apply(everything(), 1));
  const std::vector<StoreChange> drops = {
      DropDeclaration{"a"},
      DropNodePort{{"a", Proto::kTcp, 53}},
      DropNodePort{{"a", Proto::kUdp, 53}},
      DropAttachment{"b"},
      DropDeclaration{"c"},
      DropService{{policy::Scope::kWorkflow, "wf1", "db"}},
      DropService{{policy::Scope::kCluster, "", "llm"}},
      DropQuarantine{ip("10.213.0.9")},
      DropQuarantine{ip("fd00::9")},
      DropIdleName{"llm"},
      DropLeftNetns{"gone"},
      DropSliceItem{{0, "a"}},
      DropSliceItem{{7, "of a later kind"}},
      DropConfirmation{"a", "far"},
      DropConfirmation{"a", "near"},
  };
  const auto status = store->apply(drops, 2);
  ASSERT_TRUE(status) << status.error().what;
  EXPECT_EQ(dump(store->load().value()),
            "generation 2\nworkload b: b ada wf1 db draining=false ready=false\n"
            "cluster c mesh.internal revision 18446744069414584323: 10.213.0.0/16 - "
            "10.214.0.0/16 - 10.213.7.0/24 - proxy 192.0.2.8/32 proxy 2001:db8::/64 gateway "
            "30000-32767\n");
}

TEST_F(StoreTest, DroppingADeclarationDropsItsNodePorts) {
  auto store = open();
  ASSERT_TRUE(store);
  ASSERT_TRUE(store->apply(everything(), 1));
  const auto status = store->apply(std::vector<StoreChange>{DropDeclaration{"a"}}, 2);
  ASSERT_TRUE(status) << status.error().what;
  EXPECT_TRUE(store->load()->node_ports.empty());
}

TEST_F(StoreTest, NewAttachmentIsNeitherReadyNorDraining) {
  auto store = open();
  ASSERT_TRUE(store);
  ASSERT_TRUE(store->apply(everything(), 1));
  const std::vector<StoreChange> again = {PutDraining{"a"}, PutAttachment{"a", attachment()},
                                          PutDraining{"b", false}};
  ASSERT_TRUE(store->apply(again, 2));
  const auto state = store->load().value();
  EXPECT_FALSE(state.workloads.at("a").ready);
  EXPECT_FALSE(state.workloads.at("a").draining);
  EXPECT_TRUE(state.workloads.at("a").tcp_ready.empty());
  EXPECT_FALSE(state.workloads.at("b").draining);
  EXPECT_TRUE(state.workloads.at("a").attachment);
}

TEST_F(StoreTest, RefusedChangeLeavesNothingOfItself) {
  auto store = open();
  ASSERT_TRUE(store);
  ASSERT_TRUE(store->apply(everything(), 1));
  const auto before = dump(store->load().value());
  const std::vector<StoreChange> changes = {PutDeclaration{"d", declaration("d")},
                                            DropQuarantine{ip("fd00::9")},
                                            PutAttachment{"nobody", attachment()}};
  EXPECT_FALSE(store->apply(changes, 2));
  EXPECT_EQ(dump(store->load().value()), before);
  EXPECT_TRUE(store->apply(std::vector<StoreChange>{DropDeclaration{"c"}}, 2));
}

TEST_F(StoreTest, GenerationOnlyRises) {
  auto store = open();
  ASSERT_TRUE(store);
  ASSERT_TRUE(store->apply({}, 5));
  EXPECT_FALSE(store->apply({}, 5));
  EXPECT_FALSE(store->apply({}, 4));
  EXPECT_TRUE(store->apply({}, 6));
  EXPECT_EQ(store->generation(), 6U);
}

TEST_F(StoreTest, UlaIsDrawnOnceAndDiffersBetweenNodes) {
  Prefix ula;
  {
    auto store = open();
    ASSERT_TRUE(store);
    ula = store->ula();
  }
  EXPECT_EQ(ula.length(), 48);
  EXPECT_EQ(ula.address().bytes()[0], 0xfd);
  EXPECT_EQ(open()->ula(), ula);
  EXPECT_NE(Store::open(temp_ / "other", options())->ula(), ula);
}

TEST_F(StoreTest, SecondDaemonIsRefusedAndToldWho) {
  auto store = open();
  ASSERT_TRUE(store);
  const auto second = open();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
  EXPECT_THAT(second.error().what, HasSubstr(fmt::format("(pid {})", getpid())));
}

TEST_F(StoreTest, RebootVoidsAttachmentsAndLetsAddressesRestAnew) {
  {
    auto store = open();
    ASSERT_TRUE(store);
    ASSERT_TRUE(store->apply(everything(), 7));
  }
  const std::string want =
      "generation 8\n"
      "workload a: a ada wf1 db draining=false ready=false\n"
      "workload b: b ada wf1 db draining=false ready=false\n"
      "workload c: c ada wf1 db draining=false ready=false\n"
      "service 0 wf1 db: ada 10.214.0.1 fd00:0:0:2::1 0 0\n"
      "service 1  llm: bob - fd00:0:0:2::2 0 0\n"
      "node port a tcp 53: 20000\nnode port a udp 53: 25353\n"
      "resting 10.213.0.1 until 65000000000\n"
      "resting 10.213.0.9 until 65000000000\n"
      "resting fd00::1 until 65000000000\n"
      "resting fd00::9 until 65000000000\n"
      "idle llm since -7\n"
      "cluster c mesh.internal revision 18446744069414584323: 10.213.0.0/16 - "
      "10.214.0.0/16 - 10.213.7.0/24 - proxy 192.0.2.8/32 proxy 2001:db8::/64 gateway 30000-32767\n"
      "slice 0 a: 6 bytes, 16900004215592635482\n"
      "slice 7 of a later kind: 0 bytes, 6142509188972423790\n"
      "confirmed a -> far: 10.213.7.1 - - fd00::5 tcp/1-5432 udp/65535-65535\n"
      "confirmed a -> near: - - - -\n";
  auto rebooted = options("boot-2");
  rebooted.now = TimePoint(seconds(5));
  for (int start = 0; start < 2; ++start) {  // the second one finds the same
    auto store = open(rebooted);
    ASSERT_TRUE(store) << store.error().what;
    EXPECT_EQ(dump(store->load().value()), want);
  }
}

TEST_F(StoreTest, RestThatIsOverIsForgotten) {
  {
    auto store = open();
    ASSERT_TRUE(store);
    ASSERT_TRUE(store->apply(everything(), 7));
  }
  auto later = options();
  later.now = kNow + seconds(60);
  auto store = open(later);
  ASSERT_TRUE(store);
  const auto state = store->load().value();
  EXPECT_EQ(state.quarantine.size(), 1U);
  EXPECT_EQ(state.generation, 7U);
  EXPECT_EQ(state.workloads.size(), 3U);
}

}  // namespace
}  // namespace meshd
