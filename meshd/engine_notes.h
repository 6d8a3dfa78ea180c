// What the engines' shims must know when no daemon answers: which ids are declared here, and
// what becomes of the others. One empty file for each id, so that a change costs the same
// whatever else is declared.
//
// Threads: the main loop only.
// Owns:    <state_dir>/engines: `rules`, and `declared/` with a file of each id's name. There,
//          not in the run_dir: it holds while the daemon is stopped, and after a reboot until
//          it is there again.
// Errors:  kSystem; what could not be noted is tried again by the next call.
// Source:  docs/decisions/0011-shims-read-notes.md; engines/notes.h reads it.
#pragma once

#include <set>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "meshd/config.h"
#include "policy/types.h"

namespace meshd {

class EngineNotes {
 public:
  // Takes over what an earlier process has noted.
  [[nodiscard]] static Result<EngineNotes> open(const std::string& state_dir);
  // In a cluster an id that is not noted may be declared all the same: only a controller knows.
  [[nodiscard]] Status write_rules(Undeclared undeclared, bool in_cluster) const;
  // Afterwards exactly these are noted.
  [[nodiscard]] Status follow(const decltype(policy::World::workloads)& workloads);

 private:
  EngineNotes(UniqueFd dir, UniqueFd declared, std::string path)
      : dir_(std::move(dir)), declared_(std::move(declared)), path_(std::move(path)) {}
  [[nodiscard]] Status add(const std::string& id) const;
  [[nodiscard]] Status drop(const std::string& id) const;

  UniqueFd dir_, declared_;
  std::string path_;
  std::set<std::string> noted_;
  bool unsynced_ = true;  // some of them may not be on disk yet, an earlier process's among them
};

}  // namespace meshd
