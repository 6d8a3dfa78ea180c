#include "meshd/upstreams.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>

#include "base/unique_fd.h"

namespace meshd {
namespace {

constexpr std::string_view kBlanks = " \t\r";

Result<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size() || port == 0) {
    return fail(ErrorCode::kInvalid, fmt::format("'{}' is not a port", text));
  }
  return port;
}

// Why nobody could be asked at this address; empty when somebody can.
std::string_view address_problem(const IpAddress& address) {
  const auto first = address.bytes()[0];
  const bool multicast = address.is_v4() ? first >= 224 : first == 0xff;
  if (multicast) return "is no single host's address";
  if (std::ranges::all_of(address.bytes(), [](std::uint8_t b) { return b == 0; })) {
    return "is no address to send to";
  }
  if (address.is_v6() && first == 0xfe && (address.bytes()[1] & 0xc0) == 0x80) {
    return "is link-local, which says nothing without an interface";
  }
  return {};
}

// The second of systemd's answers without looking into /etc/hosts; both lead back to it.
bool is_resolved_stub(const IpAddress& address) {
  return address.is_v4() && (address.v4_host_order() == 0x7f000035 ||  // 127.0.0.53
                             address.v4_host_order() == 0x7f000036);   // 127.0.0.54
}

// Absent: there is no such file.
Result<std::optional<std::string>> read_file(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<std::string>();
    return fail_errno("read " + path, errno);
  }
  std::string text(kMaxResolvConfBytes + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0) return fail_errno("read " + path, errno);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (size > kMaxResolvConfBytes) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: more than {} bytes", path, kMaxResolvConfBytes));
  }
  text.resize(size);
  return std::optional(std::move(text));
}

// What follows "nameserver" on its line; nothing for other lines.
std::optional<std::string_view> name_server(std::string_view line) {
  constexpr std::string_view kKey = "nameserver";
  if (!line.starts_with(kKey)) return std::nullopt;
  line.remove_prefix(kKey.size());
  const auto start = line.find_first_not_of(kBlanks);
  if (start == 0 || start == std::string_view::npos) return std::nullopt;
  line.remove_prefix(start);
  return line.substr(0, line.find_first_of(kBlanks));
}

// Adds the servers of one file; true when a stub of systemd-resolved was among them.
bool add_servers(std::string_view text, std::span<const IpAddress> own, HostUpstreams& to) {
  bool stub = false;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto server = name_server(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!server) continue;
    const auto skip = [&](std::string_view why) {
      // As bounded as the list of servers: the file is the host's, but anybody's mistake.
      if (to.skipped.size() < kMaxUpstreams)
        to.skipped.push_back(fmt::format("{}: {}", *server, why));
    };
    const auto address = IpAddress::parse(*server);
    if (!address) {
      skip("not an address that can be used");
    } else if (is_resolved_stub(*address)) {
      stub = true;
      skip("systemd-resolved's stub");
    } else if (std::ranges::find(own, *address) != own.end()) {
      skip("our own address");
    } else if (const auto problem = address_problem(*address); !problem.empty()) {
      skip(problem);
    } else if (to.servers.size() == kMaxUpstreams) {
      skip("more servers than are asked");
    } else if (std::ranges::find(to.servers, Upstream{*address}) == to.servers.end()) {
      to.servers.push_back({*address});
    }
  }
  return stub;
}

}  // namespace

std::string Upstream::to_string() const {
  return fmt::format(fmt::runtime(address.is_v4() ? "{}:{}" : "[{}]:{}"), address.to_string(),
                     port);
}

Result<Upstream> parse_upstream(std::string_view text) {
  std::string_view host = text;
  std::optional<std::string_view> port;
  if (text.starts_with('[')) {
    const auto close = text.find(']');
    const auto rest = close == std::string_view::npos ? "?" : text.substr(close + 1);
    if (!rest.empty() && !rest.starts_with(':')) {
      return fail(ErrorCode::kInvalid, fmt::format("'{}' is not [v6]:port", text));
    }
    host = text.substr(1, close - 1);
    if (!rest.empty()) port = rest.substr(1);
  } else if (std::ranges::count(text, ':') == 1) {
    host = text.substr(0, text.find(':'));
    port = text.substr(text.find(':') + 1);
  }
  const auto address = IpAddress::parse(host);
  if (!address) {
    return fail(ErrorCode::kInvalid,
                fmt::format("'{}' is not an address, address:port or [v6]:port (names of "
                            "servers would need a server to look them up)",
                            text));
  }
  if (text.starts_with('[') && address->is_v4()) {
    return fail(ErrorCode::kInvalid, fmt::format("'{}': brackets are for IPv6", text));
  }
  if (const auto problem = address_problem(*address); !problem.empty()) {
    return fail(ErrorCode::kInvalid, fmt::format("'{}' {}", text, problem));
  }
  Upstream result{*address};
  if (port) result.port = TRY(parse_port(*port));
  return result;
}

Result<HostUpstreams> read_resolv_conf(std::span<const IpAddress> own, const std::string& path,
                                       const std::string& resolved_path) {
  HostUpstreams result;
  result.source = path;
  const auto text = TRY(read_file(path));
  if (!text) return result;
  const bool stub = add_servers(*text, own, result);
  if (!stub || !result.servers.empty()) return result;
  const auto behind = TRY(read_file(resolved_path));
  if (!behind) return result;
  result.source = resolved_path;
  add_servers(*behind, own, result);
  return result;
}

}  // namespace meshd
