// The store in PostgreSQL with several controllers, and with a server that fails them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/support/store_bed.h"
#include "tests/support/store_load.h"
#include "tests/support/store_samples.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

StoreOptions quick() {
  StoreOptions options;
  options.patience = 1s;
  options.retry_first = 50ms;
  options.retry_last = 200ms;
  return options;
}

bool readable(const Store& store, milliseconds limit) {
  pollfd wait{store.notify_fd(), POLLIN, 0};
  return poll(&wait, 1, static_cast<int>(limit.count())) == 1;
}

class PostgresStoreTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(bed_.problem(), ""); }
  std::unique_ptr<Store> open(const StoreOptions& options = {}) {
    auto store = bed_.open(options);
    EXPECT_TRUE(store) << store.error().what;
    return store ? std::move(*store) : nullptr;
  }
  static std::string ask(const std::string& sql) {
    const auto answer = PostgresBed::server().ask(sql);
    EXPECT_TRUE(answer) << answer.error().what;
    return answer.value_or("");
  }
  static void end_sessions() {
    ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'mesh-controller' AND pid <> pg_backend_pid()");
  }
  PostgresBed bed_;
};

TEST_F(PostgresStoreTest, WhatOneCommitsTheOthersHear) {
  const auto a = open(), b = open(), c = open();
  EXPECT_FALSE(readable(*b, 0ms));
  ASSERT_EQ(a->commit(0, {put_text(kNode, "x", "1")}), 1U);
  for (const auto* other : {b.get(), c.get()}) ASSERT_TRUE(readable(*other, 10s));
  EXPECT_TRUE(b->hear().changed);
  ASSERT_TRUE(readable(*a, 10s));
  EXPECT_FALSE(a->hear().changed) << "who committed knows";
  EXPECT_FALSE(readable(*b, 0ms));
  EXPECT_EQ(text(b->changes_since(0)->value().writes), "3 'x' 1\n");
  EXPECT_EQ(b->commit(0, {put_text(kNode, "x", "2")}).error().code, ErrorCode::kConflict);
  ASSERT_EQ(b->commit(1, {drop(kNode, "x")}), 2U);
  EXPECT_EQ(text(a->changes_since(1)->value().writes), "3 'x' -\n");
  EXPECT_EQ(text(c->changes_since(0)->value().writes), "3 'x' 1\n3 'x' -\n");
}

TEST_F(PostgresStoreTest, SeveralThatBeginAtOnceMakeTheTablesOnce) {
  std::vector<std::jthread> threads;
  std::atomic<int> opened = 0;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] { opened += bed_.open({}) ? 1 : 0; });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(opened, 6);
}

TEST_F(PostgresStoreTest, WritersFlatOutLoseNothingAndAFollowerSeesAllInOrder) {
  const auto open_one = [&] { return bed_.open({}); };
  Writer a("a", open_one), b("b", open_one), c("c", open_one);
  Follower follower(open_one);
  std::jthread following([&] { follower.run(); });
  std::vector<std::jthread> threads;
  for (auto* writer : {&a, &b, &c}) threads.emplace_back([=] { writer->run(100); });
  for (auto& thread : threads) thread.join();
  follower.stop();
  following.join();
  EXPECT_EQ(broken_promise({&a, &b, &c}, follower), "");
  EXPECT_EQ(follower.revision, 300U);
  EXPECT_EQ(a.doubts + b.doubts + c.doubts, 0);
}

// Every few commits all connections are cut, in whatever state they are.
TEST_F(PostgresStoreTest, CutConnectionsAreSettledAndNothingIsAppliedTwice) {
  const auto open_one = [&] { return bed_.open(quick()); };
  Writer a("a", open_one), b("b", open_one);
  Follower follower(open_one);
  std::jthread following([&] { follower.run(); });
  std::jthread first([&] { a.run(120); }), second([&] { b.run(120); });
  int cuts = 0;
  while (a.count() < 120 || b.count() < 120) {
    const int before = a.count() + b.count();
    const bool on = eventually([&] { return a.count() + b.count() >= std::min(before + 10, 240); });
    EXPECT_TRUE(on);
    if (!on) break;
    end_sessions();
    ++cuts;
  }
  first.join();
  second.join();
  follower.stop();
  following.join();
  EXPECT_EQ(broken_promise({&a, &b}, follower), "");
  EXPECT_GT(cuts, 1);
}

// The server takes the statement in when nobody waits for it any more.
TEST_F(PostgresStoreTest, FrozenSessionIsLeftAndItsStatementIsAppliedOnce) {
  const auto store = open(quick()), other = open();
  ASSERT_TRUE(store->commit(0, {put_text(kNode, "a", "0")}));
  const auto pid =
      std::stoi(ask("SELECT pid::text FROM pg_stat_activity WHERE query LIKE '%WITH next AS%' "
                    "AND pid <> pg_backend_pid()"));
  ASSERT_EQ(kill(pid, SIGSTOP), 0);
  const auto begun = steady_clock::now();
  EXPECT_EQ(store->commit(1, {put_text(kNode, "a", "1")}), 2U);
  EXPECT_LT(steady_clock::now() - begun, 8s);
  ASSERT_EQ(kill(pid, SIGCONT), 0);
  ASSERT_TRUE(eventually([&] { return kill(pid, 0) != 0; }));
  EXPECT_EQ(text(other->changes_since(0)->value().writes), "3 'a' 0\n3 'a' 1\n");
}

TEST_F(PostgresStoreTest, WhatOneTellsAllHearAndNobodyKeeps) {
  const auto a = open(), b = open();
  const std::string longest(7'999, 'x');
  ASSERT_TRUE(a->tell({"first, 'quoted'", longest}));
  for (const auto& store : {std::cref(a), std::cref(b)}) {
    ASSERT_TRUE(readable(*store.get(), 10s));
    const auto heard = store.get()->hear();
    EXPECT_THAT(heard.news, testing::ElementsAre("first, 'quoted'", longest));
    EXPECT_FALSE(heard.changed) << "nothing was committed";
    EXPECT_TRUE(store.get()->hear().news.empty());
  }
  EXPECT_FALSE(a->tell({longest + "x"}));
  ASSERT_TRUE(a->tell({"second"})) << "a refusal ends nothing";
  const auto late = open();
  EXPECT_FALSE(readable(*late, 0ms));
  EXPECT_EQ(a->changes_since(0)->value().revision, 0U);
}

TEST_F(PostgresStoreTest, AnIdleSessionThatWasCutIsReplacedUnseen) {
  const auto a = open(), b = open();
  ASSERT_TRUE(a->commit(0, {put_text(kNode, "a", "1")}));
  ASSERT_TRUE(readable(*b, 10s));
  EXPECT_TRUE(b->hear().changed);
  end_sessions();
  EXPECT_EQ(a->commit(1, {put_text(kNode, "a", "2")}), 2U);
  EXPECT_EQ(b->changes_since(1)->value().revision, 2U);
  // And it listens again.
  ASSERT_TRUE(eventually([&] {
    if (readable(*b, 0ms)) (void)b->hear();
    return ask("SELECT (count(*) >= 4)::text FROM pg_stat_activity WHERE application_name = "
               "'mesh-controller' AND pid <> pg_backend_pid()") == "true" ||
           !readable(*b, 200ms);
  }));
  (void)b->hear();
  ASSERT_TRUE(a->commit(2, {put_text(kNode, "a", "3")}));
  EXPECT_TRUE(readable(*b, 10s));
}

TEST_F(PostgresStoreTest, TablesThatAreGoneOrOthersAreNotTakenForOurs) {
  const auto store = open(quick());
  ASSERT_TRUE(store->commit(0, {put_text(kNode, "a", "1")}));
  ask("DROP SCHEMA meshd_controller CASCADE");
  end_sessions();
  const auto gone = store->load();
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(gone.error().what, HasSubstr("tables are gone"));
  const auto other = open();  // makes them anew
  Result<Store::Snapshot> foreign;
  ASSERT_TRUE(eventually([&] {
    foreign = store->load();
    return !foreign && foreign.error().code == ErrorCode::kInvalid;
  }));
  EXPECT_THAT(foreign.error().what, HasSubstr("another cluster's"));
}

TEST_F(PostgresStoreTest, NewerTablesStopAnOlderControllerThatRuns) {
  const auto store = open();
  ask("UPDATE meshd_controller.state SET version = 2");
  const auto refused = store->commit(0, {put_text(kNode, "a", "1")});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(refused.error().what, HasSubstr("newer mesh-controller (schema 2"));
}

TEST_F(PostgresStoreTest, LockThatIsHeldElsewhereFailsInTime) {
  const auto store = open(quick());
  std::jthread holder([] {
    ask("WITH held AS MATERIALIZED (SELECT 1 FROM meshd_controller.state FOR UPDATE) "
        "SELECT pg_sleep(3) FROM held");
  });
  ASSERT_TRUE(eventually([] {
    return ask("SELECT (count(*) = 1)::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'") ==
           "true";
  }));
  const auto refused = store->commit(0, {put_text(kNode, "a", "1")});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kSystem) << refused.error().what;
  EXPECT_THAT(refused.error().what, HasSubstr("lock timeout"));
  EXPECT_TRUE(store->load());
  holder.join();
  EXPECT_TRUE(store->commit(0, {put_text(kNode, "a", "1")}));
}

TEST_F(PostgresStoreTest, ASetUpThatMayLoseChangesIsSaid) {
  EXPECT_THAT(open()->warning(), HasSubstr("synchronous_standby_names is empty"));
}

TEST(PostgresConnectTest, ConnectionStringThatCannotBeReadIsNotRepeated) {
  const auto store = open_postgres_store("host=db password=it's hunter2");
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(store.error().what, testing::Not(HasSubstr("hunter2")));
}

TEST(PostgresConnectTest, DatabaseThatIsAwayIsSaidAtOnceAndComesBack) {
  ASSERT_EQ(postgres_home().problem(), "");
  PostgresServer server(postgres_home(), "away");
  ASSERT_TRUE(server.start()) << server.log();
  auto opened = open_postgres_store(server.conninfo(), quick());
  ASSERT_TRUE(opened) << opened.error().what;
  auto& store = **opened;
  ASSERT_TRUE(store.commit(0, {put_text(kNode, "a", "1")}));
  server.kill_hard();
  const auto away = store.load();
  ASSERT_FALSE(away);
  EXPECT_EQ(away.error().code, ErrorCode::kSystem);
  EXPECT_THAT(away.error().what, testing::MatchesRegex("database away: .*tried again in .* s"));
  EXPECT_EQ(store.commit(1, {put_text(kNode, "a", "2")}).error().code, ErrorCode::kSystem);
  // It wakes its owner to look, and then for what others do.
  ASSERT_TRUE(readable(store, 5s));
  (void)store.hear();
  ASSERT_TRUE(server.start()) << server.log();
  ASSERT_TRUE(eventually([&] {
    if (readable(store, 0ms)) (void)store.hear();
    return store.load().has_value();
  }));
  EXPECT_EQ(store.commit(1, {put_text(kNode, "a", "2")}), 2U);
  ASSERT_FALSE(open_postgres_store("user=mesh dbname=postgres host=" + server.dir() + "/none"));
}

}  // namespace
}  // namespace meshd::controller
