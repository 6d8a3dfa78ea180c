#include "policy/diff.h"

#include <algorithm>
#include <iterator>

namespace meshd::policy {

Delta diff(std::span<const Element> installed, std::span<const Element> wanted) {
  Delta delta;
  std::ranges::set_difference(installed, wanted, std::back_inserter(delta.remove));
  std::ranges::set_difference(wanted, installed, std::back_inserter(delta.add));
  return delta;
}

}  // namespace meshd::policy
