// The answers of a CNI plugin, in the version that was asked for.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "engines/cni.h"
#include "engines/program.h"
#include "proto/node.pb.h"

namespace meshd::engines {
namespace {

using Kind = Json::Kind;

// As meshd/addressing.h names them.
bool is_host_end(std::string_view name) {
  constexpr std::string_view kPrefix = "mesh";
  return name.starts_with(kPrefix) && name.size() > kPrefix.size() &&
         name.find_first_not_of("0123456789abcdef", kPrefix.size()) == std::string_view::npos;
}

bool is_v6(std::string_view address) { return address.contains(':'); }

// Until 1.0.0 an address says its family.
bool wants_family(std::string_view version) { return version.starts_with("0."); }

Json interface_json(const std::string& name, const std::string& mac, const std::string& sandbox) {
  auto json = Json::object();
  json.set("name", Json::string(name));
  if (!mac.empty()) json.set("mac", Json::string(mac));
  if (!sandbox.empty()) json.set("sandbox", Json::string(sandbox));
  return json;
}

std::string gateway_for(const mesh::v1::AttachReply& reply, const std::string& address) {
  const auto found = std::ranges::find_if(
      reply.gateways(), [&](const auto& gateway) { return is_v6(gateway) == is_v6(address); });
  return found == reply.gateways().end() ? std::string() : *found;
}

Json address_json(const mesh::v1::AttachReply& reply, const std::string& address, long interface,
                  std::string_view version) {
  auto json = Json::object();
  if (wants_family(version)) json.set("version", Json::string(is_v6(address) ? "6" : "4"));
  json.set("interface", Json::number(interface));
  json.set("address", Json::string(fmt::format("{}/{}", address, is_v6(address) ? 128 : 32)));
  const auto gateway = gateway_for(reply, address);
  if (!gateway.empty()) json.set("gateway", Json::string(gateway));
  return json;
}

Json route_json(const std::string& gateway) {
  auto json = Json::object();
  json.set("dst", Json::string(is_v6(gateway) ? "::/0" : "0.0.0.0/0"));
  json.set("gw", Json::string(gateway));
  return json;
}

template <class List>
Json texts(const List& list) {
  auto json = Json::array();
  for (const auto& text : list) json.items.push_back(Json::string(text));
  return json;
}

// The list at `key` of what came before, or an empty one.
Json& list_at(Json& result, std::string_view key) {
  const auto* const there = result.find(key);
  return result.set(key,
                    there != nullptr && there->kind == Kind::kArray ? Json(*there) : Json::array());
}

std::vector<std::string> addresses_of(std::size_t interface, const Json& result) {
  const auto* const all = result.find("ips");
  if (all == nullptr) return {};
  std::vector<std::string> addresses;
  for (const auto& one : all->items) {
    const auto* const index = one.find("interface");
    if (index == nullptr || index->text != fmt::to_string(interface)) continue;
    addresses.emplace_back(one.text_at("address"));
  }
  return addresses;
}

void add_attachment(const CniCall& call, const CniNetwork& network, bool default_route,
                    const mesh::v1::AttachReply& reply, Json& result) {
  auto& interfaces = list_at(result, "interfaces");
  interfaces.items.push_back(interface_json(reply.host_ifname(), {}, {}));
  interfaces.items.push_back(interface_json(reply.ifname(), reply.mac(), call.netns));
  const auto index = static_cast<long>(interfaces.items.size()) - 1;
  auto& addresses = list_at(result, "ips");
  for (const auto& address : reply.addresses()) {
    addresses.items.push_back(address_json(reply, address, index, network.version));
  }
  if (default_route) {
    auto& routes = list_at(result, "routes");
    for (const auto& gateway : reply.gateways()) routes.items.push_back(route_json(gateway));
  }
  // Whoever is in the mesh asks its resolver and no other.
  auto dns = Json::object();
  dns.set("nameservers", texts(reply.resolvers()));
  dns.set("search", texts(reply.search()));
  result.set("dns", std::move(dns));
}

}  // namespace

std::string render_result(const CniCall& call, const CniNetwork& network, bool default_route,
                          const std::optional<mesh::v1::AttachReply>& reply) {
  auto result = network.previous ? *network.previous : Json::object();
  result.set("cniVersion", Json::string(network.version));
  if (reply) {
    add_attachment(call, network, default_route, *reply, result);
  } else if (!network.previous) {
    list_at(result, "interfaces");
    list_at(result, "ips");
    result.set("dns", Json::object());
  }
  return render(result);
}

// Ours stands behind its host's end, as add_attachment() puts it.
OurLink our_link(const Json& result) {
  const auto* const interfaces = result.find("interfaces");
  if (interfaces == nullptr) return {};
  bool ours_next = false;
  for (std::size_t i = 0; i < interfaces->items.size(); ++i) {
    const auto& one = interfaces->items[i];
    if (ours_next && !one.text_at("sandbox").empty()) {
      return {std::string(one.text_at("name")), addresses_of(i, result)};
    }
    ours_next = one.text_at("sandbox").empty() && is_host_end(one.text_at("name"));
  }
  return {};
}

std::string render_error(const CniError& error, std::string_view version) {
  auto json = Json::object();
  const auto known = std::ranges::find(kCniVersions, version) != std::end(kCniVersions);
  json.set("cniVersion", Json::string(known ? version : *std::rbegin(kCniVersions)));
  json.set("code", Json::number(error.code));
  json.set("msg", Json::string(printable(error.what)));
  if (!error.details.empty()) json.set("details", Json::string(printable(error.details)));
  return render(json);
}

std::string render_versions(std::string_view asked) {
  auto json = Json::object();
  const auto known = std::ranges::find(kCniVersions, asked) != std::end(kCniVersions);
  json.set("cniVersion", Json::string(known ? asked : *std::rbegin(kCniVersions)));
  json.set("supportedVersions", texts(kCniVersions));
  return render(json);
}

}  // namespace meshd::engines
