#include "tests/support/golden.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "tests/support/text_file.h"

namespace meshd {
namespace {

using Lines = std::vector<std::string_view>;

Lines lines_of(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const auto end = text.find('\n');
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return lines;
}

struct Edit {
  char mark;  // ' ', '-' or '+'
  std::string_view line;
};

// The longest common subsequence of lines stays; quadratic, so only up to a size at which
// nobody would read the difference anyway.
std::vector<Edit> edits(const Lines& before, const Lines& after) {
  constexpr std::size_t kMaxCells = 16'000'000;
  const std::size_t rows = before.size(), columns = after.size();
  std::vector<Edit> result;
  if ((rows + 1) * (columns + 1) > kMaxCells) {
    for (const auto line : before) result.push_back({'-', line});
    for (const auto line : after) result.push_back({'+', line});
    return result;
  }
  // common[i][j]: lines in common of before[i..] and after[j..].
  std::vector<std::uint32_t> common((rows + 1) * (columns + 1));
  const auto at = [&](std::size_t i, std::size_t j) -> std::uint32_t& {
    return common[i * (columns + 1) + j];
  };
  for (std::size_t i = rows; i-- > 0;) {
    for (std::size_t j = columns; j-- > 0;) {
      at(i, j) =
          before[i] == after[j] ? at(i + 1, j + 1) + 1 : std::max(at(i + 1, j), at(i, j + 1));
    }
  }
  for (std::size_t i = 0, j = 0; i < rows || j < columns;) {
    if (i < rows && j < columns && before[i] == after[j]) {
      result.push_back({' ', before[i++]}), ++j;
    } else if (j == columns || (i < rows && at(i + 1, j) >= at(i, j + 1))) {
      result.push_back({'-', before[i++]});
    } else {
      result.push_back({'+', after[j++]});
    }
  }
  return result;
}

}  // namespace

std::string line_diff(std::string_view before, std::string_view after) {
  constexpr std::size_t kAround = 2, kShown = 150;
  const auto all = edits(lines_of(before), lines_of(after));
  std::vector<bool> shown(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].mark == ' ') continue;
    for (auto n = i - std::min(i, kAround); n <= i + kAround && n < all.size(); ++n) {
      shown[n] = true;
    }
  }
  std::string text;
  std::size_t lines = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!shown[i]) continue;
    if (i > 0 && !shown[i - 1]) text += "  ...\n";
    if (++lines > kShown) return text + "  ... and more\n";
    text += fmt::format("{} {}\n", all[i].mark, all[i].line);
  }
  if (text.empty() && before != after) text = "  (the newline at the end)\n";
  return text;
}

std::string golden_complaint(const std::string& path, const std::string& got, bool update) {
  const auto wanted = read_file(path);
  if (wanted == got) return {};
  if (!update) {
    return fmt::format("{} {} (- wanted, + got; ./dev golden-update writes what was got):\n{}",
                       path, wanted ? "says otherwise" : "does not exist",
                       line_diff(wanted.value_or(""), got));
  }
  if (!write_file(path, got)) return path + " cannot be written";
  return fmt::format("{} was written (- as it was, + as it is now):\n{}", path,
                     line_diff(wanted.value_or(""), got));
}

void expect_golden(const std::string& path, const std::string& got) {
  const char* update = std::getenv("MESHD_GOLDEN_UPDATE");
  const bool asked = update != nullptr && *update != '\0';
  const auto complaint = golden_complaint(path, got, asked);
  EXPECT_TRUE(complaint.empty()) << complaint;
}

}  // namespace meshd
