// The resolv.conf of a container: the node's resolvers and the search list that `attach`
// was given.
//
// Errors: kSystem with the path; the old file is then as before, unless it is a mount
//         point and the disk filled while it was written in place.
// Source: resolv.conf(5).
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace meshd::ctl {

// glibc reads the first three (MAXNS) and ignores the rest.
inline constexpr std::size_t kMaxNameservers = 3;

struct ResolvConf {
  std::vector<std::string> nameservers;
  std::vector<std::string> search;
};

[[nodiscard]] std::string render_resolv_conf(const ResolvConf& conf);

// Replaces the file at `path` in one step; a symbolic link there is replaced, not followed,
// since it may have been made by an image and point at a file of the host. A file that is a
// mount point (as engines make them) cannot be replaced and is written in place.
[[nodiscard]] Status write_resolv_conf(const std::string& path, const ResolvConf& conf);

}  // namespace meshd::ctl
