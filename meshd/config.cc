#include "meshd/config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "base/unique_fd.h"
#include "netlink/link.h"
#include "pki/identity.h"
#include "pki/join_ticket.h"
#include "policy/from_text.h"
#include "policy/limits.h"
#include "policy/name.h"
#include "policy/outside_ports.h"
#include "proto/config.pb.h"

namespace meshd {
namespace {

using mesh::v1::NodeConfig;

constexpr std::size_t kMaxPathBytes = 1024;  // well below PATH_MAX with our file names behind

// Every error below begins with the field; read() puts file and line in front.
std::unexpected<Error> wrong(std::string_view field, std::string_view reason) {
  return fail(ErrorCode::kInvalid, fmt::format("{}: {}", field, reason));
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Each entry of a list through `parse`, which gives a Result.
template <class T, class List, class Parse>
Result<std::vector<T>> parse_list(std::string_view field, const List& list, Parse parse) {
  if (static_cast<std::size_t>(list.size()) > kMaxConfigEntries) {
    return wrong(field, fmt::format("{} entries, at most {}", list.size(), kMaxConfigEntries));
  }
  std::vector<T> result;
  for (int i = 0; i < list.size(); ++i) {
    auto value = parse(list[i]);
    if (!value) return wrong(fmt::format("{}[{}]", field, i), value.error().what);
    result.push_back(std::move(*value));
  }
  return result;
}

Result<Prefix> parse_prefix(const std::string& text) { return Prefix::parse(text); }
Result<IpAddress> parse_address(const std::string& text) { return IpAddress::parse(text); }

// 0 stands for "not given": an explicit one was refused before.
Status take_number(std::string_view field, std::uint32_t value, std::uint32_t most,
                   std::uint32_t& into) {
  if (value > most) return wrong(field, fmt::format("{} is not between 1 and {}", value, most));
  if (value != 0) into = value;
  return {};
}

// --- sections ------------------------------------------------------------------------

// Lower case; what a host name may have and a label may not becomes '-'.
std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "node";
  auto text = lower(name.data());
  text.resize(std::min(text.find('.'), std::min<std::size_t>(text.size(), 63)));
  std::ranges::replace_if(
      text, [](char c) { return !is_digit(c) && !(c >= 'a' && c <= 'z'); }, '-');
  const auto first = text.find_first_not_of('-');
  if (first == std::string::npos) return "node";
  return text.substr(first, text.find_last_not_of('-') - first + 1);
}

Result<std::uint32_t> parse_user(const std::string& text) {
  // The last number means "no user" to the kernel (setuid(2)).
  constexpr auto kMaxUid = std::numeric_limits<std::uint32_t>::max() - 1;
  if (!text.empty() && std::ranges::all_of(text, is_digit)) {
    const auto uid = parse_number<std::uint32_t>(text);
    if (uid && *uid <= kMaxUid) return *uid;
    return fail(ErrorCode::kInvalid, fmt::format("{} is not a uid", text));
  }
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16 << 10);
  int error = 0;
  // A directory service's entry may be larger; one over a megabyte is none.
  while ((error = getpwnam_r(text.c_str(), &entry, buffer.data(), buffer.size(), &found)) ==
             ERANGE &&
         buffer.size() < (1 << 20)) {
    buffer.resize(buffer.size() * 2);
  }
  if (found != nullptr) return std::uint32_t{entry.pw_uid};
  if (error == 0 || error == ENOENT || error == ESRCH) {
    return fail(ErrorCode::kInvalid, fmt::format("no user '{}' on this host", text));
  }
  return fail_errno(fmt::format("look up user '{}'", text), error);
}

Status read_node(const NodeConfig& from, Config& to) {
  to.node_name = from.node().name().empty() ? host_name() : from.node().name();
  if (const auto why = policy::label_problem(policy::LabelKind::kPortName, to.node_name);
      !why.empty()) {
    return wrong("node.name", why);
  }
  to.allow_uids =
      TRY(parse_list<std::uint32_t>("node.allow_users", from.node().allow_users(), parse_user));
  std::ranges::sort(to.allow_uids);
  const auto again = std::ranges::unique(to.allow_uids);
  to.allow_uids.erase(again.begin(), again.end());
  std::erase(to.allow_uids, 0U);
  return {};
}

Status read_zone(const NodeConfig& from, Config& to) {
  if (from.zone().empty()) return {};
  auto zone = lower(from.zone());
  if (zone.ends_with('.')) zone.pop_back();
  if (const auto why = policy::zone_problem(zone); !why.empty()) return wrong("zone", why);
  // Others answer for these, and clients ask them without us: mDNS (RFC 6762 section 3),
  // Tor (RFC 7686), themselves (RFC 6761), the reverse trees.
  for (const auto* taken : {"local", "onion", "localhost", "arpa", "invalid"}) {
    if (zone.ends_with(std::string(".") + taken)) {
      return wrong("zone", fmt::format("clients do not ask a DNS server for names in '{}'", taken));
    }
  }
  to.zone = std::move(zone);
  return {};
}

Status read_dns(const NodeConfig::Dns& from, Config& to) {
  to.upstreams =
      TRY(parse_list<Upstream>("dns.upstreams", from.upstreams(),
                               [](const std::string& text) { return parse_upstream(text); }));
  if (to.upstreams.size() > kMaxUpstreams) {
    return wrong("dns.upstreams", fmt::format("{} servers, at most {} are asked",
                                              to.upstreams.size(), kMaxUpstreams));
  }
  CHECK_OK(take_number("dns.cache_mib", from.cache_mib(), kMaxCacheMib, to.dns_cache_mib));
  CHECK_OK(take_number("dns.workers", from.workers(), kMaxDnsWorkers, to.dns_workers));
  CHECK_OK(take_number("dns.client_rate", from.client_rate(), kMaxClientRate, to.dns_client_rate));
  to.engine_prefixes =
      TRY(parse_list<Prefix>("dns.engine_prefixes", from.engine_prefixes(), parse_prefix));
  return {};
}

Status read_ports(const std::string& text, Config& to) {
  if (text.empty()) return {};
  const auto span = policy::parse_port_span(text);
  if (!span) return wrong("publish.ports", span.error().what);
  to.publish_first = span->first;
  to.publish_last = span->last;
  return {};
}

Status read_publish(const NodeConfig::Publish& from, Config& to) {
  to.publish_addresses =
      TRY(parse_list<IpAddress>("publish.addresses", from.addresses(), parse_address));
  CHECK_OK(read_ports(from.ports(), to));
  to.publish_allow_from =
      TRY(parse_list<Prefix>("publish.allow_from", from.allow_from(), parse_prefix));
  to.proxies = TRY(parse_list<Prefix>("publish.proxies", from.proxies(), parse_prefix));
  return {};
}

Status read_names(const NodeConfig::Names& from, Config& to) {
  to.reserved_names = TRY(parse_list<std::string>(
      "names.reserved", from.reserved(), [](const std::string& text) -> Result<std::string> {
        const auto why = policy::label_problem(policy::LabelKind::kPortName, text);
        if (!why.empty()) return fail(ErrorCode::kInvalid, fmt::format("'{}' {}", text, why));
        return text;
      }));
  std::ranges::sort(to.reserved_names);
  return take_number("names.idle_release_days", from.idle_release_days(), kMaxIdleDays,
                     to.idle_release_days);
}

void read_engines(const NodeConfig::Engines& from, Config& to) {
  using Word = NodeConfig::Engines::Undeclared;
  if (from.undeclared() == Word::CLOSED) to.undeclared = Undeclared::kClosed;
  if (from.undeclared() == Word::REFUSE) to.undeclared = Undeclared::kRefuse;
  to.docker_user = from.docker_user();
}

// Others must be able to send to it, from wherever they are.
Result<IpAddress> parse_underlay_address(const std::string& text) {
  const auto address = TRY(IpAddress::parse(text));
  for (const auto* range : {"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127",
                            "fe80::/10", "::ffff:0.0.0.0/96", "ff00::/8"}) {
    if (!Prefix::parse(range).value().contains(address)) continue;
    return fail(ErrorCode::kInvalid, fmt::format("{} is no address that others can send to", text));
  }
  return address;
}

// After the pools: a way to other nodes cannot lead through the mesh.
Status read_underlay(const NodeConfig::Underlay& from, Config& to) {
  using Mode = NodeConfig::Underlay::Mode;
  if (from.mode() == Mode::ROUTED) to.underlay.mode = UnderlayMode::kRouted;
  if (from.mode() == Mode::VXLAN) to.underlay.mode = UnderlayMode::kVxlan;
  to.underlay.addresses =
      TRY(parse_list<IpAddress>("underlay.addresses", from.addresses(), parse_underlay_address));
  const auto& addresses = to.underlay.addresses;
  if (addresses.size() > kMaxUnderlayAddresses) {
    return wrong("underlay.addresses", fmt::format("{} addresses, at most {} are told to others",
                                                   addresses.size(), kMaxUnderlayAddresses));
  }
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    const auto field = fmt::format("underlay.addresses[{}]", i);
    const auto text = addresses[i].to_string();
    if (std::ranges::count(addresses, addresses[i]) > 1)
      return wrong(field, text + " is twice there");
    for (const auto* pool : {&to.pools.ipv4, &to.pools.ipv6, &to.pools.vip4, &to.pools.vip6}) {
      if (!pool->prefix || !pool->prefix->contains(addresses[i])) continue;
      return wrong(field, fmt::format("{} is within the mesh's own range {}", text,
                                      pool->prefix->to_string()));
    }
  }
  const auto& device = from.device();
  if (!device.empty() && (!netlink::valid_link_name(device) || device == kTunnelName)) {
    return wrong("underlay.device", fmt::format("'{}' is no name of a link beneath", device));
  }
  to.underlay.device = device;
  return {};
}

Status read_path(std::string_view field, const std::string& text, std::size_t longest,
                 std::string& into) {
  if (text.empty()) return {};
  if (!text.starts_with('/')) return wrong(field, "must be an absolute path");
  if (text.size() > longest) return wrong(field, fmt::format("longer than {} bytes", longest));
  if (std::ranges::any_of(text, [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; })) {
    return wrong(field, "holds a control character");
  }
  if ((text + "/").find("/../") != std::string::npos) return wrong(field, "must not go up by '..'");
  into = text.substr(0, text.find_last_not_of('/') + 1);
  if (into.empty()) return wrong(field, "the root directory cannot be it");
  return {};
}

Status read_paths(const NodeConfig& from, Config& to) {
  CHECK_OK(read_path("state_dir", from.state_dir(), kMaxPathBytes, to.state_dir));
  // As meshctl finds the sockets: what the configuration says comes first here.
  if (const char* const variable = std::getenv("MESHD_RUN_DIR"); variable != nullptr) {
    CHECK_OK(read_path("MESHD_RUN_DIR", variable, kMaxRunDirBytes, to.run_dir));
  }
  CHECK_OK(read_path("run_dir", from.run_dir(), kMaxRunDirBytes, to.run_dir));
  if (to.state_dir == to.run_dir) {
    return wrong(from.run_dir().empty() ? "state_dir" : "run_dir",
                 "state_dir and run_dir are the same, and run_dir does not outlive a stop");
  }
  return {};
}

Status read_controller(const NodeConfig::Controller& from, Config& to) {
  ControllerSettings settings;
  settings.addresses = TRY(parse_list<std::string>(
      "controller.addresses", from.addresses(), [](const std::string& text) -> Result<std::string> {
        const auto why = pki::endpoint_problem(text);
        if (!why.empty()) return fail(ErrorCode::kInvalid, fmt::format("'{}' {}", text, why));
        return text;
      }));
  if (settings.addresses.size() > pki::kMaxTicketAddresses) {
    return wrong("controller.addresses",
                 fmt::format("{} controllers, at most {} are tried", settings.addresses.size(),
                             pki::kMaxTicketAddresses));
  }
  CHECK_OK(read_path("controller.join_file", from.join_file(), kMaxPathBytes, settings.join_file));
  CHECK_OK(read_path("controller.authorities_file", from.authorities_file(), kMaxPathBytes,
                     settings.authorities_file));
  CHECK_OK(read_path("controller.identity_file", from.identity_file(), kMaxPathBytes,
                     settings.identity_file));
  if (settings.join_file.empty()) {
    if (settings.identity_file.empty() || settings.authorities_file.empty() ||
        settings.addresses.empty()) {
      return wrong("controller",
                   "needs join_file, or addresses, identity_file and authorities_file");
    }
  } else if (!settings.identity_file.empty() || !settings.authorities_file.empty()) {
    return wrong("controller.join_file",
                 "identity_file and authorities_file are for nodes that do not join");
  }
  // It stands in a certificate, whose rules for names are the narrower ones.
  if (const auto why = pki::label_problem(to.node_name); !why.empty()) {
    return wrong("node.name", why);
  }
  to.controller = std::move(settings);
  return {};
}

void read_log(const NodeConfig::Log& from, Config& to) {
  switch (from.level()) {
    case NodeConfig::Log::Level::DEBUG:
      to.log_level = log::Level::kDebug;
      break;
    case NodeConfig::Log::Level::WARNING:
      to.log_level = log::Level::kWarning;
      break;
    case NodeConfig::Log::Level::ERROR:
      to.log_level = log::Level::kError;
      break;
    default:
      to.log_level = log::Level::kInfo;
  }
  if (from.format() == NodeConfig::Log::Format::TEXT) to.log_format = log::Format::kText;
  if (from.format() == NodeConfig::Log::Format::JSON) to.log_format = log::Format::kJson;
}

// --- the whole -----------------------------------------------------------------------

// An empty text and a 0 cannot be told from an absent field in the message; in the file
// they are a mistake, and must not quietly mean the default.
Status check_given(const NodeConfig& from, const policy::ParsedFile& parsed) {
  const std::array fields = {
      std::pair{"node.name", from.node().name().empty()},
      std::pair{"zone", from.zone().empty()},
      std::pair{"pool.ipv4", from.pool().ipv4().empty()},
      std::pair{"pool.ipv6", from.pool().ipv6().empty()},
      std::pair{"pool.vip4", from.pool().vip4().empty()},
      std::pair{"pool.vip6", from.pool().vip6().empty()},
      std::pair{"dns.cache_mib", from.dns().cache_mib() == 0},
      std::pair{"dns.workers", from.dns().workers() == 0},
      std::pair{"dns.client_rate", from.dns().client_rate() == 0},
      std::pair{"publish.ports", from.publish().ports().empty()},
      std::pair{"state_dir", from.state_dir().empty()},
      std::pair{"run_dir", from.run_dir().empty()},
      std::pair{"controller.join_file", from.controller().join_file().empty()},
      std::pair{"controller.authorities_file", from.controller().authorities_file().empty()},
      std::pair{"controller.identity_file", from.controller().identity_file().empty()},
      std::pair{"underlay.device", from.underlay().device().empty()},
      std::pair{"metrics.listen", from.metrics().listen().empty()},
  };
  for (const auto& [field, unset] : fields) {
    if (unset && parsed.lines.contains(field)) {
      return wrong(field, "is empty; leave it out for the default");
    }
  }
  return {};
}

Result<Config> to_config(const NodeConfig& from) {
  Config config;
  CHECK_OK(read_node(from, config));
  CHECK_OK(read_zone(from, config));
  config.pools = TRY(
      parse_pools(from.pool().ipv4(), from.pool().ipv6(), from.pool().vip4(), from.pool().vip6()));
  CHECK_OK(read_dns(from.dns(), config));
  CHECK_OK(read_publish(from.publish(), config));
  CHECK_OK(read_names(from.names(), config));
  read_engines(from.engines(), config);
  CHECK_OK(read_underlay(from.underlay(), config));
  CHECK_OK(read_paths(from, config));
  read_log(from.log(), config);
  if (!from.metrics().listen().empty()) {
    auto listen = metrics::parse_listen(from.metrics().listen());
    if (!listen) return wrong("metrics.listen", listen.error().what);
    config.metrics = *listen;
  }
  if (from.has_controller()) CHECK_OK(read_controller(from.controller(), config));
  config.gateway = from.gateway();
  if (config.gateway && !config.controller) {
    return wrong("gateway", "there is no controller: a node by itself publishes what it runs");
  }
  return config;
}

// Absent: there is no such file.
Result<std::optional<std::string>> read_file(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    if (errno == ENOENT) return std::optional<std::string>();
    return fail_errno("read " + path, errno);
  }
  // One byte more than the reader takes, so that it is the one to refuse.
  std::string text(policy::kMaxFileBytes + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0) return fail_errno("read " + path, errno);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return std::optional(std::move(text));
}

}  // namespace

Result<Config> parse_config(std::string_view file, std::string_view text) {
  NodeConfig message;
  const auto parsed = TRY(policy::parse_text(file, text, message));
  auto status = check_given(message, parsed);
  auto config = status ? to_config(message) : std::unexpected(std::move(status).error());
  if (config) return config;
  const auto& what = config.error().what;
  return std::unexpected(
      std::move(config).error().in(parsed.where(what.substr(0, what.find(": ")))));
}

Result<Config> default_config() { return to_config({}); }

Result<Config> load_config(const std::string& path, bool required) {
  const auto text = TRY(read_file(path));
  if (text) return parse_config(path, *text);
  if (required) return fail_errno("read " + path, ENOENT);
  return default_config();
}

Result<policy::Settings> settings_of(const Config& config, const Prefix& ula) {
  policy::Settings settings;
  const auto pools = TRY(resolve_pools(config.pools, ula));
  settings.node_name = config.node_name;
  settings.zone = config.zone;
  settings.pool4 = pools.pool4;
  settings.pool6 = pools.pool6;
  settings.vip_pool4 = pools.vip4;
  settings.vip_pool6 = pools.vip6;
  for (int i = 0; i < 2; ++i) {
    settings.resolver4[i] = resolver4(i);
    settings.resolver6[i] = resolver6(ula, i);
  }
  settings.allow_uids = config.allow_uids;
  settings.publish_first = config.publish_first;
  settings.publish_last = config.publish_last;
  settings.publish_allow_from = config.publish_allow_from;
  settings.proxies = config.proxies;
  settings.gateway = config.gateway;
  settings.reserved_names = config.reserved_names;
  settings.dns_client_rate = config.dns_client_rate;
  return settings;
}

log::Format journal_or_text() {
  const char* const stream = std::getenv("JOURNAL_STREAM");  // "DEVICE:INODE" of stderr
  struct stat info{};
  if (stream == nullptr || fstat(STDERR_FILENO, &info) != 0) return log::Format::kText;
  const bool same = fmt::format("{}:{}", info.st_dev, info.st_ino) == stream;
  return same ? log::Format::kJournal : log::Format::kText;
}

}  // namespace meshd
