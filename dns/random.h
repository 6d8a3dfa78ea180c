// Bytes that nobody outside can foretell.
#pragma once

#include <sys/random.h>

#include <cstdint>
#include <span>

namespace meshd::dns {

inline void random_bytes(std::span<std::uint8_t> out) {
  while (!out.empty()) {
    const auto got = getrandom(out.data(), out.size(), 0);
    if (got > 0) out = out.subspan(static_cast<std::size_t>(got));
  }
}

}  // namespace meshd::dns
