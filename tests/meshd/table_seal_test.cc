#include "meshd/table_seal.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/temp_dir.h"
#include "tests/support/text_file.h"

namespace meshd {
namespace {

constexpr const char* kBoot = "f3b1c7e2-0000-4000-8000-0123456789ab";

class SealFileTest : public testing::Test {
 protected:
  [[nodiscard]] std::optional<TableSeal> read(const std::string& boot = kBoot) const {
    const auto file = SealFile::open(dir_.path(), boot);
    EXPECT_TRUE(file) << file.error().what;
    return file ? file->read() : std::nullopt;
  }
  void write(const TableSeal& seal) const {
    const auto file = SealFile::open(dir_.path(), kBoot);
    ASSERT_TRUE(file) << file.error().what;
    file->write(seal);
  }

  TempDir dir_;
  std::string path_ = dir_ / SealFile::kName;
  TableSeal seal_{0xfedc'ba98'7654'3210, 1, 0xffff'ffff'ffff'ffff, 0x8000'0001};
};

TEST_F(SealFileTest, NothingIsKeptAtFirst) { EXPECT_FALSE(read()); }

TEST_F(SealFileTest, KeepsTheLastOne) {
  write({});
  write(seal_);
  EXPECT_EQ(read(), seal_);
  EXPECT_FALSE(read("another-boot"));
}

TEST_F(SealFileTest, AnyDamageReadsAsNothing) {
  write(seal_);
  const auto whole = read_file(path_).value();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    auto flipped = whole;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    ASSERT_TRUE(write_file(path_, flipped));
    EXPECT_FALSE(read()) << "byte " << i;
    ASSERT_TRUE(write_file(path_, whole.substr(0, i)));
    EXPECT_FALSE(read()) << "cut to " << i;
  }
  ASSERT_TRUE(write_file(path_, whole + "x"));
  EXPECT_FALSE(read());
  ASSERT_TRUE(write_file(path_, std::string(100'000, 'f')));
  EXPECT_FALSE(read());
  ASSERT_TRUE(write_file(path_, whole));
  EXPECT_EQ(read(), seal_);
}

TEST_F(SealFileTest, FileThatOthersMayWriteIsRefused) {
  write(seal_);
  ASSERT_EQ(chmod(path_.c_str(), 0622), 0);
  EXPECT_FALSE(SealFile::open(dir_.path(), kBoot));
  ASSERT_EQ(unlink(path_.c_str()), 0);
  ASSERT_EQ(symlink("/dev/null", path_.c_str()), 0);
  EXPECT_FALSE(SealFile::open(dir_.path(), kBoot));
}

}  // namespace
}  // namespace meshd
