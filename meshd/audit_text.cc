#include "meshd/audit_text.h"

#include <fmt/format.h>

#include "base/log.h"

namespace meshd {
namespace {

// Leaves room for the caller and for why it was refused.
constexpr std::size_t kMaxLineBytes = log::kMaxMessageBytes / 2;

}  // namespace

std::string caller_text(Caller caller) {
  if (caller.uid == kUnknownCaller.uid) return "unknown caller";
  return fmt::format("uid {} pid {}", caller.uid, caller.pid);
}

std::vector<std::string> apply_lines(const std::vector<policy::Declaration>& declarations) {
  std::vector<std::string> lines;
  for (const auto& declaration : declarations) {
    const auto item = fmt::format("{} of {}", declaration.id, declaration.owner);
    if (lines.empty() || lines.back().size() + item.size() + 2 > kMaxLineBytes) {
      lines.push_back("apply " + item);
    } else {
      lines.back() += ", " + item;
    }
  }
  return lines;
}

}  // namespace meshd
