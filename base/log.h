// Structured log lines, for programs only: library folders return errors and the
// program logs each once.
//
// Threads: every function from any thread after init().
// Errors:  none; a line that cannot be written is lost and counted by the sink's owner.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace meshd::log {

enum class Level { kDebug, kInfo, kWarning, kError };
enum class Format { kText, kJournal, kJson };  // journal: "<priority>message", no time

void init(Level level, Format format);
void write(Level level, std::string_view message);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
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

}  // namespace meshd::log
