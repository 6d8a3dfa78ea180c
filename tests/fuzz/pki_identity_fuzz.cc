// What a certificate may name: any bytes. What is taken is the one text of what was read.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "pki/identity.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto read = meshd::pki::parse_identity(text);
  if (read && read->to_string() != text) std::abort();
  return 0;
}
