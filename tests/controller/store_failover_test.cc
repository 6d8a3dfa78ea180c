// The store in PostgreSQL when its primary dies and its standby takes over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <thread>

#include "tests/support/store_bed.h"
#include "tests/support/store_load.h"
#include "tests/support/store_samples.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

class PostgresFailoverTest : public testing::Test {
 protected:
  // A pair of its own for every test: what it breaks stays broken.
  void begin(const std::string& name, bool synchronous) {
    ASSERT_EQ(postgres_home().problem(), "");
    PostgresServer::Settings settings;
    if (synchronous) settings["synchronous_standby_names"] = "standby";
    primary_ = std::make_unique<PostgresServer>(postgres_home(), name + "-a", settings);
    standby_ = std::make_unique<PostgresServer>(postgres_home(), name + "-b");
    standby_->follow(*primary_);
    ASSERT_TRUE(primary_->start()) << primary_->log();
    ASSERT_TRUE(standby_->start()) << standby_->log();
    ASSERT_TRUE(eventually([&] { return followed(); })) << standby_->log();
  }
  bool followed() const {
    return primary_->ask("SELECT state FROM pg_stat_replication").value_or("") == "streaming";
  }
  // The standby is first, so that libpq passes it by while it takes no writes.
  std::string hosts() const {
    return fmt::format("dbname=postgres user=mesh host={},{}", standby_->dir(), primary_->dir());
  }
  Result<std::unique_ptr<Store>> open() const {
    StoreOptions options;
    options.patience = 1500ms;
    options.settle = settle_;
    options.retry_first = 50ms;
    options.retry_last = 200ms;
    return open_postgres_store(hosts(), options);
  }
  void promote() const {
    const auto done = standby_->ask("SELECT pg_promote()::text");
    ASSERT_TRUE(done) << done.error().what;
    ASSERT_EQ(*done, "true") << standby_->log();
  }
  milliseconds settle_ = 20s;
  std::unique_ptr<PostgresServer> primary_, standby_;
};

TEST_F(PostgresFailoverTest, NothingAcknowledgedIsLostAndNothingAppliedTwice) {
  ASSERT_NO_FATAL_FAILURE(begin("over", /*synchronous=*/true));
  const auto open_one = [&] { return open(); };
  {
    const auto store = open();
    ASSERT_TRUE(store) << store.error().what;
    EXPECT_EQ((*store)->warning(), "");
  }
  Writer a("a", open_one), b("b", open_one);
  Follower follower(open_one);
  std::jthread following([&] { follower.run(); });
  std::jthread first([&] { a.run(150); }), second([&] { b.run(150); });
  EXPECT_TRUE(eventually([&] { return a.count() > 50 && b.count() > 50; }));
  primary_->kill_hard();
  const auto dead = steady_clock::now();
  promote();
  const auto promoted = steady_clock::now();
  first.join();
  second.join();
  follower.stop();
  following.join();
  EXPECT_EQ(broken_promise({&a, &b}, follower), "");
  EXPECT_EQ(follower.revision, 300U);
  const auto ms = [](auto time) { return std::chrono::duration_cast<milliseconds>(time).count(); };
  std::printf(
      "promotion took %ld ms, the longest gap between acknowledgements %ld ms, in doubt "
      "%d times\n",
      static_cast<long>(ms(promoted - dead)), static_cast<long>(ms(std::max(a.longest, b.longest))),
      a.doubts + b.doubts);
}

TEST_F(PostgresFailoverTest, WithoutItsStandbyACommitIsInDoubtAndLaterThere) {
  settle_ = 3s;
  ASSERT_NO_FATAL_FAILURE(begin("doubt", /*synchronous=*/true));
  auto store = open(), other = open();
  ASSERT_TRUE(store && other);
  ASSERT_EQ((*store)->commit(0, {put_text(kNode, "a", "0")}), 1U);
  standby_->kill_hard();
  const auto begun = steady_clock::now();
  const auto doubt = (*store)->commit(1, {put_text(kNode, "a", "1")});
  ASSERT_FALSE(doubt);
  EXPECT_EQ(doubt.error().code, ErrorCode::kNotInForce) << doubt.error().what;
  EXPECT_LT(steady_clock::now() - begun, 10s);
  EXPECT_EQ((*other)->load()->revision, 1U);  // reads go on, and do not see it
  EXPECT_EQ((*other)->commit(1, {put_text(kNode, "a", "2")}).error().code, ErrorCode::kSystem);
  ASSERT_TRUE(standby_->start()) << standby_->log();
  ASSERT_TRUE(eventually([&] { return (*other)->load()->revision == 2U; }));
  EXPECT_EQ(text((*other)->changes_since(1)->value().writes), "3 'a' 1\n");
  EXPECT_EQ((*store)->commit(2, {put_text(kNode, "a", "3")}), 3U);
}

TEST_F(PostgresFailoverTest, CommitWhoseWaitWasEndedIsNotAcknowledged) {
  settle_ = 20s;
  ASSERT_NO_FATAL_FAILURE(begin("lone", /*synchronous=*/true));
  auto store = open();
  ASSERT_TRUE(store);
  ASSERT_EQ((*store)->commit(0, {put_text(kNode, "a", "0")}), 1U);
  standby_->kill_hard();
  std::jthread canceller([&] {
    EXPECT_TRUE(eventually([&] {
      return primary_
                 ->ask(
                     "SELECT pg_cancel_backend(pid)::text FROM pg_stat_activity "
                     "WHERE wait_event = 'SyncRep'")
                 .value_or("") == "true";
    }));
  });
  const auto done = (*store)->commit(1, {put_text(kNode, "a", "1")});
  canceller.join();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kNotInForce);
  EXPECT_THAT(done.error().what, HasSubstr("alone"));
  EXPECT_EQ((*store)->load()->revision, 2U);
}

// Without a synchronous standby commits are lost, and no controller goes on from them.
TEST_F(PostgresFailoverTest, LostRevisionsAreNoticedWhenTheirNumberIsTakenAnew) {
  ASSERT_NO_FATAL_FAILURE(begin("lost", /*synchronous=*/false));
  auto store = open();
  ASSERT_TRUE(store);
  ASSERT_EQ((*store)->commit(0, {put_text(kNode, "a", "0")}), 1U);
  ASSERT_TRUE(eventually([&] {
    return primary_
               ->ask(
                   "SELECT (replay_lsn >= pg_current_wal_lsn())::text "
                   "FROM pg_stat_replication")
               .value_or("") == "true";
  }));
  standby_->kill_hard();
  ASSERT_EQ((*store)->commit(1, {put_text(kNode, "a", "lost")}), 2U);
  primary_->kill_hard();
  ASSERT_TRUE(standby_->start()) << standby_->log();
  promote();
  auto other = open();
  ASSERT_TRUE(other) << other.error().what;
  ASSERT_EQ((*other)->load()->revision, 1U);
  ASSERT_EQ((*other)->commit(1, {put_text(kNode, "a", "kept")}), 2U);
  Result<std::optional<Store::Changes>> changes;
  ASSERT_TRUE(eventually([&] { return (changes = (*store)->changes_since(2)).has_value(); }));
  EXPECT_FALSE(changes->has_value());
  EXPECT_EQ((*store)->commit(2, {put_text(kNode, "a", "x")}).error().code, ErrorCode::kConflict);
  EXPECT_EQ(text((*store)->load().value()), "revision 2\n3 'a' kept\n");
  EXPECT_EQ((*store)->commit(2, {put_text(kNode, "a", "y")}), 3U);
}

}  // namespace
}  // namespace meshd::controller
