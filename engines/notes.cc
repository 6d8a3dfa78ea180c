#include "engines/notes.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "engines/files.h"

namespace meshd::engines {
namespace {

constexpr std::size_t kMaxRulesBytes = 4096;
constexpr std::array<std::pair<std::string_view, Notes::Undeclared>, 3> kWords = {
    {{"undeclared IGNORE", Notes::Undeclared::kIgnore},
     {"undeclared CLOSED", Notes::Undeclared::kClosed},
     {"undeclared REFUSE", Notes::Undeclared::kRefuse}}};

// A hook of an engine without privileges runs as root of its own user namespace. Nothing of such
// an engine can be declared here: its containers are another's than root's.
bool in_own_user_namespace() {
  const auto map = read_file("/proc/self/uid_map", kMaxRulesBytes);
  return map && !map->contains("4294967295");
}

}  // namespace

Result<Notes> parse_rules(std::string_view text) {
  Notes notes;
  bool whole = false;
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    for (const auto& [word, undeclared] : kWords) {
      if (line != word) continue;
      notes.undeclared = undeclared;
      whole = true;
    }
    notes.in_cluster = notes.in_cluster || line == "cluster yes";
  }
  if (!whole) return fail(ErrorCode::kInvalid, "does not say what becomes of the undeclared");
  return notes;
}

Result<Notes> read_notes(const std::string& state_dir, const std::vector<std::string>& ids) {
  const auto path = state_dir + "/engines/rules";
  const auto text = read_file(path, kMaxRulesBytes);
  if (!text) {
    const int error = text.error().sys_errno;
    if (error == ENOENT || (error == EACCES && (geteuid() != 0 || in_own_user_namespace()))) {
      return Notes();
    }
    return std::unexpected(text.error());
  }
  auto notes = parse_rules(*text);
  if (!notes) return std::unexpected(std::move(notes).error().in(path));
  for (const auto& id : ids) {
    if (access(fmt::format("{}/engines/declared/{}", state_dir, id).c_str(), F_OK) == 0) {
      notes->declared.insert(id);
    } else if (errno != ENOENT) {
      return fail_errno(path, errno);
    }
  }
  return notes;
}

}  // namespace meshd::engines
