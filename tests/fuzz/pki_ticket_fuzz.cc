// What may lie where a join ticket should: any bytes. What is taken survives the way through
// text and back. Input that is no base64 is tried as the message inside, too.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "pki/join_ticket.h"
#include "pki/secret.h"

namespace meshd::pki {
namespace {

void read_one(std::string_view text) {
  const auto read = decode_ticket(text);
  if (!read) return;
  const auto written = encode_ticket(*read);
  if (!written) std::abort();
  const auto again = decode_ticket(*written);
  if (!again || again->addresses != read->addresses || again->token != read->token ||
      again->join_addresses != read->join_addresses ||
      again->authorities.cluster != read->authorities.cluster) {
    std::abort();
  }
}

}  // namespace
}  // namespace meshd::pki

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  meshd::pki::read_one(text);
  meshd::pki::read_one(meshd::pki::to_base64(text));
  return 0;
}
