// What may come as a certificate request: any bytes. One that passes the check is granted, and
// to nobody but whom the controller says.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "pki/issue.h"

namespace meshd::pki {
namespace {

constexpr UtcTime kNow{std::chrono::seconds(1'800'000'000)};

void read_one(std::string_view csr) {
  static const auto key = PrivateKey::make().value();
  static const auto authority = make_authority(key, "lab", kNow).value();
  static const Holder holder{.identity = {"lab", Role::kNode, "node-7"}};
  if (!check_csr(csr)) return;
  const auto certificate = issue(authority, key, csr, holder, kNow);
  if (!certificate) std::abort();
  const auto who =
      check_certificate(*certificate, {&authority, 1}, {.cluster = "lab", .role = {}}, kNow);
  if (!who || *who != holder.identity) std::abort();
}

}  // namespace
}  // namespace meshd::pki

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::pki::read_one({reinterpret_cast<const char*>(data), size});
  return 0;
}
