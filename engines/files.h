// Files of engines, read and written within limits of size and time.
//
// Errors: kSystem with the path; kExhausted past the limit; kInvalid for what is no plain file.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace meshd::engines {

[[nodiscard]] Result<std::string> read_file(const std::string& path, std::size_t most);
// Until its end. An engine that does not close its end keeps us no longer than until `by`.
[[nodiscard]] Result<std::string> read_input(int fd, std::size_t most, TimePoint by);
// Swapped in whole, with owner and mode of the one before.
[[nodiscard]] Status replace_file(const std::string& path, std::string_view text);
// Written over, for a file that is mounted somewhere already: its inode must stay.
[[nodiscard]] Status write_in_place(const std::string& path, std::string_view text);
// In a tree that somebody else filled, whose links lead nowhere out of it. The file is swapped in
// whole, and its folder made where it is missing.
[[nodiscard]] Status put_file_below(const std::string& root, const std::string& folder,
                                    const std::string& name, std::string_view text);
[[nodiscard]] Status append_line(const std::string& path, std::string_view line);
[[nodiscard]] Status write_all(int fd, std::string_view text);

}  // namespace meshd::engines
