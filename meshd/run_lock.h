// One daemon per run_dir and per network namespace, and no purge beside one: an advisory
// lock on a file in the run_dir, and a name that belongs to the namespace. The kernel gives
// up both when the process ends, however it ends.
//
// Invariant: a name taken by another user is no daemon of ours and stops nobody: else any
//            user of the node could keep it from starting.
// Errors:    kConflict: another daemon has one of them.
// Source:    flock(2); unix(7): abstract names are a network namespace's own.
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
  RunLock(UniqueFd file, UniqueFd name) : file_(std::move(file)), name_(std::move(name)) {}
  UniqueFd file_, name_;
};

}  // namespace meshd
