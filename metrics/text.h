// Counts and states as the text that Prometheus reads. Pure.
//
// Invariant: one family's samples stand together behind its name, as the format wants it; what
//            labels and helps contain is escaped.
// Source:    prometheus.io/docs/instrumenting/exposition_formats, text format 0.0.4.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace meshd::metrics {

inline constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

struct Label {
  std::string_view name, value;
};

class Text {
 public:
  // A family begins: a number that only grows (its name ends in _total), or one that does not.
  Text& counter(std::string_view name, std::string_view help);
  Text& gauge(std::string_view name, std::string_view help);
  // A sample of the family that began last.
  Text& sample(std::uint64_t value, std::initializer_list<Label> labels = {});
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  Text& family(std::string_view name, std::string_view help, std::string_view type);

  std::string text_, name_;
};

// How often something happened, by what the code calls it: a handful of words, never what comes
// from outside.
using Tally = std::map<std::string, std::uint64_t, std::less<>>;

// "done", or why not: a word for each ErrorCode.
[[nodiscard]] std::string outcome_word(const Status& status);

// A family with one sample for each word.
void add_tally(Text& text, const Tally& tally, std::string_view label);

}  // namespace meshd::metrics
