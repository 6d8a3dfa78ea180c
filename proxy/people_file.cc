// The token file on disk.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <cerrno>
#include <filesystem>

#include "base/unique_fd.h"
#include "pki/files.h"
#include "proxy/people.h"

namespace meshd::proxy {
namespace {

// Held for as long as the descriptor is. Of the directory, since the file is replaced.
Result<UniqueFd> lock_directory(const std::string& path) {
  auto parent = std::filesystem::path(path).parent_path().string();
  if (parent.empty()) parent = ".";
  UniqueFd directory(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return fail_errno("open " + parent, errno);
  while (flock(directory.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return fail_errno("lock " + parent, errno);
  }
  return directory;
}

}  // namespace

Result<People> read_people(const std::string& path) {
  const auto text = pki::read_secrets(path, kMaxPeopleBytes);
  if (text) return parse_people(path, *text);
  if (text.error().code == ErrorCode::kNotFound) return People();
  return std::unexpected(text.error());
}

Status edit_people(const std::string& path, const std::function<Status(People&)>& change) {
  const auto lock = TRY(lock_directory(path));
  auto people = TRY(read_people(path));
  CHECK_OK(change(people));
  const auto text = render_people(people);
  if (text.size() <= kMaxPeopleBytes) return pki::write_secrets(path, text);
  return fail(ErrorCode::kExhausted,
              fmt::format("{}: would have more than {} bytes", path, kMaxPeopleBytes));
}

}  // namespace meshd::proxy
