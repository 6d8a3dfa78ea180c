// Reading declaration files and writing answers, whole or with a reason.
//
// Errors: kSystem with the path; kInvalid for a file above the limit. A full disk or a
//         closed pipe behind stdout is an error, never a shortened answer.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace meshd::ctl {

// The contract's limit for one declaration file, checked here so that a wrong file name
// (a disk image, /dev/zero) is refused before it is read whole.
inline constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20U;
// Files of one `apply`. Twenty-four full ones stay below the 32 MiB that the daemon takes
// in one request; more belong in fewer files.
inline constexpr std::size_t kMaxFiles = 24;

[[nodiscard]] Result<std::string> read_file(const std::string& path);
// `name` stands in errors for a descriptor that has no path.
[[nodiscard]] Result<std::string> read_descriptor(int fd, const std::string& name);
[[nodiscard]] Status write_all(int fd, std::string_view text);

}  // namespace meshd::ctl
