#include "base/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <future>
#include <string>
#include <thread>
#include <vector>

namespace meshd::log {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::MatchesRegex;

// Runs `action` with stderr in a temporary file and returns what was written there.
template <class Action>
std::string stderr_of(Action action) {
  testing::internal::CaptureStderr();
  action();
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, TextLineHasTimeLevelAndMessage) {
  const auto out = stderr_of([] {
    init(Level::kInfo, Format::kText);
    warning("text {}: {}", "upstream", 7);
  });
  EXPECT_THAT(out, MatchesRegex("[0-9-]+T[0-9:]+\\.[0-9]+Z warning: text upstream: 7\n"));
}

TEST(LogTest, JournalLineHasPriorityAndNoTime) {
  const auto out = stderr_of([] {
    init(Level::kDebug, Format::kJournal);
    write(Level::kDebug, "journal a");
    info("journal b");
    warning("journal c");
    error("journal d");
  });
  EXPECT_EQ(out, "<7>journal a\n<6>journal b\n<4>journal c\n<3>journal d\n");
}

TEST(LogTest, JsonLineEscapesQuotesAndBackslashes) {
  const auto out = stderr_of([] {
    init(Level::kInfo, Format::kJson);
    info("json say \"hi\" \\ 100%v\n");
  });
  EXPECT_THAT(out, HasSubstr(R"("level":"info","message":"json say \"hi\" \\ 100%v\\x0a"})"));
  EXPECT_EQ(out.find('\n'), out.size() - 1);
}

TEST(LogTest, LinesBelowTheLevelAreNotWritten) {
  const auto out = stderr_of([] {
    init(Level::kWarning, Format::kJournal);
    info("level no");
    error("level yes");
  });
  EXPECT_EQ(out, "<3>level yes\n");
}

TEST(LogTest, MessageCannotForgeALineOrSteerATerminal) {
  EXPECT_EQ(printable("a\nb\x1b[31m\x7f"), "a\\x0ab\\x1b[31m\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");  // C1 control
  EXPECT_EQ(printable("\xe2\x80\xae"
                      "x"),
            "\\xe2\\x80\\xaex");                   // right-to-left override
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");  // not UTF-8, and cut off
  EXPECT_EQ(printable("\xc0\xaf\xed\xa0\x80"), "\\xc0\\xaf\\xed\\xa0\\x80");
  EXPECT_EQ(printable("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xb3"),
            "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xb3");
}

TEST(LogTest, LongMessageIsCutAndSaysSo) {
  const auto out = printable(std::string(kMaxMessageBytes + 1, 'x'));
  EXPECT_EQ(out, std::string(kMaxMessageBytes, 'x') + " [cut]");
  EXPECT_EQ(printable(std::string(kMaxMessageBytes, 'x')).size(), kMaxMessageBytes);
}

TEST(LogTest, StormFromManyThreadsStaysWithinTheLimitInWholeLines) {
  const auto before = BootClock::now();
  const auto out = stderr_of([] {
    init(Level::kInfo, Format::kJournal);
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([t] {
        for (int i = 0; i < 2000; ++i) info("storm {}: line", t);
      });
    }
  });
  const std::chrono::duration<double> took = BootClock::now() - before;
  const auto lines = std::ranges::count(out, '\n');
  EXPECT_GT(lines, 10);
  EXPECT_LE(static_cast<double>(lines), kLinesPerSecond * (1 + took.count()) + 1);
  for (std::size_t at = 0; at < out.size(); at = out.find('\n', at) + 1) {
    EXPECT_TRUE(out.substr(at, 8) == "<6>storm" || out.substr(at, 7) == "<4>log:");
  }
}

TEST(LogTest, AStormOfOrdinaryLinesLeavesRoomForWarnings) {
  const auto out = stderr_of([] {
    init(Level::kInfo, Format::kJournal);
    for (int i = 0; i < 1000; ++i) info("REFUSED_FLOW c{}: x", i);
    warning("PROBLEM store: disk full");
  });
  EXPECT_THAT(out, HasSubstr("<4>PROBLEM store: disk full\n"));
}

TEST(LogTest, AnAuditLosesNoLineToALimitOrALevel) {
  const auto out = stderr_of([] {
    init(Level::kError, Format::kJournal);
    for (int i = 0; i < 300; ++i) audit(fmt::format("control.sock: {}", i));
    init(Level::kInfo, Format::kJournal);
  });
  EXPECT_EQ(std::ranges::count(out, '\n'), 300);
  EXPECT_THAT(out, HasSubstr("<6>control.sock: 299\n"));
}

// Stderr is a pipe of two pages that nobody reads until the test does.
class StuckReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(pipe2(pipe_.data(), O_CLOEXEC), 0);
    ASSERT_EQ(fcntl(pipe_[0], F_SETFL, O_NONBLOCK), 0);  // of the reading end alone
    ASSERT_EQ(fcntl(pipe_[1], F_SETPIPE_SZ, 8192), 8192);
    saved_ = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    dup2(pipe_[1], STDERR_FILENO);
    init(Level::kInfo, Format::kJournal);
  }
  void TearDown() override {
    dup2(saved_, STDERR_FILENO);
    for (const int fd : {saved_, pipe_[0], pipe_[1]}) close(fd);
  }
  std::string read_all() {
    std::string all(65536, '\0');
    const auto got = read(pipe_[0], all.data(), all.size());
    all.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    return all;
  }
  std::array<int, 2> pipe_{};
  int saved_ = -1;
};

TEST_F(StuckReaderTest, WritingDoesNotWaitAndTheLossIsTold) {
  auto writing = std::async(std::launch::async, [] {
    for (int i = 0; i < 12; ++i) error("stuck {}: {}", i, std::string(1000, 'x'));
  });
  const bool waited = writing.wait_for(std::chrono::seconds(5)) != std::future_status::ready;
  auto out = read_all();
  while (writing.wait_for(milliseconds(1)) != std::future_status::ready) out += read_all();
  EXPECT_FALSE(waited);
  const auto whole = std::ranges::count(out, '\n');
  EXPECT_GE(whole, 3);
  warning("reads again: x");
  EXPECT_THAT(read_all(), HasSubstr("<4>log: " + std::to_string(12 - whole) +
                                    " lines could not be written\n<4>reads again: x\n"));
}

TEST(LineBudgetTest, SpareBudgetReturnsWithTimeAndTheLossIsTold) {
  LineBudget budget;
  TimePoint now{std::chrono::seconds(100)};
  int admitted = 0;
  for (int i = 0; i < 1000; ++i) admitted += budget.admit("same: x", now).admitted ? 1 : 0;
  EXPECT_EQ(admitted, kAlikePerSecond);
  now += milliseconds(50);  // one token: not enough for the line and the notice
  EXPECT_FALSE(budget.admit("same: x", now).admitted);
  now += milliseconds(50);
  const auto verdict = budget.admit("same: x", now);
  EXPECT_TRUE(verdict.admitted);
  EXPECT_EQ(verdict.suppressed, 1000U - kAlikePerSecond + 1);
  now += milliseconds(500);
  EXPECT_EQ(budget.admit("same: x", now).suppressed, 0U);
}

TEST(LineBudgetTest, OneStormLeavesRoomForOtherLines) {
  LineBudget budget;
  const TimePoint now{std::chrono::seconds(100)};
  for (int i = 0; i < 1000; ++i) (void)budget.admit("container a: refused", now);
  EXPECT_TRUE(budget.admit("store: disk full", now).admitted);
}

TEST(LineBudgetTest, NeverMoreThanTheLimitInAnySecondBeyondOneBurst) {
  LineBudget budget;
  TimePoint now{std::chrono::seconds(100)};
  int lines = 0;
  for (int i = 0; i < 10'000; ++i, now += milliseconds(1)) {
    const auto verdict = budget.admit(fmt::format("{}: x", i % 100), now);
    if (verdict.admitted) lines += verdict.suppressed > 0 ? 2 : 1;
  }
  EXPECT_LE(lines, kLinesPerSecond * 11);
  EXPECT_GE(lines, kLinesPerSecond * 9);
}

TEST(LineBudgetTest, ClockThatStandsStillOrStepsBackGivesNothing) {
  LineBudget budget;
  const TimePoint now{std::chrono::seconds(100)};
  for (int i = 0; i < 100; ++i) (void)budget.admit("a: x", now);
  EXPECT_FALSE(budget.admit("a: x", now - std::chrono::hours(1)).admitted);
}

}  // namespace
}  // namespace meshd::log
