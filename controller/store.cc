#include "controller/store.h"

#include <fmt/format.h>

#include <algorithm>

namespace meshd::controller {
namespace {

// What a row costs besides its key and value; a guess at both databases' overhead.
constexpr std::uint64_t kRowBytes = 64;

std::size_t size_of(const Write& write) {
  return write.key.size() + (write.value ? write.value->size() : 0);
}

std::string named(const Write& write) {
  return fmt::format("{} '{}'", mesh::v1::ObjectKind::Value_Name(write.kind), write.key);
}

Status check_write(const Write& write) {
  if (!mesh::v1::ObjectKind::Value_IsValid(write.kind)) {
    return fail(ErrorCode::kInternal,
                fmt::format("store: no kind {}", static_cast<int>(write.kind)));
  }
  if (write.key.size() > kMaxKeyBytes) {
    return fail(ErrorCode::kExhausted, fmt::format("store: a key of {} bytes: at most {}",
                                                   write.key.size(), kMaxKeyBytes));
  }
  if (!std::ranges::all_of(write.key, [](char c) { return c > ' ' && c <= '~'; })) {
    return fail(ErrorCode::kInvalid, "store: a key that is not printable ASCII without spaces");
  }
  if (write.value && write.value->size() > kMaxValueBytes) {
    return fail(ErrorCode::kExhausted,
                fmt::format("store: {}: a value of {} bytes: at most {}", named(write),
                            write.value->size(), kMaxValueBytes));
  }
  return {};
}

}  // namespace

std::uint64_t logged_bytes(const Writes& writes) {
  std::uint64_t sum = 0;
  for (const auto& write : writes) sum += size_of(write) + kRowBytes;
  return sum;
}

Status check_writes(const Writes& writes) {
  if (writes.size() > kMaxCommitWrites) {
    return fail(ErrorCode::kExhausted,
                fmt::format("store: {} changes at once: at most {}; declare less in one go",
                            writes.size(), kMaxCommitWrites));
  }
  std::size_t bytes = 0;
  for (const auto& write : writes) {
    CHECK_OK(check_write(write));
    bytes += size_of(write);
  }
  if (bytes > kMaxCommitBytes) {
    return fail(ErrorCode::kExhausted, fmt::format("store: changes of {} bytes at once: at most "
                                                   "{}; declare less in one go",
                                                   bytes, kMaxCommitBytes));
  }
  return {};
}

}  // namespace meshd::controller
