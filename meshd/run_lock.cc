#include "meshd/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>

namespace meshd {

Result<std::unique_ptr<RunLock>> RunLock::take(const std::string& run_dir) {
  if (mkdir(run_dir.c_str(), 0755) != 0 && errno != EEXIST) {
    return fail_errno("make " + run_dir, errno);
  }
  const auto path = run_dir + "/meshd.lock";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return fail_errno("open " + path, errno);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return fail(ErrorCode::kConflict, run_dir + ": another meshd runs there");
    }
    return fail_errno("lock " + path, errno);
  }
  return std::unique_ptr<RunLock>(new RunLock(std::move(fd)));
}

}  // namespace meshd
