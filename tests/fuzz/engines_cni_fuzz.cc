// What a container runtime may say to mesh-cni, an environment and a network, and netavark to
// mesh-netavark, in any bytes. What is answered is JSON that reads back, whatever was asked.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "engines/cni.h"
#include "engines/netavark.h"
#include "proto/node.pb.h"

namespace meshd::engines {
namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

// Lines NAME=VALUE until an empty one; the network's configuration follows.
Variables take_environment(std::string_view& text) {
  Variables environment;
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.empty()) break;
    const auto equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    environment.emplace(line.substr(0, equals), line.substr(equals + 1));
  }
  return environment;
}

mesh::v1::AttachReply sample() {
  mesh::v1::AttachReply reply;
  reply.set_ifname("eth0");
  reply.set_host_ifname("mesh5");
  reply.add_addresses("10.213.0.5");
  reply.add_gateways("169.254.1.1");
  reply.add_resolvers("169.254.1.1");
  return reply;
}

void answer_netavark(std::string_view text) {
  if (const auto made = make_network(text)) expect(make_network(*made) == *made);
  const auto call = parse_netavark(text, {});
  if (!call) return expect(read_json(render_netavark_error(call.error().what)).has_value());
  expect(std::ranges::count(call->place.key, '/') == 2 && call->place.ifname.size() < 16);
  for (const auto& id : ids_of(call->launch)) expect(is_id(id));
  expect(read_json(render_status(sample())).has_value());
}

void answer(std::string_view text) {
  answer_netavark(text);
  const auto environment = take_environment(text);
  static_cast<void>(crunch_container(text));
  const auto call = parse_call(environment);
  const auto network = parse_network(text, {});
  if (!call) return expect(read_json(render_error(call.error(), "1.0.0")).has_value());
  if (!network) return expect(read_json(render_error(network.error(), "")).has_value());
  for (const auto& id : ids_of(launch_of(*call, *network, ""))) expect(is_id(id));
  expect(key_of(*call, *network).starts_with(key_prefix(*network)));
  if (call->command == "DEL") return;  // has no result
  const auto with = render_result(*call, *network, true, sample());
  expect(read_json(with).has_value());
  // What came before may have been like it, and a call that ends has no namespace.
  expect(network->previous || call->netns.empty() ||
         our_link(read_json(with).value()).name == sample().ifname());
  expect(read_json(render_result(*call, *network, true, std::nullopt)).has_value());
}

}  // namespace
}  // namespace meshd::engines

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::engines::answer({reinterpret_cast<const char*>(data), size});
  return 0;
}
