#include "meshd/room.h"

#include <fmt/format.h>

namespace meshd {
namespace {

template <class Count>
Room each(Count count) {
  Room room;
  for (std::size_t i = 0; i < room.size(); ++i) room[i] = count(static_cast<policy::SetId>(i));
  return room;
}

}  // namespace

Room planned_now(const policy::Compiler& compiler) {
  return each([&](policy::SetId set) { return compiler.element_count(set); });
}

Room worst_case(const policy::Compiler& compiler) {
  return each([&](policy::SetId set) { return compiler.worst_case_count(set); });
}

Status check_room(const Room& before, const Room& after) {
  for (std::size_t i = 0; i < after.size(); ++i) {
    const auto& info = policy::set_info(static_cast<policy::SetId>(i));
    if (info.size == 0 || after[i] <= info.size || after[i] <= before[i]) continue;
    return fail(ErrorCode::kExhausted,
                fmt::format("the kernel's set {} would need {} elements and holds {}", info.name,
                            after[i], info.size));
  }
  return {};
}

}  // namespace meshd
