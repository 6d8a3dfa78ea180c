#include "controller/config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "arvados/client.h"
#include "base/unique_fd.h"
#include "pki/identity.h"
#include "pki/join_ticket.h"
#include "policy/from_text.h"
#include "policy/limits.h"
#include "proto/config.pb.h"
#include "proxy/people.h"

namespace meshd::controller {
namespace {

using mesh::v1::ControllerConfig;
using Log = mesh::v1::NodeConfig::Log;

// Every error below begins with the field; parse_config() puts file and line in front.
std::unexpected<Error> wrong(std::string_view field, std::string_view reason) {
  return fail(ErrorCode::kInvalid, fmt::format("{}: {}", field, reason));
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "controller";
  std::string text(name.data());
  return text.substr(0, text.find('.'));
}

Status take_seconds(std::string_view field, std::uint32_t value, Duration& into) {
  if (value > kMaxSeconds) {
    return wrong(field, fmt::format("{} is not between 1 and {}", value, kMaxSeconds));
  }
  if (value != 0) into = std::chrono::seconds(value);
  return {};
}

void read_log(const Log& from, Config& to) {
  if (from.level() == Log::Level::DEBUG) to.log_level = log::Level::kDebug;
  if (from.level() == Log::Level::WARNING) to.log_level = log::Level::kWarning;
  if (from.level() == Log::Level::ERROR) to.log_level = log::Level::kError;
  if (from.format() == Log::Format::JSON) to.log_format = log::Format::kJson;
  const bool under_systemd = std::getenv("JOURNAL_STREAM") != nullptr;
  if (from.format() == Log::Format::AUTO && under_systemd) to.log_format = log::Format::kJournal;
}

Status read_proxy(const ControllerConfig::Proxy& from, Config& to) {
  if (static_cast<std::size_t>(from.addresses().size()) > policy::kMaxSources) {
    return wrong("proxy.addresses", fmt::format("at most {} are allowed", policy::kMaxSources));
  }
  for (int i = 0; i < from.addresses().size(); ++i) {
    const auto prefix = Prefix::parse(from.addresses(i));
    if (!prefix) return wrong(fmt::format("proxy.addresses[{}]", i), prefix.error().what);
    to.proxies.push_back(*prefix);
  }
  if (const auto why = from.node().empty() ? "" : pki::label_problem(from.node()); !why.empty()) {
    return wrong("proxy.node", why);
  }
  to.proxy_node = from.node();
  return {};
}

// A container that waits for less is asked for at once anyhow.
constexpr std::uint32_t kMaxPoll = 3600;

Status read_arvados(const ControllerConfig::Arvados& from, Config& to) {
  ArvadosConfig arvados{from.api_host(), from.token_file(), from.ca_file()};
  if (arvados.api_host.empty()) return wrong("arvados.api_host", "is missing");
  if (!arvados::is_api_host(arvados.api_host)) {
    return wrong("arvados.api_host",
                 "is no host name, nor one with a port, such as zzzzz.example.org or "
                 "zzzzz.example.org:8443");
  }
  if (arvados.token_file.empty()) return wrong("arvados.token_file", "is missing");
  if (!arvados.token_file.starts_with('/')) {
    return wrong("arvados.token_file", "is not an absolute path");
  }
  if (!arvados.ca_file.empty() && !arvados.ca_file.starts_with('/')) {
    return wrong("arvados.ca_file", "is not an absolute path");
  }
  if (from.poll_s() > kMaxPoll) {
    return wrong("arvados.poll_s",
                 fmt::format("{} is not between 1 and {}", from.poll_s(), kMaxPoll));
  }
  if (from.poll_s() != 0) arvados.poll = std::chrono::seconds(from.poll_s());
  to.arvados = std::move(arvados);
  return {};
}

Status read_listeners(const ControllerConfig& from, Config& to) {
  if (!from.listen().empty()) to.listen = from.listen();
  if (!from.join_listen().empty()) to.join_listen = from.join_listen();
  if (to.join_listen == "off") to.join_listen.clear();
  if (const auto why = pki::endpoint_problem(to.listen); !why.empty()) {
    return wrong("listen", why);
  }
  if (to.join_listen.empty()) return {};
  if (const auto why = pki::endpoint_problem(to.join_listen); !why.empty()) {
    return wrong("join_listen", why);
  }
  return {};
}

Status take_keep(std::string_view field, std::uint32_t value, Duration& into) {
  if (value > kMaxKeepSeconds) {
    return wrong(field, fmt::format("{} is not between 1 and {}", value, kMaxKeepSeconds));
  }
  if (value != 0) into = std::chrono::seconds(value);
  return {};
}

// The socket of a websocket is DIR/KEY.sock, and all that is in an address has 107 bytes
// (proxy/endpoint.cc counts them).
std::string socket_dir_problem(std::string_view path) {
  if (!path.starts_with('/')) return "is not an absolute path";
  return path.size() > 61 ? "is longer than 61 characters" : "";
}

Status read_names(const ControllerConfig::Web& from, proxy::Site& to) {
  to.zone = from.zone();
  // The reader takes what is called a port as one only.
  if (from.port() != 0) to.port = static_cast<std::uint16_t>(from.port());
  to.host = from.host();
  if (from.ports().empty()) return {};
  if (to.host.empty()) return wrong("web.ports", "are those of a host, which is not given");
  const auto ports = policy::parse_port_span(from.ports());
  if (!ports) return wrong("web.ports", ports.error().what);
  to.first_port = ports->first;
  to.last_port = ports->last;
  return {};
}

// What nginx will be told is checked as for nginx, whose names for it are these.
Status check_site(const WebConfig& web) {
  const auto text = proxy::render_nginx_config(web.nginx);
  if (text) return {};
  const auto& what = text.error().what;
  const auto field = what.substr(0, what.find(": "));
  return wrong("web." + (field == "endpoint" ? "listen" : field), what.substr(field.size() + 2));
}

Status read_web(const ControllerConfig::Web& from, Config& to) {
  WebConfig web;
  CHECK_OK(read_names(from, web.nginx.names));
  if (!from.listen().empty()) web.nginx.endpoint = from.listen();
  if (!from.access_log().empty()) web.nginx.access_log = from.access_log();
  web.nginx.certificate = from.certificate();
  web.nginx.certificate_key = from.certificate_key();
  fill_certificates(web.nginx);
  CHECK_OK(check_site(web));
  web.group = from.group();
  const bool by_socket = web.nginx.endpoint.starts_with('/');
  web.relay_dir = !from.relay_dir().empty() ? from.relay_dir()
                  : by_socket
                      ? web.nginx.endpoint.substr(0, web.nginx.endpoint.rfind('/')) + "/relay"
                      : "/run/mesh-controller/relay";
  if (const auto why = socket_dir_problem(web.relay_dir); !why.empty()) {
    return wrong(from.relay_dir().empty() ? "web.listen" : "web.relay_dir", why);
  }
  if (by_socket && web.nginx.endpoint.starts_with(web.relay_dir + "/")) {
    return wrong("web.relay_dir", "is where `listen` has its socket: sockets there are removed");
  }
  if (by_socket && web.nginx.endpoint.size() > 107) {
    return wrong("web.listen", "is longer than the 107 characters of a socket's address");
  }
  web.tokens = from.tokens().empty() ? default_tokens(to.dir) : from.tokens();
  if (web.tokens.front() != '/') return wrong("web.tokens", "is not an absolute path");
  CHECK_OK(take_keep("web.keep_good_s", from.keep_good_s(), web.keep_good));
  CHECK_OK(take_keep("web.keep_bad_s", from.keep_bad_s(), web.keep_bad));
  CHECK_OK(take_seconds("web.open_idle_s", from.open_idle_s(), web.open_idle));
  to.web = std::move(web);
  return {};
}

Result<Config> to_config(const ControllerConfig& from) {
  Config config;
  CHECK_OK(read_listeners(from, config));
  if (!from.dir().empty()) config.dir = from.dir();
  if (config.dir.front() != '/') return wrong("dir", "is not an absolute path");
  config.name = from.name().empty() ? host_name() : from.name();
  if (const auto why = pki::label_problem(config.name); !why.empty()) return wrong("name", why);
  config.postgres = from.postgres();
  config.node_declarations = from.allow_node_declarations();
  CHECK_OK(take_seconds("stale_after_s", from.stale_after_s(), config.stale_after));
  CHECK_OK(take_seconds("dismiss_after_s", from.dismiss_after_s(), config.dismiss_after));
  if (config.dismiss_after <= config.stale_after) {
    return wrong("dismiss_after_s", "is not after stale_after_s");
  }
  if (!from.metrics().listen().empty()) {
    auto listen = metrics::parse_listen(from.metrics().listen());
    if (!listen) return wrong("metrics.listen", listen.error().what);
    config.metrics = *listen;
  }
  CHECK_OK(read_proxy(from.proxy(), config));
  if (!from.gateway().ports().empty()) {
    const auto ports = policy::parse_port_span(from.gateway().ports());
    if (!ports) return wrong("gateway.ports", ports.error().what);
    config.gateway_ports = *ports;
  }
  for (int i = 0; i < from.gateway().nodes().size(); ++i) {
    const auto& name = from.gateway().nodes(i);
    if (const auto why = pki::label_problem(name); !why.empty()) {
      return wrong(fmt::format("gateway.nodes[{}]", i), why);
    }
    config.gateway_nodes.insert(name);
  }
  if (from.has_arvados()) CHECK_OK(read_arvados(from.arvados(), config));
  if (from.has_web()) CHECK_OK(read_web(from.web(), config));
  read_log(from.log(), config);
  return config;
}

Status check_given(const ControllerConfig& from, const policy::ParsedFile& parsed) {
  const std::array fields = {
      std::pair{"listen", from.listen().empty()},
      std::pair{"join_listen", from.join_listen().empty()},
      std::pair{"dir", from.dir().empty()},
      std::pair{"name", from.name().empty()},
      std::pair{"postgres", from.postgres().empty()},
      std::pair{"stale_after_s", from.stale_after_s() == 0},
      std::pair{"dismiss_after_s", from.dismiss_after_s() == 0},
      std::pair{"metrics.listen", from.metrics().listen().empty()},
      std::pair{"gateway.ports", from.gateway().ports().empty()},
      std::pair{"arvados.ca_file", from.arvados().ca_file().empty()},
      std::pair{"arvados.poll_s", from.arvados().poll_s() == 0},
      std::pair{"web.zone", from.web().zone().empty()},
      std::pair{"web.port", from.web().port() == 0},
      std::pair{"web.host", from.web().host().empty()},
      std::pair{"web.ports", from.web().ports().empty()},
      std::pair{"web.listen", from.web().listen().empty()},
      std::pair{"web.group", from.web().group().empty()},
      std::pair{"web.relay_dir", from.web().relay_dir().empty()},
      std::pair{"web.tokens", from.web().tokens().empty()},
      std::pair{"web.keep_good_s", from.web().keep_good_s() == 0},
      std::pair{"web.keep_bad_s", from.web().keep_bad_s() == 0},
      std::pair{"web.open_idle_s", from.web().open_idle_s() == 0},
      std::pair{"web.certificate", from.web().certificate().empty()},
      std::pair{"web.certificate_key", from.web().certificate_key().empty()},
      std::pair{"web.access_log", from.web().access_log().empty()},
  };
  for (const auto& [field, unset] : fields) {
    if (unset && parsed.lines.contains(field)) {
      return wrong(field, "is empty; leave it out for the default");
    }
  }
  return {};
}

}  // namespace

std::string default_tokens(const std::string& dir) { return dir + "/" + proxy::kPeopleFile; }

void fill_certificates(proxy::NginxSite& site) {
  const auto& name = site.names.zone.empty() ? site.names.host : site.names.zone;
  if (site.certificate.empty()) site.certificate = fmt::format("/etc/ssl/certs/{}.pem", name);
  if (site.certificate_key.empty()) {
    site.certificate_key = fmt::format("/etc/ssl/private/{}.key", name);
  }
}

Result<Config> parse_config(std::string_view file, std::string_view text) {
  ControllerConfig message;
  const auto parsed = TRY(policy::parse_text(file, text, message));
  auto status = check_given(message, parsed);
  auto config = status ? to_config(message) : std::unexpected(std::move(status).error());
  if (config) return config;
  const auto& what = config.error().what;
  return std::unexpected(
      std::move(config).error().in(parsed.where(what.substr(0, what.find(": ")))));
}

Result<Config> load_config(const std::string& path, bool required) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    if (errno == ENOENT && !required) return to_config({});
    return fail_errno("read " + path, errno);
  }
  std::string text(policy::kMaxFileBytes + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0) return fail_errno("read " + path, errno);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return parse_config(path, text);
}

}  // namespace meshd::controller
