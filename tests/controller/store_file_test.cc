// A controller's state file under what may befall it: faults of the disk, kills, damage,
// others' files, other users.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "controller/store_schema.h"
#include "controller/store_sqlite.h"
#include "tests/support/fault_vfs.h"
#include "tests/support/store_samples.h"
#include "tests/support/temp_dir.h"

namespace meshd::controller {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// The commit that follows revision r of a history in which every one adds, replaces and removes.
Writes step(std::uint64_t r) {
  const auto key = [](std::uint64_t n) { return fmt::format("k{}", n % 7); };
  return {put_text(kNode, key(r), std::string(1 + 500 * (r % 5), static_cast<char>('a' + r % 26))),
          drop(kNode, key(r + 3)), put_text(kSettings, "", fmt::format("{}", r))};
}

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_all(const std::string& path, const std::string& content) {
  // In place where it can be: to truncate first makes the file system sync.
  const auto mode = fs::exists(path) ? std::ios::in | std::ios::out : std::ios::out;
  std::fstream(path, std::ios::binary | mode) << content;
  fs::resize_file(path, content.size());
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
}

class ControllerFileTest : public testing::Test {
 protected:
  void SetUp() override { FaultVfs::instance().reset(); }
  void TearDown() override { FaultVfs::instance().reset(); }

  static StoreOptions options() {
    StoreOptions result;
    result.vfs = FaultVfs::kName;
    result.kept_revisions = 3;  // so that trimming is under fault, too
    return result;
  }
  Result<std::unique_ptr<Store>> open() const { return open_sqlite_store(dir_, options()); }
  std::string file() const { return dir_ + "/controller.db"; }

  // What a store says of itself: its objects, and what changed lately.
  static std::string all_of(Store& store) {
    const auto all = store.load();
    if (!all) return all.error().what;
    std::string out = text(*all);
    for (auto from = all->revision < 3 ? 0 : all->revision - 3; from <= all->revision; ++from) {
      const auto changes = store.changes_since(from);
      out += !changes ? changes.error().what : *changes ? text((*changes)->writes) : "too old\n";
    }
    return out;
  }
  static std::vector<std::string> history(std::uint64_t steps) {
    const TempDir temp(TempDir::memory());
    auto store = open_sqlite_store(temp / "state", options());
    EXPECT_TRUE(store);
    std::vector<std::string> result = {all_of(**store)};
    for (std::uint64_t r = 0; r < steps; ++r) {
      EXPECT_TRUE((*store)->commit(r, step(r)));
      result.push_back(all_of(**store));
    }
    return result;
  }
  void make(std::uint64_t steps) const {
    auto store = open();
    ASSERT_TRUE(store);
    for (std::uint64_t r = 0; r < steps; ++r) ASSERT_TRUE((*store)->commit(r, step(r)));
  }

  TempDir temp_{TempDir::memory()};
  const std::string dir_ = temp_ / "state";
};

// --- faults --------------------------------------------------------------------------

TEST_F(ControllerFileTest, PowerLossAtAnyWriteLeavesBeforeOrAfterNeverBetween) {
  constexpr std::uint64_t kSteps = 6;
  const auto want = history(kSteps);
  int crashes = 0;
  for (int at = 1; at < 2000; ++at) {
    fs::remove_all(dir_);
    FaultVfs::instance().reset();
    FaultVfs::instance().crash_at(at, /*torn=*/at % 2 == 0);
    std::uint64_t acknowledged = 0;
    if (auto store = open()) {
      while (acknowledged < kSteps && (*store)->commit(acknowledged, step(acknowledged))) {
        ++acknowledged;
      }
    }
    if (!FaultVfs::instance().fired()) break;  // every operation has had its turn
    ++crashes;
    FaultVfs::instance().lose_unsynced(static_cast<unsigned>(at));
    FaultVfs::instance().reset();
    auto store = open();
    ASSERT_TRUE(store) << "operation " << at << ": " << store.error().what;
    const auto got = all_of(**store);
    const bool after = acknowledged < kSteps && got == want[acknowledged + 1];
    ASSERT_TRUE(after || got == want[acknowledged])
        << "operation " << at << ", acknowledged " << acknowledged << ":\n"
        << got;
    const auto revision = (*store)->load()->revision;
    ASSERT_TRUE((*store)->commit(revision, step(99))) << "operation " << at;
  }
  EXPECT_GT(crashes, 50);  // else the fault layer is not in use
  EXPECT_LT(crashes, 1999);
}

TEST_F(ControllerFileTest, FailedWriteIsReportedAndMayBeTriedAgain) {
  constexpr std::uint64_t kSteps = 5;
  const auto want = history(kSteps);
  int reported = 0;
  for (const int error : {SQLITE_FULL, SQLITE_IOERR_WRITE}) {
    for (int at = 1; at < 500; ++at) {
      fs::remove_all(dir_);
      FaultVfs::instance().reset();
      auto store = open();
      ASSERT_TRUE(store);
      FaultVfs::instance().fail_once(at, error);
      for (std::uint64_t r = 0; r < kSteps; ++r) {
        auto done = (*store)->commit(r, step(r));
        if (!done) {
          ++reported;
          EXPECT_EQ(done.error().code, ErrorCode::kSystem) << done.error().what;
          ASSERT_EQ(all_of(**store), want[r]) << "operation " << at;
          done = (*store)->commit(r, step(r));
        }
        ASSERT_TRUE(done) << "operation " << at << ": " << done.error().what;
      }
      ASSERT_EQ(all_of(**store), want[kSteps]) << "operation " << at;
      if (!FaultVfs::instance().fired()) break;
    }
  }
  EXPECT_GT(reported, 20);
}

TEST_F(ControllerFileTest, FullDiskIsNamed) {
  auto store = open();
  ASSERT_TRUE(store);
  FaultVfs::instance().fail_once(1, SQLITE_FULL);
  const auto done = (*store)->commit(0, step(0));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().sys_errno, ENOSPC);
  EXPECT_THAT(done.error().what, HasSubstr("store revision 1: "));
  EXPECT_THAT(done.error().what, HasSubstr("database or disk is full"));
}

TEST_F(ControllerFileTest, FaultWhileOpeningIsAnErrorAndTheNextStartWorks) {
  for (int at = 1; at < 500; ++at) {
    fs::remove_all(dir_);
    FaultVfs::instance().reset();
    FaultVfs::instance().fail_once(at, SQLITE_IOERR_WRITE);
    {
      [[maybe_unused]] const auto failed = open();
    }
    const bool fired = FaultVfs::instance().fired();
    FaultVfs::instance().reset();
    auto store = open();
    ASSERT_TRUE(store) << "operation " << at << ": " << store.error().what;
    ASSERT_EQ((*store)->load()->revision, 0U) << "operation " << at;
    if (!fired) return;
  }
  FAIL() << "never came to an end";
}

TEST_F(ControllerFileTest, BackupThatFailsLeavesNothing) {
  make(4);
  auto store = open();
  ASSERT_TRUE(store);
  const auto want = all_of(**store);
  int failures = 0;
  for (int at = 1; at < 200; ++at) {
    const auto path = temp_ / fmt::format("copy-{}", at);
    FaultVfs::instance().fail_once(at, SQLITE_FULL);
    const auto done = (*store)->backup(path);
    if (done) break;
    ++failures;
    EXPECT_EQ(done.error().code, ErrorCode::kSystem) << done.error().what;
    EXPECT_EQ(std::distance(fs::directory_iterator(temp_.path()), {}), 1) << "operation " << at;
    ASSERT_EQ(all_of(**store), want);
  }
  EXPECT_GT(failures, 2);
}

// A process of its own that says each commit that was acknowledged, until it is killed.
TEST_F(ControllerFileTest, KilledAtAnyMomentWhatWasAcknowledgedIsThere) {
  std::mt19937 random(17);
  std::uint64_t revision = 0;
  for (int round = 0; round < 15; ++round) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto store = open_sqlite_store(dir_);
      if (!store) _exit(1);
      for (auto r = (*store)->load()->revision;; ++r) {
        if (!(*store)->commit(r, step(r))) _exit(1);
        const auto acknowledged = r + 1;
        if (write(ends[1], &acknowledged, sizeof acknowledged) < 0) _exit(1);
      }
    }
    close(ends[1]);
    std::uint64_t acknowledged = revision;
    const auto until = revision + 1 + random() % 40;
    while (acknowledged < until &&
           read(ends[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
    }
    kill(child, SIGKILL);
    while (read(ends[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
    }
    close(ends[0]);
    waitpid(child, nullptr, 0);
    auto store = open_sqlite_store(dir_);
    ASSERT_TRUE(store) << store.error().what;
    revision = (*store)->load()->revision;
    ASSERT_GE(revision, acknowledged);
    ASSERT_LE(revision, acknowledged + 1);
    ASSERT_GE(acknowledged, until);
  }
  auto store = open_sqlite_store(dir_);
  Folded model;
  for (std::uint64_t r = 0; r < revision; ++r) model.fold(step(r));
  EXPECT_EQ((*store)->load()->objects, model.objects());
}

// --- damage and strangers ------------------------------------------------------------

TEST_F(ControllerFileTest, FlippedBitsNeverChangeWhatIsRead) {
  make(40);
  const auto content = read_all(file());
  const auto want = all_of(**open());
  std::mt19937 random(11);
  int refused = 0;
  for (int run = 0; run < 500; ++run) {
    auto flipped = content;
    for (unsigned i = 0; i <= random() % 3; ++i) {
      flipped[random() % flipped.size()] ^= static_cast<char>(1 << random() % 8);
    }
    write_all(file(), flipped);
    auto store = open();
    if (!store) {
      ++refused;
    } else {
      ASSERT_EQ(all_of(**store), want) << "run " << run;
    }
  }
  EXPECT_GT(refused, 50);
}

TEST_F(ControllerFileTest, MissingAndForeignRowsAreNoticed) {
  for (const auto* sql :
       {"DELETE FROM objects WHERE key='k1'", "DELETE FROM state", "UPDATE objects SET value=x'00'",
        "UPDATE objects SET key='k9' WHERE key='k1'", "UPDATE state SET revision=revision-1",
        "DELETE FROM changes WHERE revision=4", "UPDATE changes SET value=NULL",
        "DROP TABLE changes"}) {
    fs::remove_all(dir_);
    make(5);
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(file().c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sql;
    sqlite3_close(db);
    const auto store = open();
    ASSERT_FALSE(store) << sql;
    EXPECT_EQ(store.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(store.error().what, HasSubstr("controller.db is damaged: ")) << sql;
  }
}

TEST_F(ControllerFileTest, WhatIsNotOursIsRefusedAndLeftAsItWas) {
  make(3);
  auto damaged = read_all(file());
  std::fill(damaged.begin() + 100, damaged.end(), '\x5a');
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((temp_ / "theirs").c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db, "CREATE TABLE t(a)", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  ASSERT_EQ(sqlite3_open((temp_ / "newer").c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db,
                         "PRAGMA journal_mode=WAL; PRAGMA application_id=0x6d636f6e;"
                         "PRAGMA user_version=9; CREATE TABLE t(a);",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
  for (const auto& [content, why] :
       {std::pair(damaged, "is damaged"), std::pair(std::string(5000, 'x'), "is damaged"),
        std::pair(read_all(temp_ / "theirs"), "another program's database"),
        std::pair(read_all(temp_ / "newer"), "newer mesh-controller (schema 9")}) {
    write_all(file(), content);
    const auto store = open();
    ASSERT_FALSE(store) << why;
    EXPECT_EQ(store.error().code, ErrorCode::kInvalid) << store.error().what;
    EXPECT_THAT(store.error().what, HasSubstr(why));
    EXPECT_TRUE(read_all(file()) == content) << why;
  }
}

TEST_F(ControllerFileTest, ASecondControllerIsToldWhoHasIt) {
  const auto store = open();
  ASSERT_TRUE(store);
  const auto second = open();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
  EXPECT_THAT(second.error().what,
              HasSubstr(fmt::format("another mesh-controller uses it (pid {})", getpid())));
}

TEST_F(ControllerFileTest, NobodyElseCanReadIt) {
  make(1);
  for (const auto& [path, mode] : {std::pair(dir_, 0700U), std::pair(file(), 0600U)}) {
    struct stat info{};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, mode) << path;
  }
  ASSERT_EQ(chmod(dir_.c_str(), 0770), 0);
  EXPECT_EQ(open().error().code, ErrorCode::kInvalid);
}

TEST_F(ControllerFileTest, DirectoryThatCannotBeWrittenToIsNamed) {
  fs::create_directory(dir_);
  const bool root = geteuid() == 0;  // whom no mode stops
  const uid_t nobody = 65534;
  if (root) {
    ASSERT_EQ(chown(temp_.path().c_str(), nobody, nobody), 0);
    ASSERT_EQ(chown(dir_.c_str(), nobody, nobody), 0);
    ASSERT_EQ(seteuid(nobody), 0);
  }
  chmod(dir_.c_str(), 0500);
  const auto store = open();
  ASSERT_TRUE(!root || seteuid(0) == 0);
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::kSystem);
  EXPECT_EQ(store.error().sys_errno, EACCES);
  EXPECT_THAT(store.error().what, HasSubstr(dir_));
  chmod(dir_.c_str(), 0700);
}

TEST_F(ControllerFileTest, AnUpgradePutsACopyAside) {
  make(2);
  const auto before = all_of(**open());
  const std::array<std::string_view, 2> newer = {schema::kSqliteSteps[0],
                                                 "ALTER TABLE objects ADD COLUMN note TEXT;"};
  auto with = options();
  with.steps = newer;
  ASSERT_TRUE(open_sqlite_store(dir_, with));
  EXPECT_THAT(open().error().what, HasSubstr("controller.db.schema-1"));
  fs::rename(file() + ".schema-1", file());
  auto store = open();
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_EQ(all_of(**store), before);
}

}  // namespace
}  // namespace meshd::controller
