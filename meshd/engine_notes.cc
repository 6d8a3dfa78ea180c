#include "meshd/engine_notes.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string_view>
#include <utility>

namespace meshd {
namespace {

std::string_view word_of(Undeclared undeclared) {
  switch (undeclared) {
    case Undeclared::kClosed:
      return "CLOSED";
    case Undeclared::kRefuse:
      return "REFUSE";
    case Undeclared::kIgnore:
      break;
  }
  return "IGNORE";
}

Result<UniqueFd> make_dir(int parent, const std::string& name, const std::string& path) {
  if (mkdirat(parent, name.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno("make " + path, errno);
  }
  UniqueFd dir(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!dir) return fail_errno("open " + path, errno);
  return dir;
}

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

Result<std::set<std::string>> read_names(int dir, const std::string& path) {
  UniqueFd again(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!again) return fail_errno("read " + path, errno);
  const std::unique_ptr<DIR, CloseDir> stream(fdopendir(again.get()));
  if (!stream) return fail_errno("read " + path, errno);
  [[maybe_unused]] const int now_the_streams = again.release();
  std::set<std::string> names;
  while (true) {
    errno = 0;
    const auto* const entry = readdir(stream.get());
    if (entry == nullptr && errno != 0) return fail_errno("read " + path, errno);
    if (entry == nullptr) return names;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace(name);
  }
}

}  // namespace

Result<EngineNotes> EngineNotes::open(const std::string& state_dir) {
  const auto path = state_dir + "/engines";
  auto dir = TRY(make_dir(AT_FDCWD, path, path));
  auto declared = TRY(make_dir(dir.get(), "declared", path + "/declared"));
  EngineNotes notes(std::move(dir), std::move(declared), path);
  notes.noted_ = TRY(read_names(notes.declared_.get(), path + "/declared"));
  return notes;
}

// Swapped in whole, and on disk before its name is: half a file would be no rule.
Status EngineNotes::write_rules(Undeclared undeclared, bool in_cluster) const {
  const auto text =
      fmt::format("undeclared {}\ncluster {}\n", word_of(undeclared), in_cluster ? "yes" : "no");
  const UniqueFd file(
      openat(dir_.get(), "rules.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  const auto size = static_cast<ssize_t>(text.size());
  if (!file || write(file.get(), text.data(), text.size()) != size || fsync(file.get()) != 0 ||
      renameat(dir_.get(), "rules.new", dir_.get(), "rules") != 0) {
    return fail_errno(fmt::format("write {}/rules", path_), errno);
  }
  return {};
}

Status EngineNotes::follow(const decltype(policy::World::workloads)& workloads) {
  auto noted = noted_.begin();
  auto wanted = workloads.begin();
  while (noted != noted_.end() || wanted != workloads.end()) {
    const bool only_noted =
        noted != noted_.end() && (wanted == workloads.end() || *noted < wanted->first);
    if (only_noted) {
      CHECK_OK(drop(*noted));
      noted = noted_.erase(noted);
      continue;
    }
    if (noted == noted_.end() || wanted->first < *noted) {
      CHECK_OK(add(wanted->first));
      noted = noted_.insert(noted, wanted->first);
      unsynced_ = true;
    }
    ++noted;
    ++wanted;
  }
  // As lasting as the declaration itself: a container that has one must not start as nobody's
  // after the power has failed, while the daemon is not there yet.
  if (unsynced_ && fsync(declared_.get()) != 0) {
    return fail_errno(fmt::format("write {}/declared", path_), errno);
  }
  unsynced_ = false;
  return {};
}

Status EngineNotes::add(const std::string& id) const {
  const UniqueFd file(
      openat(declared_.get(), id.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return fail_errno(fmt::format("note {} in {}/declared", id, path_), errno);
  return {};
}

Status EngineNotes::drop(const std::string& id) const {
  if (unlinkat(declared_.get(), id.c_str(), 0) == 0 || errno == ENOENT) return {};
  return fail_errno(fmt::format("remove {}/declared/{}", path_, id), errno);
}

}  // namespace meshd
