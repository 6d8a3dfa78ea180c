// How a command of meshctl fails: the line for stderr and the exit code that scripts
// test. An Error of the libraries becomes one with exit code 1.
//
// Errors: values only; nothing throws.
#pragma once

#include <expected>
#include <string>
#include <utility>

#include "base/result.h"

namespace meshd::ctl {

enum class Exit : int {
  kDone = 0,
  kRefused = 1,      // refused or failed; `status`: something is wrong; `wait`: time ran out
  kUsage = 2,        // the command line or an input file cannot be meant
  kUnreachable = 3,  // no answer from meshd
};

struct [[nodiscard]] Failure {
  Exit exit = Exit::kRefused;
  std::string what;  // "WHAT: WHY", printed after "meshctl: "

  Failure(Exit code, std::string text) : exit(code), what(std::move(text)) {}
  // Implicit on purpose: TRY and CHECK_OK hand an Error up through an Outcome.
  Failure(Error error) : what(std::move(error.what)) {}  // NOLINT(google-explicit-constructor)
};

template <class T>
using Outcome = std::expected<T, Failure>;

inline std::unexpected<Failure> fail(Exit exit, std::string what) {
  return std::unexpected(Failure(exit, std::move(what)));
}

}  // namespace meshd::ctl
