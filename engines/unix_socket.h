// Sockets in the file system, as meshd's and dockerd's are.
//
// Threads: any.
// Errors:  kInvalid: a path longer than the kernel takes; else errno, with `who` and the path.
// Source:  unix(7).
#pragma once

#include <sys/un.h>

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd::engines {

[[nodiscard]] Result<sockaddr_un> unix_address(const std::string& path);
// Never blocks: a listener that hangs with a full queue of connections is EAGAIN.
[[nodiscard]] Result<UniqueFd> connect_unix(const std::string& path, std::string_view who);

}  // namespace meshd::engines
