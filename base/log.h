// Structured log lines on stderr, for programs only: library folders return errors and
// the program logs each once.
//
// Threads:   every function from any thread.
// Invariant: one message is one line: what is not printable UTF-8 in it is escaped, so
//            that a name from outside can neither forge a line nor steer a terminal.
// Errors:    none; a line that cannot be written at once is lost, and the next one that can
//            is led by how many were.
// Source:    sd-daemon(3) for the journal's "<priority>message".
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace meshd::log {

enum class Level { kDebug, kInfo, kWarning, kError };
enum class Format { kText, kJournal, kJson };  // journal: "<priority>message", no time

// A line is cut here: longer ones are somebody's data, not our sentence.
inline constexpr std::size_t kMaxMessageBytes = 4096;
// Lines a second, and in one burst: what a person can follow and a disk does not notice.
// Warnings and errors are counted apart from the rest, what audit() writes not at all.
inline constexpr int kLinesPerSecond = 50;
// The same for lines that begin alike (up to the first ':'), so that one thing gone wild
// leaves room for the line that explains it.
inline constexpr int kAlikePerSecond = 20;

// Until init(): text, from kInfo.
void init(Level level, Format format);
void write(Level level, std::string_view message);
// Who did what: written whatever the level and however many there are.
void audit(std::string_view message);

template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

// `message` as one printable line of at most kMaxMessageBytes, plus a mark when cut.
[[nodiscard]] std::string printable(std::string_view message);

// Decides which lines of a storm are still written. Not thread-safe; write() has its own.
class LineBudget {
 public:
  struct Verdict {
    bool admitted = false;
    std::uint64_t suppressed = 0;  // with an admitted line: those lost since the last one
  };
  [[nodiscard]] Verdict admit(std::string_view message, TimePoint now);

 private:
  struct Bucket {
    double tokens = -1;  // negative: never used, so full
    TimePoint filled{};
    void fill(int per_second, TimePoint now);
  };
  // Lines that begin differently may share a bucket; that only makes the limit stricter.
  static constexpr std::size_t kBuckets = 64;
  std::array<Bucket, kBuckets> alike_;
  Bucket all_;
  std::uint64_t suppressed_ = 0;
};

}  // namespace meshd::log
