#include "base/result.h"

#include <cstring>

namespace meshd {

std::unexpected<Error> fail_errno(std::string what, int sys_errno) {
  char buffer[128];
  // The GNU strerror_r returns the text; it is thread-safe where strerror is not.
  what += ": ";
  what += strerror_r(sys_errno, buffer, sizeof buffer);
  return fail(ErrorCode::kSystem, std::move(what), sys_errno);
}

}  // namespace meshd
