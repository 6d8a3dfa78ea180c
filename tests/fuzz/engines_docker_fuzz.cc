// What dockerd, or whoever reaches its plugins' sockets, may say to the network driver, in any
// bytes: the call's path in the first line, its body behind. What is answered is JSON that reads
// back, and what the driver looks up by it stays where it belongs.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engines/docker_api.h"
#include "engines/docker_plugin.h"

namespace meshd::engines {
namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

bool is_plain(std::string_view text) {
  return std::ranges::none_of(
      text, [](char c) { return c == '/' || c == '%' || static_cast<unsigned char>(c) <= 0x20; });
}

void answer(std::string_view text) {
  const auto path = text.substr(0, text.find('\n'));
  const auto body = text.substr(std::min(text.size(), path.size() + 1));
  const auto call = parse_plugin_call(path, body);
  const auto reply = call ? call->reply : render_plugin_error(call.error().what);
  expect(read_json(reply).has_value());
  if (call && call->kind != PluginCall::Kind::kAnswered) {
    expect(call->network.size() == 64 && is_plain(call->network));
    expect(call->endpoint.size() == 64 && is_plain(call->endpoint));
  }
  if (const auto member = parse_member(body, path)) {
    expect(is_plain(member->name) && is_plain(member->container));
  }
  if (const auto id = parse_container_id(body, path)) expect(id->size() == 64 && is_plain(*id));
  static_cast<void>(parse_host_config(body));
  static_cast<void>(parse_http_reply(text));
  const auto hosts = with_addresses(body, {"10.213.0.5"});
  expect(!hosts || !with_addresses(*hosts, {"10.213.0.5"}));
}

}  // namespace
}  // namespace meshd::engines

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::engines::answer({reinterpret_cast<const char*>(data), size});
  return 0;
}
