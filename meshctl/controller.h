// A controller to speak with in place of this node's meshd, and who we are to it.
#pragma once

#include <string>
#include <vector>

#include "pki/files.h"

namespace meshd::ctl {

struct Controller {
  std::vector<std::string> addresses;  // tried in order
  pki::IdentityFiles files;
};

}  // namespace meshd::ctl
