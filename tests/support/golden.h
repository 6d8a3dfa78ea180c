// Golden files: what a pure function made once, looked at by a person, and compared ever
// since.
//
// MESHD_GOLDEN_UPDATE (`./dev golden-update`) makes a test write what it got. It then fails
// all the same unless the file said so before: a variable left set passes nothing.
#pragma once

#include <string>
#include <string_view>

namespace meshd {

// What stands against `got` being the file's content; empty: nothing. `update`: the file is
// written, and what stands against it is the change.
[[nodiscard]] std::string golden_complaint(const std::string& path, const std::string& got,
                                           bool update);
// The same as a failure of the running test, as the environment asks for it.
void expect_golden(const std::string& path, const std::string& got);

// What differs, "-" lines of `before` and "+" lines of `after` with what stands around them.
[[nodiscard]] std::string line_diff(std::string_view before, std::string_view after);

}  // namespace meshd
