// What may come as a Host header: any bytes. What is taken is a name of this site and nothing else,
// and its target holds only what names hold.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "proxy/target.h"

namespace meshd::proxy {
namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void read_one(std::string_view host) {
  static const Site site{"example.org", 443, "mesh.example.org", 9000, 9099};
  std::string line(host.substr(0, host.find(':')));
  if (line.ends_with('.')) line.pop_back();
  for (char& c : line) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  const auto target = parse_target(site, host, line);
  if (!target) {
    const int status = target.error().status;
    require(status == 400 || status == 404 || status == 421);
    return;
  }
  require(line == site.host || line.ends_with(".example.org"));
  const auto text = target_text(*target);
  require(text.size() < 128 && std::ranges::all_of(text, [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == ' ';
          }));
  // No other host of the request line goes with it.
  require(!parse_target(site, host, "x" + line));
}

}  // namespace
}  // namespace meshd::proxy

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::proxy::read_one({reinterpret_cast<const char*>(data), size});
  return 0;
}
