// What the measuring programs share: an end with a word where something fails that is not to
// be measured, and the median.
#pragma once

#include <errno.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace meshd::bench {

[[noreturn]] inline void die(const std::string& what) {
  fmt::print(stderr, "{}: {}\n", program_invocation_short_name, what);
  std::exit(1);
}
template <class T>
T must(Result<T> result) {
  if (!result) die(result.error().what);
  return *std::move(result);
}
inline void must(const Status& status) {
  if (!status) die(status.error().what);
}

inline double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

}  // namespace meshd::bench
