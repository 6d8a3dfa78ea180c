// What may come as a join token: any bytes. None is another token than the one that was made,
// and no refusal repeats a secret.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "controller/token.h"

namespace meshd::controller {
namespace {

void read_one(std::string_view text) {
  static const auto made = make_token({.expires_at = pki::UtcTime::max(),
                                       .sources = {},
                                       .uses_left = std::nullopt,
                                       .name_prefix = {}},
                                      TokenRandomness{})
                               .value();
  const auto presented = parse_token(text);
  if (!presented) return;
  const auto refused = check_token(&made.token, *presented, IpAddress(), "a", pki::UtcTime());
  if (!refused && text != made.text) std::abort();
}

}  // namespace
}  // namespace meshd::controller

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::controller::read_one({reinterpret_cast<const char*>(data), size});
  return 0;
}
