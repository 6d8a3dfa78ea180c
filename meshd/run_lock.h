// One daemon per run_dir: an advisory lock on a file in it, which the kernel gives up when
// the process ends, however it ends.
//
// Errors: kConflict: another daemon has it.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd {

class RunLock {
 public:
  // Makes the directory (0755, so that the group can reach status.sock) if it is missing.
  [[nodiscard]] static Result<std::unique_ptr<RunLock>> take(const std::string& run_dir);

 private:
  explicit RunLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace meshd
