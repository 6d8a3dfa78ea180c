// What a token file may hold: any bytes. What is read is written so that it is read the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "proxy/people.h"

namespace meshd::proxy {
namespace {

void read_one(std::string_view text) {
  const auto people = parse_people("f", text);
  if (!people) return;
  const auto again = parse_people("f", render_people(*people));
  if (!again || *again != *people) std::abort();
}

}  // namespace
}  // namespace meshd::proxy

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::proxy::read_one({reinterpret_cast<const char*>(data), size});
  return 0;
}
