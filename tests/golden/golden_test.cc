// What golden files are worth: a difference is a failure that can be read, and asking for an
// update passes nothing by itself.
#include "tests/support/golden.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"
#include "tests/support/text_file.h"

namespace meshd {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

class GoldenTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(write_file(path_, "one\ntwo\n")); }
  TempDir temp_;
  const std::string path_ = temp_ / "want";
};

TEST_F(GoldenTest, EqualTextIsNoComplaintEitherWay) {
  EXPECT_EQ(golden_complaint(path_, "one\ntwo\n", false), "");
  EXPECT_EQ(golden_complaint(path_, "one\ntwo\n", true), "");
}

TEST_F(GoldenTest, DifferenceIsShownAndNothingIsWritten) {
  const auto complaint = golden_complaint(path_, "one\n2\n", false);
  EXPECT_THAT(complaint, HasSubstr("want says otherwise"));
  EXPECT_THAT(complaint, EndsWith("  one\n- two\n+ 2\n"));
  EXPECT_EQ(read_file(path_), "one\ntwo\n");
}

TEST_F(GoldenTest, MissingFileIsADifference) {
  const auto complaint = golden_complaint(temp_ / "other", "new\n", false);
  EXPECT_THAT(complaint, HasSubstr("other does not exist"));
  EXPECT_THAT(complaint, EndsWith("+ new\n"));
  EXPECT_EQ(read_file(temp_ / "other"), std::nullopt);
}

TEST_F(GoldenTest, UpdateWritesAndComplainsOnce) {
  EXPECT_THAT(golden_complaint(path_, "one\n2\n", true), HasSubstr("want was written"));
  EXPECT_EQ(read_file(path_), "one\n2\n");
  EXPECT_EQ(golden_complaint(path_, "one\n2\n", true), "");
}

TEST_F(GoldenTest, WhatCannotBeWrittenIsSaid) {
  EXPECT_THAT(golden_complaint(temp_ / "no/such/folder", "x", true), EndsWith("cannot be written"));
}

TEST(LineDiffTest, ShowsWhatStandsAroundAChange) {
  EXPECT_EQ(line_diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\n5\nsix\n7\n8\n9\n"),
            "  ...\n  4\n  5\n- 6\n+ six\n  7\n  8\n");
  EXPECT_EQ(line_diff("a\nb\nc\nd\ne\nf\ng\n", "b\nc\nd\ne\nf\ng\nh\n"),
            "- a\n  b\n  c\n  ...\n  f\n  g\n+ h\n");
  EXPECT_EQ(line_diff("a\n", "a"), "  (the newline at the end)\n");
  EXPECT_EQ(line_diff("", "a\n"), "+ a\n");
}

}  // namespace
}  // namespace meshd
