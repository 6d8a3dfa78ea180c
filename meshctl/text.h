// Text for people: what may be put on a terminal, in which dress, and aligned columns.
//
// Invariant: nothing that a declaration's author wrote reaches a terminal with control
//            characters in it; they could move the cursor or forge lines.
// Units:     column widths count code points, which is right for the Latin text that
//            ids, names and addresses are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace meshd::ctl {

struct Style {
  bool colour = false;  // ANSI colours
  bool human = false;   // 1.2 MiB in place of 1258291
};

// Both on a terminal; colours not with NO_COLOR (https://no-color.org) or TERM=dumb.
[[nodiscard]] Style style_of(int fd);

enum class Paint { kPlain, kBold, kDim, kGreen, kYellow, kRed };
[[nodiscard]] std::string paint(std::string_view text, Paint colour, const Style& style);

// `text` with every control character replaced by '?', so it also is one line.
[[nodiscard]] std::string printable(std::string_view text);

[[nodiscard]] std::string render_bytes(std::uint64_t bytes, const Style& style);
[[nodiscard]] std::string render_count(std::uint64_t count, const Style& style);

enum class Align { kLeft, kRight };

struct Column {
  std::string_view title;
  Align align = Align::kLeft;
};

struct Cell {
  std::string text;
  Paint colour = Paint::kPlain;
};

// Columns as wide as their widest cell, two blanks between them, none at a line's end.
// An empty cell shows as "-". The title line is printed for an empty table too.
class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add(std::vector<Cell> row);  // one cell for each column
  [[nodiscard]] std::string render(const Style& style) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace meshd::ctl
