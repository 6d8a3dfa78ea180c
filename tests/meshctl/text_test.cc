#include "meshctl/text.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/unique_fd.h"

namespace meshd::ctl {
namespace {

TEST(TextTest, ControlCharactersNeverReachATerminal) {
  EXPECT_EQ(printable("a\x1b[31mb\nc\td\x7f"), "a?[31mb?c?d?");
  EXPECT_EQ(printable("x\xc2\x9b"
                      "31m"),
            "x?31m");  // U+009B, a control sequence by itself
  EXPECT_EQ(printable("M\xc3\xbcller"), "M\xc3\xbcller");
  EXPECT_EQ(printable("end\xc2"), "end\xc2");
}

TEST(TextTest, ColumnsAlignAndLinesEndWithoutBlanks) {
  Table table({{"NAME"}, {"BYTES", Align::kRight}, {"NOTE"}});
  table.add({{"a"}, {"10"}, {"x"}});
  table.add({{"longer"}, {"123456"}, {""}});
  EXPECT_EQ(table.render({}),
            "NAME     BYTES  NOTE\n"
            "a           10  x\n"
            "longer  123456  -\n");
}

TEST(TextTest, ColumnsCountLettersNotBytes) {
  Table table({{"A"}, {"B"}});
  table.add({{"\xc3\xbc\xc3\xbc"}, {"1"}});
  table.add({{"abc"}, {"2"}});
  EXPECT_EQ(table.render({}), "A    B\n\xc3\xbc\xc3\xbc   1\nabc  2\n");
}

TEST(TextTest, ColourDoesNotShiftColumns) {
  Table table({{"A"}, {"B"}});
  table.add({{"x", Paint::kRed}, {"1"}});
  EXPECT_EQ(table.render({.colour = true}),
            "\x1b[1mA\x1b[0m  \x1b[1mB\x1b[0m\n\x1b[31mx\x1b[0m  1\n");
}

TEST(TextTest, AnEmptyTableStillSaysWhatItWouldShow) {
  EXPECT_EQ(Table({{"ID"}, {"NAME"}}).render({}), "ID  NAME\n");
}

TEST(TextTest, ATableCellCannotForgeALine) {
  Table table({{"A"}});
  table.add({{"x\nREADY"}});
  EXPECT_EQ(table.render({}), "A\nx?READY\n");
}

TEST(TextTest, NumbersAreHumanisedOnlyForPeople) {
  EXPECT_EQ(render_bytes(1258291, {}), "1258291");
  EXPECT_EQ(render_bytes(1258291, {.human = true}), "1.2 MiB");
  EXPECT_EQ(render_bytes(1023, {.human = true}), "1023 B");
  EXPECT_EQ(render_bytes(1048575, {.human = true}), "1.0 MiB");
  EXPECT_EQ(render_bytes(UINT64_MAX, {.human = true}), "16384.0 PiB");
  EXPECT_EQ(render_count(999, {.human = true}), "999");
  EXPECT_EQ(render_count(12345, {.human = true}), "12.3k");
  EXPECT_EQ(render_count(999'950, {.human = true}), "1.0M");
  EXPECT_EQ(render_count(12345, {}), "12345");
}

TEST(TextTest, OnlyATerminalIsDressedUpAndNoColorIsRespected) {
  const UniqueFd file(open("/dev/null", O_WRONLY | O_CLOEXEC));
  EXPECT_FALSE(style_of(file.get()).human);
  EXPECT_FALSE(style_of(file.get()).colour);
  const UniqueFd terminal(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(terminal);
  setenv("TERM", "xterm", 1);
  unsetenv("NO_COLOR");
  EXPECT_TRUE(style_of(terminal.get()).colour);
  EXPECT_TRUE(style_of(terminal.get()).human);
  setenv("NO_COLOR", "", 1);
  EXPECT_TRUE(style_of(terminal.get()).colour);
  setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(style_of(terminal.get()).colour);
  EXPECT_TRUE(style_of(terminal.get()).human);
  unsetenv("NO_COLOR");
  setenv("TERM", "dumb", 1);
  EXPECT_FALSE(style_of(terminal.get()).colour);
}

}  // namespace
}  // namespace meshd::ctl
