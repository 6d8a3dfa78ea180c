// The directory that holds a daemon's state: made, checked and locked before anything
// in it is opened. Nobody but its owner can read it or plant a file in it.
//
// Owns:   the directory's descriptor, and the lock for as long as the object lives.
// Errors: kConflict when another process holds the lock (its pid is in the text), kInvalid
//         for a directory or file that somebody else could have prepared.
// Source: open(2) O_NOFOLLOW, flock(2).
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd {

class StateDir {
 public:
  // Missing directories are made, the last one with mode 0700. A directory of ours that
  // others may read is closed to them; one that others may write to is refused. `program` is
  // who may hold the lock, for the text that says so.
  [[nodiscard]] static Result<StateDir> open(const std::string& path, std::string_view program);

  // Without symbolic links.
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string file(std::string_view name) const;
  // A file that may be there must be a plain file of ours with one name, mode 0600.
  [[nodiscard]] Status check_file(const std::string& name) const;
  // check_file(), and an empty file made when there is none.
  [[nodiscard]] Status make_file(const std::string& name) const;
  // Harmless when there is none.
  [[nodiscard]] Status remove_file(const std::string& name) const;
  // The file's content and its name are on disk.
  [[nodiscard]] Status sync_file(const std::string& name) const;

 private:
  StateDir(std::string path, UniqueFd dir) : path_(std::move(path)), dir_(std::move(dir)) {}
  [[nodiscard]] Status lock(std::string_view program);

  std::string path_;
  UniqueFd dir_, lock_;
};

}  // namespace meshd
