#include "engines/netavark.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engines/json.h"
#include "engines/program.h"

namespace meshd::engines {
namespace {

using Kind = Json::Kind;

constexpr std::size_t kMaxIfname = 15;  // IFNAMSIZ without its end

bool is_v6(std::string_view address) { return address.contains(':'); }

bool has_items(const Json* list) { return list != nullptr && !list->items.empty(); }

Json boolean(bool value) {
  Json json;
  json.kind = Kind::kBool;
  json.text = value ? "true" : "false";
  return json;
}

Result<Json> read_object(std::string_view text) {
  auto json = read_json(text);
  if (!json) return std::unexpected(std::move(json).error().in("standard input"));
  if (json->kind != Kind::kObject) {
    return fail(ErrorCode::kInvalid, "standard input: is no object");
  }
  return json;
}

// A name and a number of a network, as part of a key.
Result<std::string> word_at(const Json& json, std::string_view key) {
  const auto text = json.text_at(key);
  const bool good = !text.empty() && std::ranges::all_of(text, [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != 0x7f && c != '/';
  });
  if (!good) return fail(ErrorCode::kInvalid, fmt::format("{}: is missing, or no name", key));
  return std::string(text);
}

Status take_options(const Json& network, Places& places) {
  const auto* const options = network.find("options");
  for (std::size_t i = 0; options != nullptr && i < options->keys.size(); ++i) {
    const auto& key = options->keys[i];
    if (key != "run_dir" && key != "state_dir") {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("option {}: there are run_dir and state_dir", key));
    }
    const auto path = options->text_at(key);
    if (!path.starts_with('/')) {
      return fail(ErrorCode::kInvalid, fmt::format("option {}: must be absolute", key));
    }
    (key == "run_dir" ? places.run_dir : places.state_dir) = path;
  }
  return {};
}

std::string unfulfilled(const Json& call, const Json& options) {
  if (has_items(call.find("port_mappings"))) {
    return "published ports: they are said in the container's declaration";
  }
  if (has_items(options.find("static_ips")) || !options.text_at("static_mac").empty()) {
    return "static addresses: they are of meshd's pool";
  }
  return {};
}

template <class List>
Json texts(const List& list) {
  auto json = Json::array();
  for (const auto& text : list) json.items.push_back(Json::string(text));
  return json;
}

Json subnet(const mesh::v1::AttachReply& reply, const std::string& address) {
  auto json = Json::object();
  json.set("ipnet", Json::string(fmt::format("{}/{}", address, is_v6(address) ? 128 : 32)));
  const auto gateway = std::ranges::find_if(
      reply.gateways(), [&](const auto& one) { return is_v6(one) == is_v6(address); });
  if (gateway != reply.gateways().end()) json.set("gateway", Json::string(*gateway));
  return json;
}

}  // namespace

Result<std::string> make_network(std::string_view text) {
  auto network = TRY(read_object(text));
  for (const auto* key : {"name", "id", "driver"}) {
    if (auto word = word_at(network, key); !word) return std::unexpected(word.error());
  }
  Places places;
  CHECK_OK(take_options(network, places));
  if (has_items(network.find("subnets"))) {
    return fail(ErrorCode::kUnsupported, "subnets: addresses are of meshd's pool");
  }
  // Addresses and names are the daemon's affair: podman is to hand out neither.
  auto ipam = Json::object();
  ipam.set("driver", Json::string("none"));
  network.set("ipam_options", std::move(ipam));
  network.set("dns_enabled", boolean(false));
  return render(network);
}

Result<NetavarkCall> parse_netavark(std::string_view text, const Places& places) {
  const auto json = TRY(read_object(text));
  const auto* const network = json.find("network");
  const auto* const options = json.find("network_options");
  if (network == nullptr || options == nullptr) {
    return fail(ErrorCode::kInvalid, "network, network_options: are missing");
  }
  NetavarkCall call{
      .launch = {}, .place = {}, .places = places, .wish = unfulfilled(json, *options)};
  CHECK_OK(take_options(*network, call.places));
  const auto container = TRY(word_at(json, "container_id"));
  call.launch.names = {std::string(json.text_at("container_name")), container};
  call.place.ifname = TRY(word_at(*options, "interface_name"));
  if (call.place.ifname.size() > kMaxIfname) {
    return fail(ErrorCode::kInvalid, "interface_name: is too long");
  }
  call.place.key =
      fmt::format("netavark:{}/{}/{}", TRY(word_at(*network, "id")), container, call.place.ifname);
  return call;
}

std::string render_status(const mesh::v1::AttachReply& reply) {
  auto interface = Json::object();
  interface.set("mac_address", Json::string(reply.mac()));
  auto& subnets = interface.set("subnets", Json::array());
  for (const auto& address : reply.addresses()) subnets.items.push_back(subnet(reply, address));
  auto interfaces = Json::object();
  interfaces.set(reply.ifname(), std::move(interface));
  auto status = Json::object();
  status.set("dns_search_domains", texts(reply.search()));
  status.set("dns_server_ips", texts(reply.resolvers()));
  status.set("interfaces", std::move(interfaces));
  return render(status);
}

std::string render_netavark_info() {
  return fmt::format(R"({{"version":"{}","api_version":"1.0.0"}})", kNetavarkVersion);
}

std::string render_netavark_error(std::string_view what) {
  auto json = Json::object();
  json.set("error", Json::string(printable(what)));
  return render(json);
}

}  // namespace meshd::engines
