// The hash of one item of a node's slice (proto/controller.proto). A slice's hash is the sum of
// its items', so that both ends keep it up item by item and in any order.
//
// Source: FNV-1a, 64 bits. It finds what differs by mistake or after a crash; who may write a
//         slice is settled by TLS.
#pragma once

#include <cstdint>
#include <string_view>

namespace meshd::policy {

[[nodiscard]] constexpr std::uint64_t slice_item_hash(int kind, std::string_view key,
                                                      std::string_view value) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto take = [&hash](std::string_view bytes) {
    for (const char byte : bytes) {
      hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
    }
    hash = (hash ^ 0x100U) * 0x100000001b3;  // no byte: ("a", "b") is not ("ab", "")
  };
  hash = (hash ^ static_cast<std::uint64_t>(kind)) * 0x100000001b3;
  take(key);
  take(value);
  return hash;
}

}  // namespace meshd::policy
