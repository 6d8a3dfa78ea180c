// The one error type of the house: a failure is a value that says what was
// attempted, on what, and why it failed. Values only, no shared state.
//
// Errors: nothing here throws; running out of memory ends the process.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace meshd {

enum class ErrorCode {
  kInvalid,      // the input breaks a documented rule
  kNotFound,     // the named object does not exist
  kConflict,     // another owner holds the name, port or address
  kUnsupported,  // the kernel or a library lacks the feature
  kExhausted,    // a pool, table or documented limit is full
  kSystem,       // a system call failed; sys_errno is set
  kNotInForce,   // stored, but not in force on this node yet
  kInternal,     // our own invariant broke: a bug
};

struct [[nodiscard]] Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string what;   // "commit generation 42: 3 of 17 messages refused"
  int sys_errno = 0;  // errno when code is kSystem, else 0

  // Adds the caller's context in front.
  Error&& in(std::string_view where) && {
    what.insert(0, std::string(where) + ": ");
    return std::move(*this);
  }
};

template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

inline std::unexpected<Error> fail(ErrorCode code, std::string what, int sys_errno = 0) {
  return std::unexpected(Error{code, std::move(what), sys_errno});
}

// A failed system call: `what` plus the errno's own text.
std::unexpected<Error> fail_errno(std::string what, int sys_errno);

}  // namespace meshd

// Unwrap, or return the error to the caller. The house's only macros; g++ 12 has no and_then.
#define TRY(expr)                                             \
  ({                                                          \
    auto&& try_result_ = (expr);                              \
    if (!try_result_) [[unlikely]]                            \
      return std::unexpected(std::move(try_result_).error()); \
    *std::move(try_result_);                                  \
  })
#define CHECK_OK(expr)                                    \
  do {                                                    \
    if (auto status_ = (expr); !status_) [[unlikely]]     \
      return std::unexpected(std::move(status_).error()); \
  } while (0)
