#include "proxy/target.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "policy/name.h"

namespace meshd::proxy {
namespace {

using policy::LabelKind;
using Problem = std::unexpected<HostProblem>;

constexpr std::size_t kUuidBytes = 27;
constexpr std::size_t kMaxHostBytes = 253;  // RFC 1035 section 2.3.4, without the final dot
constexpr std::uint16_t kHttpsPort = 443;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_host_byte(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || c == '-' || c == '.'; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

Problem odd(std::string_view why) { return Problem(HostProblem{400, why}); }
Problem nobodys() { return Problem(HostProblem{404, "no workload can have that name"}); }

struct HostPort {
  std::string host;  // lower case, without a final dot
  std::uint16_t port = kHttpsPort;
};

// Addresses are no names of anybody's: with their brackets they are as odd as a userinfo.
std::expected<HostPort, HostProblem> parse_host(std::string_view text) {
  HostPort result;
  const auto colon = text.find(':');
  if (colon != std::string_view::npos) {
    const auto port = parse_port(text.substr(colon + 1));
    if (!port) return odd("the port is not a number from 1 to 65535");
    result.port = *port;
    text = text.substr(0, colon);
  }
  if (text.ends_with('.')) text.remove_suffix(1);
  if (text.empty()) return odd("there is no name");
  if (text.size() > kMaxHostBytes) return odd("the name is longer than names can be");
  result.host.assign(text);
  std::ranges::transform(result.host, result.host.begin(), lower);
  const bool shaped = std::ranges::all_of(result.host, is_host_byte) &&
                      result.host.front() != '.' && result.host.back() != '.' &&
                      result.host.find("..") == std::string::npos;
  if (!shaped) return odd("the name holds what no name can hold");
  return result;
}

std::expected<Target, HostProblem> service_target(std::string_view label) {
  const auto separator = label.find("--");
  ServiceTarget target{std::string(label.substr(0, separator)), std::nullopt};
  if (separator != std::string_view::npos) {
    target.port = parse_port(label.substr(separator + 2));
    if (!target.port) return odd("what follows -- is not a port");
  }
  if (!policy::label_problem(LabelKind::kName, target.name).empty()) return nobodys();
  return target;
}

Target uuid_target(std::string_view uuid, std::optional<std::uint16_t> port) {
  if (is_arvados_uuid(uuid, kContainerRequestType)) return RequestTarget{std::string(uuid), port};
  return InstanceTarget{std::string(uuid), port};
}

std::expected<Target, HostProblem> instance_target(std::string_view label) {
  if (const auto separator = label.find("--"); separator != std::string_view::npos) {
    const auto port = parse_port(label.substr(separator + 2));
    if (!port) return odd("what follows -- is not a port");
    const auto id = label.substr(0, separator);
    if (!policy::label_problem(LabelKind::kId, id).empty()) return nobodys();
    return uuid_target(id, port);
  }
  const auto uuid = label.substr(0, kUuidBytes);
  const bool known =
      is_arvados_uuid(uuid, kContainerType) || is_arvados_uuid(uuid, kContainerRequestType);
  if (!known) return nobodys();
  const auto rest = label.substr(kUuidBytes);
  if (rest.empty()) return uuid_target(uuid, std::nullopt);
  const auto port = rest.starts_with('-') ? parse_port(rest.substr(1)) : std::nullopt;
  if (!port) return odd("what follows the UUID is not a port");
  return uuid_target(uuid, port);
}

}  // namespace

Status check_site(const Site& site) {
  const auto wrong = [](std::string_view field, std::string_view reason) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: {}", field, reason));
  };
  if (site.zone.empty() && site.host.empty()) return wrong("zone", "neither a zone nor a host");
  if (!site.zone.empty()) {
    if (const auto why = policy::zone_problem(site.zone); !why.empty()) return wrong("zone", why);
  }
  if (site.port == 0) return wrong("port", "is 1 to 65535");
  if (site.host.empty()) return {};
  if (const auto why = policy::zone_problem(site.host); !why.empty()) return wrong("host", why);
  if (site.first_port == 0 || site.first_port > site.last_port) {
    return wrong("ports", "are FIRST-LAST, 1 to 65535");
  }
  // Else the two meet in one Host header.
  if (site.first_port <= site.port && site.port <= site.last_port) {
    return wrong("ports", fmt::format("{} is the {}'s port", site.port,
                                      site.zone.empty() ? "page" : "zone"));
  }
  return {};
}

std::expected<Target, HostProblem> parse_target(const Site& site, std::string_view host,
                                                std::string_view line_host) {
  const auto parsed = parse_host(host);
  if (!parsed) return Problem(parsed.error());
  if (parsed->host != line_host) return odd("the request line is for another host");
  if (!site.host.empty() && parsed->host == site.host) {
    if (parsed->port == site.port && site.host == page_host(site)) return PageTarget{};
    if (parsed->port < site.first_port || parsed->port > site.last_port) {
      return Problem(HostProblem{421, "not a port of this site"});
    }
    return PortTarget{parsed->port};
  }
  const bool inside = !site.zone.empty() && parsed->host.size() > site.zone.size() + 1 &&
                      parsed->host.ends_with(site.zone) &&
                      parsed->host[parsed->host.size() - site.zone.size() - 1] == '.';
  if (!inside) return Problem(HostProblem{421, "not a name of this site"});
  if (parsed->port != site.port) return Problem(HostProblem{421, "not the port of this site"});
  std::string_view label(parsed->host);
  label.remove_suffix(site.zone.size() + 1);
  constexpr std::string_view kServices = ".svc";
  if (label.ends_with(kServices)) {
    label.remove_suffix(kServices.size());
    return label.find('.') == std::string_view::npos ? service_target(label) : nobodys();
  }
  if (label == kPageLabel) return PageTarget{};
  return label.find('.') == std::string_view::npos ? instance_target(label) : nobodys();
}

std::string url_of(const Site& site, const Target& target, std::string_view path) {
  constexpr std::size_t kMaxLabelBytes = 63;
  const auto named = [](std::string_view name, const std::optional<std::uint16_t>& port) {
    return port ? fmt::format("{}--{}", name, *port) : std::string(name);
  };
  const auto url = [&](std::string_view host, std::uint16_t port) {
    return fmt::format("https://{}{}{}", host, port == kHttpsPort ? "" : fmt::format(":{}", port),
                       path.empty() ? "/" : path);
  };
  if (const auto* outside = std::get_if<PortTarget>(&target)) {
    return site.host.empty() ? "" : url(site.host, outside->outside);
  }
  if (std::holds_alternative<PageTarget>(target)) return url(page_host(site), site.port);
  std::string label, under;
  if (const auto* service = std::get_if<ServiceTarget>(&target)) {
    label = named(service->name, service->port);
    under = "svc.";
  } else if (const auto* instance = std::get_if<InstanceTarget>(&target)) {
    label = named(instance->id, instance->port);
  } else {
    const auto& request = std::get<RequestTarget>(target);
    label = named(request.uuid, request.port);
  }
  if (site.zone.empty() || label.size() > kMaxLabelBytes) return {};
  return url(fmt::format("{}.{}{}", label, under, site.zone), site.port);
}

std::string page_host(const Site& site) {
  return site.zone.empty() ? site.host : fmt::format("{}.{}", kPageLabel, site.zone);
}

std::string target_text(const Target& target) {
  const auto with_port = [](std::string_view kind, std::string_view name,
                            const std::optional<std::uint16_t>& port) {
    return port ? fmt::format("{} {} port {}", kind, name, *port)
                : fmt::format("{} {}", kind, name);
  };
  if (const auto* service = std::get_if<ServiceTarget>(&target)) {
    return with_port("service", service->name, service->port);
  }
  if (const auto* instance = std::get_if<InstanceTarget>(&target)) {
    return with_port("workload", instance->id, instance->port);
  }
  if (const auto* request = std::get_if<RequestTarget>(&target)) {
    return with_port("request", request->uuid, request->port);
  }
  if (std::holds_alternative<PageTarget>(target)) return "page";
  return fmt::format("outside port {}", std::get<PortTarget>(target).outside);
}

bool is_arvados_uuid(std::string_view text, std::string_view type) {
  return policy::is_uuid(text) && text.substr(6, type.size()) == type;
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  if (text.empty() || text.size() > 5 || text.front() == '0') return std::nullopt;
  if (!std::ranges::all_of(text, is_digit)) return std::nullopt;
  std::uint32_t port = 0;
  std::from_chars(text.data(), text.data() + text.size(), port);
  if (port > 65535) return std::nullopt;
  return static_cast<std::uint16_t>(port);
}

}  // namespace meshd::proxy
