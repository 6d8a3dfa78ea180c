// What a peer may send as its certificate: any bytes. None is believed, since no authority that
// is asked has signed any, and what was read survives the way through PEM.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "pki/certificate.h"
#include "pki/issue.h"

namespace meshd::pki {
namespace {

constexpr UtcTime kNow{std::chrono::seconds(1'800'000'000)};

void read_one(std::string_view bytes) {
  static const auto key = PrivateKey::make().value();
  static const auto authority = make_authority(key, "lab", kNow).value();
  (void)parse_certificate(bytes);
  (void)parse_authorities(bytes);
  // OpenSSL sets a dozen decoders up for each key: only where there may be one.
  if (bytes.contains("PRIVATE KEY")) (void)PrivateKey::parse(bytes);
  const auto read = parse_der(bytes);
  if (!read) return;
  (void)renew_at(*read, 0.5);
  if (check_certificate(*read, {&authority, 1}, {.cluster = "lab", .role = {}}, kNow)) std::abort();
  const auto again = parse_certificate(read->to_pem());
  if (!again || again->der != read->der) std::abort();
}

}  // namespace
}  // namespace meshd::pki

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::pki::read_one({reinterpret_cast<const char*>(data), size});
  return 0;
}
