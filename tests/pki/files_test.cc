#include "pki/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/pki_samples.h"
#include "tests/support/temp_dir.h"
#include "tests/support/text_file.h"

namespace meshd::pki {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

class PkiFilesTest : public testing::Test {
 protected:
  [[nodiscard]] std::string why_not() const {
    const auto read = read_identity(files_);
    return read ? "" : read.error().what;
  }

  TempDir dir_;
  SampleAuthority authority_;
  IdentityFiles files_ =
      authority_.write(dir_.path(), holder_of("lab", Role::kNode, "node-7"), kSampleNow);
};

mode_t mode_of(const std::string& path) {
  struct stat info{};
  EXPECT_EQ(stat(path.c_str(), &info), 0);
  return info.st_mode & 07777;
}

TEST_F(PkiFilesTest, WhatWasWrittenIsRead) {
  const auto read = read_identity(files_);
  ASSERT_TRUE(read) << read.error().what;
  EXPECT_EQ(read->certificate.identity()->name, "node-7");
  EXPECT_TRUE(read->certificate.belongs_to(read->key));
  EXPECT_EQ(read->authorities.cluster, "lab");
  EXPECT_EQ(mode_of(files_.identity), 0600);
  EXPECT_EQ(names_in(dir_.path()).size(), 2);  // nothing is left over
}

TEST_F(PkiFilesTest, AWriteThatWasCutOffIsNoObstacle) {
  ASSERT_TRUE(write_file(files_.identity + ".new", "half a k"));
  ASSERT_EQ(why_not(), "");
  const auto key = new_key();
  ASSERT_TRUE(write_key(files_.identity, key));
  EXPECT_EQ(read_key(files_.identity)->public_der(), key.public_der());
}

TEST_F(PkiFilesTest, ACertificateOfAnotherKeyIsNotWritten) {
  const auto before = read_file(files_.identity);
  const auto own = new_key();
  const auto certificate =
      authority_.give(own, holder_of("lab", Role::kNode, "node-7"), kSampleNow).value();
  const auto written = write_identity(files_.identity, new_key(), certificate);
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().what, EndsWith("key and certificate do not belong together"));
  EXPECT_EQ(read_file(files_.identity), before);
}

TEST_F(PkiFilesTest, ACertificateOfAnotherKeyIsNotRead) {
  const auto certificate = read_identity(files_)->certificate;
  ASSERT_TRUE(write_file(files_.identity, new_key().to_pem() + certificate.to_pem()));
  EXPECT_THAT(why_not(), EndsWith("key and certificate do not belong together"));
}

TEST_F(PkiFilesTest, AKeyThatOthersCanReadIsRefused) {
  ASSERT_EQ(chmod(files_.identity.c_str(), 0640), 0);
  EXPECT_THAT(why_not(), HasSubstr("others may read it (mode 0640)"));
  ASSERT_EQ(chmod(files_.identity.c_str(), 0600), 0);
  ASSERT_EQ(chmod(files_.authorities.c_str(), 0666), 0);
  EXPECT_THAT(why_not(), EndsWith("others may write to it"));
}

TEST_F(PkiFilesTest, AnErrorNamesTheFile) {
  files_.authorities = dir_ / "nothing";
  EXPECT_EQ(why_not(), dir_ / "nothing: no such file");
  files_.authorities = dir_.path();
  EXPECT_EQ(why_not(), dir_.path() + ": not a plain file");
  ASSERT_TRUE(write_file(files_.identity, "no key"));
  EXPECT_THAT(why_not(), testing::StartsWith(files_.identity + ": private key: none"));
  EXPECT_EQ(read_key(dir_ / "nothing").error().code, ErrorCode::kNotFound);
}

TEST_F(PkiFilesTest, AuthoritiesThatAreNoneAreNotWritten) {
  const auto before = read_file(files_.authorities);
  EXPECT_FALSE(write_authorities(files_.authorities, "no certificate"));
  EXPECT_FALSE(write_authorities(files_.authorities, read_identity(files_)->certificate.to_pem()));
  EXPECT_EQ(read_file(files_.authorities), before);
}

TEST_F(PkiFilesTest, AHugeFileIsRefused) {
  ASSERT_TRUE(write_file(files_.authorities, std::string(kMaxPemBytes + 1, '\n')));
  EXPECT_THAT(why_not(), HasSubstr("more than 131072 bytes of PEM"));
}

}  // namespace
}  // namespace meshd::pki
