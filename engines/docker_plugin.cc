#include "engines/docker_plugin.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "engines/program.h"

namespace meshd::engines {
namespace {

using Kind = PluginCall::Kind;

// Where the resolver is, for those who look at the network: nothing is sent to it as a gateway.
constexpr std::string_view kGateway = "169.254.1.1/32";
constexpr std::string_view kPool = "mesh";
constexpr std::size_t kMaxPathBytes = 4096;  // PATH_MAX

// Docker's own rule for names, which is safe in a request's line.
bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kMaxPathBytes && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
  });
}

std::unexpected<Error> refuse(std::string what) {
  return fail(ErrorCode::kUnsupported, std::move(what));
}

Result<std::string> number_at(const Json& body, std::string_view key) {
  const auto text = body.text_at(key);
  if (!is_number(text)) return fail(ErrorCode::kInvalid, fmt::format("{}: is no number", key));
  return std::string(text);
}

bool says_yes(const Json* value) { return value != nullptr && value->text == "true"; }

// --- addresses ---------------------------------------------------------------------

Result<PluginCall> request_pool(const Json& body) {
  if (says_yes(body.find("V6"))) {
    return refuse("--ipv6: meshd gives IPv6 addresses where its pool has them, unasked");
  }
  for (const auto* key : {"Pool", "SubPool"}) {
    if (body.text_at(key).empty()) continue;
    return refuse("--subnet, --ip-range: addresses are of meshd's pool");
  }
  return PluginCall{.reply = fmt::format(R"({{"PoolID":"{}","Pool":"{}/32","Data":{{}}}})", kPool,
                                         kDummyAddress)};
}

Result<PluginCall> request_address(const Json& body) {
  if (!body.text_at("Address").empty()) {
    return refuse("--ip, --gateway, --aux-address: addresses are of meshd's pool");
  }
  const auto* const options = body.find("Options");
  const bool gateway =
      options != nullptr && options->text_at("RequestAddressType") == "com.docker.network.gateway";
  const auto address = gateway ? std::string(kGateway) : fmt::format("{}/32", kDummyAddress);
  return PluginCall{.reply = fmt::format(R"({{"Address":"{}","Data":{{}}}})", address)};
}

// --- networks ----------------------------------------------------------------------

Result<PluginCall> create_network(const Json& body) {
  [[maybe_unused]] const auto network = TRY(number_at(body, "NetworkID"));
  const auto* const options = body.find("Options");
  const auto* const chosen =
      options == nullptr ? nullptr : options->find("com.docker.network.generic");
  if (chosen != nullptr && !chosen->keys.empty()) {
    return refuse(fmt::format("-o {}: a network of the mesh has no options", chosen->keys.front()));
  }
  if (options != nullptr && says_yes(options->find("com.docker.network.internal"))) {
    return refuse("--internal: what leaves the mesh is said by the containers' declarations");
  }
  const auto* const addresses = body.find("IPv4Data");
  // Of Docker's own IPAM they would be addresses that the container does not have.
  if (addresses == nullptr || addresses->items.empty() ||
      addresses->items.front().text_at("AddressSpace") != kPool) {
    return refuse("--ipam-driver mesh: is missing");
  }
  return PluginCall{.reply = "{}"};
}

Result<PluginCall> endpoint_call(const Json& body, Kind kind, std::string_view reply) {
  PluginCall call{.kind = kind, .reply = std::string(reply)};
  call.network = TRY(number_at(body, "NetworkID"));
  call.endpoint = TRY(number_at(body, "EndpointID"));
  return call;
}

Result<PluginCall> join(const Json& body) {
  // No interface of ours, and none of Docker's own gateway network in its place.
  auto call = TRY(endpoint_call(body, Kind::kJoin, R"({"DisableGatewayService":true})"));
  call.sandbox = body.text_at("SandboxKey");
  if (!call.sandbox.starts_with('/') || call.sandbox.size() > kMaxPathBytes) {
    return fail(ErrorCode::kInvalid, "SandboxKey: is no path");
  }
  const auto* const options = body.find("Options");
  const auto* const ports =
      options == nullptr ? nullptr : options->find("com.docker.network.portmap");
  if (ports != nullptr && !ports->items.empty()) {
    return refuse("-p: ports are published by the container's declaration");
  }
  return call;
}

// --- which call --------------------------------------------------------------------

std::string_view constant_reply(std::string_view path) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kReplies = {
      {{"/Plugin.Activate", R"({"Implements":["NetworkDriver","IpamDriver"]})"},
       {"/NetworkDriver.GetCapabilities", R"({"Scope":"local","ConnectivityScope":"global"})"},
       {"/IpamDriver.GetCapabilities", R"({"RequiresMACAddress":false})"},
       {"/IpamDriver.GetDefaultAddressSpaces",
        R"({"LocalDefaultAddressSpace":"mesh","GlobalDefaultAddressSpace":"mesh"})"}}};
  const auto found =
      std::ranges::find(kReplies, path, &std::pair<std::string_view, std::string_view>::first);
  return found == kReplies.end() ? std::string_view() : found->second;
}

Result<PluginCall> nothing(const Json&) { return PluginCall{.reply = "{}"}; }
Result<PluginCall> create_endpoint(const Json& body) {
  return endpoint_call(body, Kind::kAnswered, R"({"Interface":{}})");
}
Result<PluginCall> describe(const Json& body) {
  return endpoint_call(body, Kind::kAnswered, R"({"Value":{}})");
}
Result<PluginCall> leave(const Json& body) { return endpoint_call(body, Kind::kLeave, "{}"); }

using Parse = Result<PluginCall> (*)(const Json&);

Parse parser_of(std::string_view path) {
  constexpr std::array<std::pair<std::string_view, Parse>, 14> kParsers = {
      {{"/IpamDriver.RequestPool", request_pool},
       {"/IpamDriver.ReleasePool", nothing},
       {"/IpamDriver.RequestAddress", request_address},
       {"/IpamDriver.ReleaseAddress", nothing},
       {"/NetworkDriver.CreateNetwork", create_network},
       {"/NetworkDriver.DeleteNetwork", nothing},
       {"/NetworkDriver.CreateEndpoint", create_endpoint},
       {"/NetworkDriver.DeleteEndpoint", nothing},
       {"/NetworkDriver.EndpointOperInfo", describe},
       {"/NetworkDriver.Join", join},
       {"/NetworkDriver.Leave", leave},
       {"/NetworkDriver.DiscoverNew", nothing},
       {"/NetworkDriver.DiscoverDelete", nothing},
       {"/NetworkDriver.RevokeExternalConnectivity", nothing}}};
  const auto found = std::ranges::find(kParsers, path, &std::pair<std::string_view, Parse>::first);
  return found == kParsers.end() ? nullptr : found->second;
}

}  // namespace

Result<PluginCall> parse_plugin_call(std::string_view path, std::string_view body) {
  if (const auto reply = constant_reply(path); !reply.empty()) {
    return PluginCall{.reply = std::string(reply)};
  }
  const auto parse = parser_of(path);
  if (parse == nullptr) return fail(ErrorCode::kNotFound, "not a call that this driver has");
  const auto json = read_json(body);
  if (!json) return std::unexpected(Error(json.error()).in("the call's body"));
  if (json->kind != Json::Kind::kObject) {
    return fail(ErrorCode::kInvalid, "the call's body is no object");
  }
  return parse(*json);
}

std::string render_plugin_error(std::string_view what) {
  auto json = Json::object();
  // Of a network driver dockerd reads the one, of an IPAM driver the other.
  for (const auto* key : {"Err", "Error"}) json.set(key, Json::string(printable(what)));
  return render(json);
}

Result<Member> parse_member(std::string_view network, std::string_view endpoint) {
  const auto json = TRY(read_json(network));
  const auto* const members = json.find("Containers");
  for (std::size_t i = 0; members != nullptr && i < members->keys.size(); ++i) {
    const auto& one = members->items[i];
    if (one.text_at("EndpointID") != endpoint) continue;
    Member member{.container = members->keys[i], .name = std::string(one.text_at("Name"))};
    if (!is_number(member.container)) member.container.clear();  // "ep-" and its endpoint
    if (!is_name(member.name)) return fail(ErrorCode::kInvalid, "the container has no name");
    return member;
  }
  return fail(ErrorCode::kNotFound, "dockerd does not know who that endpoint is");
}

Result<std::string> parse_container_id(std::string_view list, std::string_view name) {
  const auto json = TRY(read_json(list));
  for (const auto& one : json.items) {
    const auto* const names = one.find("Names");
    if (names == nullptr || !is_number(one.text_at("Id"))) continue;
    // Others are links of containers to this one: "/other/alias".
    const auto own = fmt::format("/{}", name);
    if (std::ranges::find(names->items, own, &Json::text) != names->items.end()) {
      return std::string(one.text_at("Id"));
    }
  }
  return fail(ErrorCode::kNotFound, fmt::format("dockerd does not know the container {}", name));
}

Result<HostConfig> parse_host_config(std::string_view text) {
  const auto json = TRY(read_json(text));
  HostConfig config{.runtime = std::string(json.text_at("Runtime"))};
  const auto* const dns = json.find("Dns");
  config.own_dns = dns != nullptr && !dns->items.empty();
  return config;
}

std::optional<std::string> with_addresses(std::string_view hosts,
                                          const std::vector<std::string>& addresses) {
  std::string text;
  bool found = false;
  while (!hosts.empty()) {
    const auto line = hosts.substr(0, hosts.find('\n'));
    hosts.remove_prefix(std::min(hosts.size(), line.size() + 1));
    const auto end = line.find_first_of(" \t");
    if (line.substr(0, end) != kDummyAddress || end == std::string_view::npos) {
      text += fmt::format("{}\n", line);
      continue;
    }
    found = true;
    for (const auto& address : addresses) text += fmt::format("{}{}\n", address, line.substr(end));
  }
  if (!found) return std::nullopt;
  return text;
}

}  // namespace meshd::engines
