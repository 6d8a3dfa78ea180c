// What anybody may hand in as declarations: any bytes. What is taken must survive the way
// through the message and back, and what is refused must be one line of plain text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "policy/from_proto.h"

namespace meshd::policy {
namespace {

void read_one(std::string_view text) {
  const auto read = read_declarations("f", text);
  if (!read) {
    for (const char c : read.error().what) {
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) {
        std::abort();
      }
    }
    return;
  }
  for (const auto& declaration : *read) {
    const auto again = from_proto(to_proto(declaration));
    if (!again || *again != declaration) std::abort();
  }
}

}  // namespace
}  // namespace meshd::policy

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::policy::read_one({reinterpret_cast<const char*>(data), size});
  return 0;
}
