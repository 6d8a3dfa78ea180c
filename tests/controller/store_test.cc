// What every store of a controller does, on each of them.
#include "controller/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>

#include "controller/store_schema.h"
#include "tests/support/store_bed.h"
#include "tests/support/store_samples.h"
#include "tests/support/temp_dir.h"

namespace meshd::controller {
namespace {

using testing::HasSubstr;

class StoreTest : public testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    bed_ = make_bed(GetParam());
    ASSERT_EQ(bed_->problem(), "");
  }
  std::unique_ptr<Store> open(const StoreOptions& options = {}) const {
    auto store = bed_->open(options);
    EXPECT_TRUE(store) << store.error().what;
    return store ? std::move(*store) : nullptr;
  }
  std::unique_ptr<StoreBed> bed_;
};

TEST_P(StoreTest, StartsEmpty) {
  const auto store = open();
  const auto all = store->load();
  ASSERT_TRUE(all) << all.error().what;
  EXPECT_EQ(text(*all), "revision 0\n");
  const auto none = store->changes_since(0);
  ASSERT_TRUE(none && *none);
  EXPECT_EQ((*none)->revision, 0U);
  EXPECT_TRUE((*none)->writes.empty());
}

TEST_P(StoreTest, KeepsBytesOverAReopenInTheOrderOfKindAndKey) {
  const std::string odd("\0\xff\n'\\x00", 7);
  {
    const auto store = open();
    ASSERT_EQ(store->commit(0, {put_text(kNode, "b", odd), put_text(kSettings, "", ""),
                                put_text(kNode, "a/b", "2"), put_text(kNode, "B", "3")}),
              1U);
    ASSERT_EQ(store->commit(1, {drop(kNode, "B"), drop(kNode, "never-there")}), 2U);
  }
  const auto store = open();
  const auto all = store->load();
  ASSERT_TRUE(all);
  EXPECT_EQ(all->revision, 2U);
  const Writes want = {put_text(kSettings, "", ""), put_text(kNode, "a/b", "2"),
                       put_text(kNode, "b", odd)};
  EXPECT_EQ(all->objects, want);
  EXPECT_EQ(store->changes_since(1)->value().writes.size(), 2U);
}

TEST_P(StoreTest, CommitOnAnotherRevisionIsAConflictAndChangesNothing) {
  const auto store = open();
  ASSERT_TRUE(store->commit(0, {put_text(kNode, "a", "1")}));
  for (const std::uint64_t wrong : {0U, 2U, 99U}) {
    const auto refused = store->commit(wrong, {put_text(kNode, "a", "2")});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kConflict) << refused.error().what;
  }
  EXPECT_EQ(text(store->load().value()), "revision 1\n3 'a' 1\n");
  EXPECT_EQ(store->changes_since(0)->value().writes.size(), 1U);
}

TEST_P(StoreTest, EmptyCommitIsNone) {
  const auto store = open();
  EXPECT_EQ(store->commit(0, {}), 0U);
  EXPECT_EQ(store->commit(7, {}), 7U);
  EXPECT_EQ(store->load()->revision, 0U);
}

TEST_P(StoreTest, OfSeveralWritesToOneObjectTheLastCounts) {
  const auto store = open();
  const Writes writes = {put_text(kNode, "a", "1"), drop(kNode, "a"), put_text(kNode, "a", "2"),
                         put_text(kNode, "b", "3"), drop(kNode, "b")};
  ASSERT_TRUE(store->commit(0, writes));
  EXPECT_EQ(text(store->load().value()), "revision 1\n3 'a' 2\n");
  EXPECT_EQ(store->changes_since(0)->value().writes, writes);
}

TEST_P(StoreTest, RandomHistoryIsReadBackFromEveryPoint) {
  const auto store = open();
  std::mt19937 random(3);
  std::vector<Writes> history;
  Folded model;
  constexpr std::uint64_t kCommits = 60;
  for (std::uint64_t revision = 0; revision < kCommits; ++revision) {
    history.push_back(random_writes(random));
    ASSERT_EQ(store->commit(revision, history.back()), revision + 1);
    model.fold(history.back());
    ASSERT_EQ(store->load()->objects, model.objects()) << "revision " << revision + 1;
  }
  for (std::uint64_t from = 0; from <= kCommits; ++from) {
    Writes want;
    for (auto i = from; i < kCommits; ++i) {
      want.insert(want.end(), history[i].begin(), history[i].end());
    }
    const auto changes = store->changes_since(from);
    ASSERT_TRUE(changes && *changes) << from;
    EXPECT_EQ((*changes)->revision, kCommits);
    EXPECT_EQ((*changes)->writes, want) << from;
  }
}

TEST_P(StoreTest, TheLogIsTrimmedByRevisionsAndSaysTooOld) {
  StoreOptions few;
  few.kept_revisions = 5;
  const auto store = open(few);
  for (std::uint64_t revision = 0; revision < 12; ++revision) {
    ASSERT_TRUE(store->commit(revision, {put_text(kNode, "a", "x"), put_text(kNode, "b", "y")}));
  }
  EXPECT_FALSE(store->changes_since(0)->has_value());
  EXPECT_FALSE(store->changes_since(6)->has_value());
  ASSERT_TRUE(store->changes_since(7)->has_value());
  EXPECT_EQ(store->changes_since(7)->value().writes.size(), 10U);
  EXPECT_FALSE(store->changes_since(13)->has_value());  // never was
}

TEST_P(StoreTest, TheLogIsTrimmedByBytesButNeverOfTheLastCommit) {
  StoreOptions little;
  little.kept_bytes = 10'000;
  const auto store = open(little);
  const auto commit = [&](std::uint64_t revision, std::size_t size) {
    return store->commit(revision, {put_text(kNode, "a", std::string(size, 'x'))});
  };
  for (std::uint64_t revision = 0; revision < 20; ++revision) ASSERT_TRUE(commit(revision, 1000));
  EXPECT_FALSE(store->changes_since(9)->has_value());
  EXPECT_TRUE(store->changes_since(10)->has_value());
  ASSERT_TRUE(commit(20, 50'000));
  EXPECT_FALSE(store->changes_since(19)->has_value());
  EXPECT_EQ(store->changes_since(20)->value().writes.size(), 1U);
}

TEST_P(StoreTest, TenThousandObjectsAreOneCommit) {
  const auto store = open();
  Writes writes;
  for (int i = 0; i < 10'000; ++i) {
    writes.push_back(put_text(kNode, fmt::format("w{:05}", i), "value"));
  }
  ASSERT_EQ(store->commit(0, writes), 1U);
  EXPECT_TRUE(store->load()->objects == writes);
  for (auto& write : writes) write.value.reset();
  ASSERT_EQ(store->commit(1, writes), 2U);
  EXPECT_TRUE(store->load()->objects.empty());
}

TEST_P(StoreTest, LimitsAreKept) {
  const auto store = open();
  const auto refused = [&](const Writes& writes) {
    const auto result = store->commit(0, writes);
    EXPECT_FALSE(result);
    return result ? ErrorCode::kNotInForce : result.error().code;
  };
  const std::string largest(kMaxValueBytes, 'x');
  EXPECT_EQ(refused({put_text(kNode, "a", largest + "x")}), ErrorCode::kExhausted);
  EXPECT_EQ(refused({put_text(kNode, std::string(256, 'k'), "")}), ErrorCode::kExhausted);
  const std::size_t too_many = kMaxCommitBytes / kMaxValueBytes;
  EXPECT_EQ(refused(Writes(too_many, put_text(kNode, "a", largest))), ErrorCode::kExhausted);
  EXPECT_EQ(refused(Writes(kMaxCommitWrites + 1, drop(kNode, "a"))), ErrorCode::kExhausted);
  for (const auto& key : {std::string("a b"), std::string("a\nb"), std::string("\xc3\xa4"),
                          std::string("\xff"), std::string("a\0b", 3)}) {
    EXPECT_EQ(refused({put_text(kNode, key, "")}), ErrorCode::kInvalid);
  }
  EXPECT_EQ(refused({put_text(static_cast<Kind>(77), "a", "")}), ErrorCode::kInternal);
  EXPECT_EQ(store->load()->revision, 0U);
  const auto most = Writes(too_many - 1, put_text(kNode, std::string(255, 'k'), largest));
  ASSERT_TRUE(store->commit(0, most));
  EXPECT_TRUE(store->load()->objects.at(0).value == largest);
}

TEST_P(StoreTest, BackupIsAFileToStartFrom) {
  const auto store = open();
  std::mt19937 random(5);
  for (std::uint64_t r = 0; r < 20; ++r) ASSERT_TRUE(store->commit(r, random_writes(random)));
  const TempDir temp(TempDir::memory());
  std::filesystem::create_directory(temp / "state");
  const auto path = temp / "state/controller.db";
  const auto done = store->backup(path);
  ASSERT_TRUE(done) << done.error().what;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(temp / "state"), {}), 1);
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0600));
  EXPECT_EQ(store->backup(path).error().code, ErrorCode::kConflict);
  EXPECT_FALSE(store->backup(temp / "nowhere/copy"));
  auto copy = open_sqlite_store(temp / "state");
  ASSERT_TRUE(copy) << copy.error().what;
  EXPECT_EQ(text((*copy)->load().value()), text(store->load().value()));
  EXPECT_EQ((*copy)->commit(20, random_writes(random)), 21U);
}

TEST_P(StoreTest, OlderTablesAreBroughtUpAndNewerOnesRefused) {
  const bool sqlite = GetParam() == Backend::kSqlite;
  const auto first = sqlite ? schema::kSqliteSteps[0] : schema::kPostgresSteps[0];
  const std::array<std::string_view, 2> two = {
      first, sqlite ? "ALTER TABLE objects ADD COLUMN note TEXT;"
                    : "ALTER TABLE meshd_controller.objects ADD COLUMN note text;"};
  const std::array<std::string_view, 3> broken = {two[0], two[1], "ALTER TABLE nonsense ADD x;"};
  StoreOptions newer, failing;
  newer.steps = two;
  failing.steps = broken;
  ASSERT_TRUE(open()->commit(0, {put_text(kNode, "a", "1")}));
  const auto failed = bed_->open(failing);
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().what, HasSubstr("schema step 3"));
  EXPECT_EQ(text(open()->load().value()), "revision 1\n3 'a' 1\n");
  EXPECT_EQ(text(open(newer)->load().value()), "revision 1\n3 'a' 1\n");
  const auto refused = bed_->open({});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(refused.error().what, HasSubstr("newer mesh-controller (schema 2, this one knows 1"));
  EXPECT_TRUE(open(newer)->commit(1, {put_text(kNode, "a", "2")}));
}

std::string backend_name(const testing::TestParamInfo<Backend>& info) {
  return info.param == Backend::kSqlite ? "Sqlite" : "Postgres";
}
INSTANTIATE_TEST_SUITE_P(Sqlite, StoreTest, testing::Values(Backend::kSqlite), backend_name);
INSTANTIATE_TEST_SUITE_P(Postgres, StoreTest, testing::Values(Backend::kPostgres), backend_name);

}  // namespace
}  // namespace meshd::controller
