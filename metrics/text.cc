#include "metrics/text.h"

#include <fmt/format.h>

#include <iterator>

namespace meshd::metrics {
namespace {

// In a help a line break and a backslash, in a label's value a quotation mark as well.
std::string escaped(std::string_view text, bool quoted) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '\\' || (quoted && c == '"')) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

Text& Text::family(std::string_view name, std::string_view help, std::string_view type) {
  name_ = name;
  fmt::format_to(std::back_inserter(text_), "# HELP {} {}\n# TYPE {} {}\n", name,
                 escaped(help, false), name, type);
  return *this;
}

Text& Text::counter(std::string_view name, std::string_view help) {
  return family(name, help, "counter");
}

Text& Text::gauge(std::string_view name, std::string_view help) {
  return family(name, help, "gauge");
}

Text& Text::sample(std::uint64_t value, std::initializer_list<Label> labels) {
  text_ += name_;
  char before = '{';
  for (const auto& label : labels) {
    fmt::format_to(std::back_inserter(text_), "{}{}=\"{}\"", before, label.name,
                   escaped(label.value, true));
    before = ',';
  }
  if (labels.size() > 0) text_ += '}';
  fmt::format_to(std::back_inserter(text_), " {}\n", value);
  return *this;
}

std::string outcome_word(const Status& status) {
  if (status) return "done";
  switch (status.error().code) {
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kConflict:
      return "conflict";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kExhausted:
      return "exhausted";
    case ErrorCode::kNotInForce:
      return "not_in_force";
    case ErrorCode::kSystem:
      return "system";
    case ErrorCode::kInternal:
      break;
  }
  return "internal";
}

void add_tally(Text& text, const Tally& tally, std::string_view label) {
  for (const auto& [word, count] : tally) text.sample(count, {{label, word}});
}

}  // namespace meshd::metrics
