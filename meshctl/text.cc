#include "meshctl/text.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdlib>
#include <span>

namespace meshd::ctl {
namespace {

// Code points: every byte but the continuation bytes of UTF-8 (RFC 3629 section 3).
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string_view escape(Paint colour) {
  switch (colour) {
    case Paint::kPlain:
      return "";
    case Paint::kBold:
      return "\x1b[1m";
    case Paint::kDim:
      return "\x1b[2m";
    case Paint::kGreen:
      return "\x1b[32m";
    case Paint::kYellow:
      return "\x1b[33m";
    case Paint::kRed:
      return "\x1b[31m";
  }
  return "";
}

std::string scaled(std::uint64_t value, double step, std::span<const std::string_view> units) {
  auto number = static_cast<double>(value);
  std::size_t unit = 0;
  // 999.95 would print as 1000.0 of the smaller unit.
  while (number >= step - 0.05 && unit + 1 < units.size()) {
    number /= step;
    ++unit;
  }
  if (unit == 0) return fmt::format("{}{}", value, units[0]);
  return fmt::format("{:.1f}{}", number, units[unit]);
}

}  // namespace

Style style_of(int fd) {
  if (isatty(fd) == 0) return {};
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool refused = no_color != nullptr && *no_color != '\0';
  const bool dumb = term == nullptr || std::string_view(term) == "dumb";
  return {.colour = !refused && !dumb, .human = true};
}

std::string paint(std::string_view text, Paint colour, const Style& style) {
  if (!style.colour || colour == Paint::kPlain) return std::string(text);
  return fmt::format("{}{}\x1b[0m", escape(colour), text);
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0U;
    if (byte < 0x20U || byte == 0x7FU) {
      out += '?';
    } else if (byte == 0xC2U && next >= 0x80U && next <= 0x9FU) {
      out += '?';  // C1 controls: terminals may read U+009B as the start of a sequence
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string render_bytes(std::uint64_t bytes, const Style& style) {
  if (!style.human) return fmt::format("{}", bytes);
  constexpr std::array<std::string_view, 6> kUnits = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
  return scaled(bytes, 1024.0, kUnits);
}

std::string render_count(std::uint64_t count, const Style& style) {
  if (!style.human) return fmt::format("{}", count);
  constexpr std::array<std::string_view, 5> kUnits = {"", "k", "M", "G", "T"};
  return scaled(count, 1000.0, kUnits);
}

void Table::add(std::vector<Cell> row) {
  assert(row.size() == columns_.size());  // every caller writes both literally
  for (auto& cell : row) {
    cell.text = cell.text.empty() ? "-" : printable(cell.text);
  }
  rows_.push_back(std::move(row));
}

std::string Table::render(const Style& style) const {
  std::vector<std::size_t> widths;
  for (const auto& column : columns_) widths.push_back(width(column.title));
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], width(row[i].text));
    }
  }
  std::string out;
  // Padding stands outside of the colour, so that both count the same columns.
  const auto put = [&](std::size_t i, std::string_view text, Paint colour) {
    const std::string pad(widths[i] - width(text), ' ');
    const bool last = i + 1 == columns_.size();
    const bool right = columns_[i].align == Align::kRight;
    if (i != 0) out += "  ";
    if (right) out += pad;
    out += paint(text, colour, style);
    if (!right && !last) out += pad;
    if (last) out += '\n';
  };
  for (std::size_t i = 0; i < columns_.size(); ++i) put(i, columns_[i].title, Paint::kBold);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) put(i, row[i].text, row[i].colour);
  }
  return out;
}

}  // namespace meshd::ctl
