// The state file under what may befall it: faults of the disk, damage, other versions,
// other users.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <random>

#include "meshd/schema.h"
#include "meshd/store.h"
#include "tests/support/fault_vfs.h"
#include "tests/support/store_dump.h"
#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr TimePoint kNow{std::chrono::seconds(1000)};

policy::Declaration declaration(const std::string& id) {
  policy::Declaration d;
  d.id = id;
  d.owner = "ada";
  d.workflow = "wf1";
  return d;
}

// The g-th change of a history in which every step adds, replaces and removes something.
std::vector<StoreChange> step(std::uint64_t g) {
  const auto id = [](std::uint64_t n) { return fmt::format("w{}", n % 7); };
  policy::Attachment a;
  a.netns_path = std::string(200 * (g % 5), 'x');
  a.v4 = IpAddress::v4(static_cast<std::uint32_t>(0x0ad50000 + g));
  a.attached_at = kNow + Duration(g);
  return {DropDeclaration{id(g + 3)},
          PutDeclaration{id(g), declaration(id(g))},
          PutAttachment{id(g), a},
          PutReady{id(g), g % 2 == 0, {{static_cast<std::uint16_t>(g), {true, g % 3 == 0}}}},
          PutQuarantine{*a.v4, kNow + std::chrono::hours(1)},
          PutService{{policy::Scope::kCluster, "", id(g)}, {"ada", a.v4, {}, kNow, {}}}};
}

class StoreFileTest : public testing::Test {
 protected:
  void SetUp() override { FaultVfs::instance().reset(); }
  void TearDown() override { FaultVfs::instance().reset(); }

  static StoreOptions options(std::string vfs = FaultVfs::kName) {
    StoreOptions result;
    result.boot_id = "boot";
    result.now = kNow;
    result.vfs = std::move(vfs);
    return result;
  }
  Result<Store> open() const { return Store::open(dir_, options()); }
  std::string file() const { return dir_ + "/meshd.db"; }

  // What the store holds after each step of the history, from an undisturbed run.
  static std::vector<std::string> history(std::uint64_t steps) {
    const TempDir temp(TempDir::memory());
    auto store = Store::open(temp / "state", options());
    EXPECT_TRUE(store);
    std::vector<std::string> result = {dump(store->load().value())};
    for (std::uint64_t g = 1; g <= steps; ++g) {
      EXPECT_TRUE(store->apply(step(g), g));
      result.push_back(dump(store->load().value()));
    }
    return result;
  }

  void run_until_crash(int at, bool torn, std::uint64_t steps, std::uint64_t& acknowledged) {
    FaultVfs::instance().reset();
    FaultVfs::instance().crash_at(at, torn);
    auto store = open();
    if (!store) return;
    for (std::uint64_t g = 1; g <= steps; ++g) {
      if (!store->apply(step(g), g)) return;
      acknowledged = g;
    }
  }

  TempDir temp_{TempDir::memory()};
  const std::string dir_ = temp_ / "state";
};

// --- faults --------------------------------------------------------------------------

TEST_F(StoreFileTest, PowerLossAtAnyWriteLeavesBeforeOrAfterNeverBetween) {
  constexpr std::uint64_t kSteps = 6;
  const auto want = history(kSteps);
  int crashes = 0;
  for (int at = 1; at < 2000; ++at) {
    const bool torn = at % 2 == 0;
    fs::remove_all(dir_);
    std::uint64_t acknowledged = 0;
    run_until_crash(at, torn, kSteps, acknowledged);
    const bool fired = FaultVfs::instance().fired();
    if (!fired) break;  // every operation has had its turn
    ++crashes;
    FaultVfs::instance().lose_unsynced(static_cast<unsigned>(at));
    FaultVfs::instance().reset();
    auto store = open();
    ASSERT_TRUE(store) << "operation " << at << ": " << store.error().what;
    const auto got = dump(store->load().value());
    const bool before = got == want[acknowledged];
    const bool after = acknowledged < kSteps && got == want[acknowledged + 1];
    ASSERT_TRUE(before || after) << "operation " << at << ", acknowledged " << acknowledged << ":\n"
                                 << got;
    ASSERT_TRUE(store->apply(step(99), 99)) << "operation " << at;
  }
  EXPECT_GT(crashes, 50);  // else the fault layer is not in use
  EXPECT_LT(crashes, 1999);
}

TEST_F(StoreFileTest, FailedWriteIsReportedAndMayBeTriedAgain) {
  constexpr std::uint64_t kSteps = 3;
  const auto want = history(kSteps);
  int reported = 0;
  for (const int error : {SQLITE_FULL, SQLITE_IOERR_WRITE}) {
    for (int at = 1; at < 500; ++at) {
      fs::remove_all(dir_);
      FaultVfs::instance().reset();
      auto store = open();
      ASSERT_TRUE(store);
      FaultVfs::instance().fail_once(at, error);
      for (std::uint64_t g = 1; g <= kSteps; ++g) {
        auto status = store->apply(step(g), g);
        if (!status) {
          ++reported;
          EXPECT_EQ(status.error().code, ErrorCode::kSystem) << status.error().what;
          ASSERT_EQ(dump(store->load().value()), want[g - 1]) << "operation " << at;
          status = store->apply(step(g), g);
        }
        ASSERT_TRUE(status) << "operation " << at << ": " << status.error().what;
      }
      ASSERT_EQ(dump(store->load().value()), want[kSteps]) << "operation " << at;
      if (!FaultVfs::instance().fired()) break;
    }
  }
  EXPECT_GT(reported, 20);
}

TEST_F(StoreFileTest, FullDiskIsNamed) {
  auto store = open();
  ASSERT_TRUE(store);
  FaultVfs::instance().fail_once(1, SQLITE_FULL);
  const auto status = store->apply(step(1), 1);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().sys_errno, ENOSPC);
  EXPECT_THAT(status.error().what, HasSubstr("store generation 1: "));
  EXPECT_THAT(status.error().what, HasSubstr("database or disk is full"));
}

TEST_F(StoreFileTest, FaultWhileOpeningIsAnErrorAndTheNextStartWorks) {
  const auto want = history(2);
  for (int at = 1; at < 500; ++at) {
    fs::remove_all(dir_);
    FaultVfs::instance().reset();
    {
      auto store = open();
      ASSERT_TRUE(store && store->apply(step(1), 1) && store->apply(step(2), 2));
    }
    FaultVfs::instance().fail_once(at, SQLITE_IOERR_WRITE);
    auto rebooted = options();
    rebooted.boot_id = "other";
    {
      [[maybe_unused]] const auto failed = Store::open(dir_, rebooted);
    }
    const bool fired = FaultVfs::instance().fired();
    FaultVfs::instance().reset();
    auto store = Store::open(dir_, rebooted);
    ASSERT_TRUE(store) << "operation " << at << ": " << store.error().what;
    ASSERT_EQ(store->load()->generation, 3U) << "operation " << at;
    ASSERT_EQ(store->load()->workloads.size(), 2U);
    if (!fired) return;
  }
  FAIL() << "never came to an end";
}

// --- damage --------------------------------------------------------------------------

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_all(const std::string& path, const std::string& content) {
  // In place where it can be: to truncate first makes the file system sync.
  const auto mode = fs::exists(path) ? std::ios::in | std::ios::out : std::ios::out;
  std::fstream(path, std::ios::binary | mode) << content;
  fs::resize_file(path, content.size());
}

TEST_F(StoreFileTest, FlippedBitsNeverChangeWhatIsRead) {
  {
    auto store = open();
    ASSERT_TRUE(store);
    for (std::uint64_t g = 1; g <= 40; ++g) ASSERT_TRUE(store->apply(step(g), g));
  }
  const auto content = read_all(file());
  const auto want = dump(open()->load().value());
  std::mt19937 random(11);
  int refused = 0;
  for (int run = 0; run < 1000; ++run) {
    auto flipped = content;
    for (unsigned i = 0; i <= random() % 3; ++i) {
      flipped[random() % flipped.size()] ^= static_cast<char>(1 << random() % 8);
    }
    write_all(file(), flipped);
    auto store = open();
    if (!store) {
      ++refused;
      continue;
    }
    ASSERT_EQ(dump(store->load().value()), want) << "run " << run;
  }
  EXPECT_GT(refused, 100);
}

TEST_F(StoreFileTest, MissingAndForeignRowsAreNoticed) {
  for (const auto* sql :
       {"DELETE FROM quarantine", "DELETE FROM node", "UPDATE services SET owner='eve'",
        "UPDATE ready SET ports='2:4'", "INSERT INTO draining(id,sum) SELECT id,0 FROM attachments",
        "UPDATE node SET generation=generation-1", "DROP TABLE ready"}) {
    fs::remove_all(dir_);
    {
      auto store = open();
      ASSERT_TRUE(store && store->apply(step(1), 1));
    }
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(file().c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sql;
    sqlite3_close(db);
    const auto store = open();
    ASSERT_FALSE(store) << sql;
    EXPECT_THAT(store.error().what, HasSubstr("meshd.db is damaged: ")) << sql;
  }
}

TEST_F(StoreFileTest, DamagedFileIsRefusedWithTheMend) {
  {
    ASSERT_TRUE(open());
  }
  auto content = read_all(file());
  std::fill(content.begin() + 100, content.end(), '\x5a');
  write_all(file(), content);
  const auto store = open();
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(store.error().what, HasSubstr("meshd.db is damaged: "));
  EXPECT_THAT(store.error().what, HasSubstr("-wal away"));
  EXPECT_EQ(read_all(file()), content);  // for whoever wants to look at it
}

TEST_F(StoreFileTest, FileThatIsNoDatabaseIsRefused) {
  fs::create_directory(dir_);
  write_all(file(), std::string(5000, 'x'));
  fs::permissions(file(), fs::perms::owner_read | fs::perms::owner_write);
  const auto store = open();
  ASSERT_FALSE(store);
  EXPECT_THAT(store.error().what, HasSubstr("is damaged"));
}

// --- versions ------------------------------------------------------------------------

constexpr std::array<std::string_view, 5> kNewer = {schema::kSteps[0], schema::kSteps[1],
                                                    schema::kSteps[2], schema::kSteps[3],
                                                    "ALTER TABLE quarantine ADD COLUMN note TEXT;"};

TEST_F(StoreFileTest, OlderFileIsMigratedAndACopyKeptForTheWayBack) {
  std::string before;
  {
    auto store = open();
    ASSERT_TRUE(store && store->apply(step(1), 1));
    before = dump(store->load().value());
  }
  auto newer = options();
  newer.steps = kNewer;
  {
    auto store = Store::open(dir_, newer);
    ASSERT_TRUE(store) << store.error().what;
    EXPECT_EQ(dump(store->load().value()), before);
    ASSERT_TRUE(store->apply(step(2), 2));
  }
  const auto refused = open();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(refused.error().what, HasSubstr("newer meshd (schema 5, this one knows 4)"));
  EXPECT_THAT(refused.error().what, HasSubstr("meshd.db.schema-4"));

  struct stat info{};
  ASSERT_EQ(stat((file() + ".schema-4").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600U);
  fs::rename(file() + ".schema-4", file());
  auto store = open();
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_EQ(dump(store->load().value()), before);
}

// As a meshd left it that knew of no cluster.
TEST_F(StoreFileTest, FileOfANodeByItselfIsTaken) {
  std::string before;
  {
    auto store = open();
    ASSERT_TRUE(store && store->apply(step(1), 1));
    before = dump(store->load().value());
  }
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(file().c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db,
                         "DROP TABLE cluster; DROP TABLE slice; DROP TABLE confirmed; "
                         "DROP TABLE terms; PRAGMA user_version=2;",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
  auto store = open();
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_EQ(dump(store->load().value()), before);
  EXPECT_FALSE(store->load()->cluster);
  const StoreChange change[] = {PutSliceItem{{1, "db"}, "value"}};
  EXPECT_TRUE(store->apply(change, 2));
  EXPECT_TRUE(fs::exists(file() + ".schema-2"));
}

// As the first meshd left it: schema 1 had no tables for what came later.
TEST_F(StoreFileTest, FileOfTheFirstSchemaIsTaken) {
  std::string before;
  {
    auto store = open();
    ASSERT_TRUE(store && store->apply(step(1), 1));
    before = dump(store->load().value());
  }
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(file().c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db,
                         "DROP TABLE idle_names; DROP TABLE left_netns; DROP TABLE cluster; "
                         "DROP TABLE slice; DROP TABLE confirmed; DROP TABLE terms; "
                         "PRAGMA user_version=1;",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
  auto store = open();
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_EQ(dump(store->load().value()), before);
  const StoreChange change[] = {PutIdleName{"x", 5}};
  EXPECT_TRUE(store->amend(change));
  EXPECT_TRUE(fs::exists(file() + ".schema-1"));
}

TEST_F(StoreFileTest, MigrationThatFailsLeavesTheOldVersion) {
  {
    auto store = open();
    ASSERT_TRUE(store && store->apply(step(1), 1));
  }
  constexpr std::array<std::string_view, 6> kBroken = {
      schema::kSteps[0],
      schema::kSteps[1],
      schema::kSteps[2],
      schema::kSteps[3],
      "ALTER TABLE quarantine ADD COLUMN note TEXT;",
      "ALTER TABLE nonsense ADD COLUMN note TEXT;"};
  auto broken = options();
  broken.steps = kBroken;
  const auto failed = Store::open(dir_, broken);
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().what, HasSubstr("schema step 6"));
  auto store = open();
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_EQ(store->load()->generation, 1U);
}

TEST_F(StoreFileTest, AnotherProgramsDatabaseIsRefused) {
  fs::create_directory(dir_);
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(file().c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db, "CREATE TABLE theirs(a)", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  fs::permissions(file(), fs::perms::owner_read | fs::perms::owner_write);
  const auto store = open();
  ASSERT_FALSE(store);
  EXPECT_THAT(store.error().what, HasSubstr("another program's database"));
}

// --- other users ---------------------------------------------------------------------

TEST_F(StoreFileTest, DirectoryThatOthersMayWriteToIsRefused) {
  fs::create_directory(dir_);
  ASSERT_EQ(chmod(dir_.c_str(), 0777), 0);
  EXPECT_THAT(open().error().what, HasSubstr("others may write to it (mode 0777)"));
  ASSERT_EQ(chmod(dir_.c_str(), 0755), 0);
  ASSERT_TRUE(open());
  struct stat info{};
  ASSERT_EQ(stat(dir_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700U);
}

TEST_F(StoreFileTest, LinkInPlaceOfTheDirectoryIsRefused) {
  fs::create_directory(temp_ / "elsewhere");
  fs::create_directory_symlink(temp_ / "elsewhere", dir_);
  EXPECT_THAT(open().error().what, HasSubstr("a link or a file, not a directory"));
  EXPECT_FALSE(Store::open(dir_ + "/", options()));
  EXPECT_TRUE(fs::is_empty(temp_ / "elsewhere"));
}

TEST_F(StoreFileTest, PlantedFilesAreNotFollowed) {
  const auto victim = temp_ / "victim";
  for (const auto* name : {"meshd.db", "meshd.db-wal", "meshd.db-journal", "lock"}) {
    for (const bool hard : {false, true}) {
      fs::remove_all(dir_);
      fs::create_directory(dir_);
      write_all(victim, "precious");
      const auto planted = dir_ + "/" + name;
      hard ? fs::create_hard_link(victim, planted) : fs::create_symlink(victim, planted);
      const auto store = open();
      ASSERT_FALSE(store) << name;
      EXPECT_EQ(store.error().code, ErrorCode::kInvalid) << store.error().what;
      EXPECT_EQ(read_all(victim), "precious") << name;
    }
  }
}

}  // namespace
}  // namespace meshd
