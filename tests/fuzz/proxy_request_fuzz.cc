// What nginx may hand over of a request: any bytes. Whatever they are, a redirect stays on the
// same host, and no token of ours leaves where we put it: neither in the redirect's target, nor
// in the cookies or the authorization that a container sees.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "proxy/verdict.h"

namespace meshd::proxy {
namespace {

constexpr std::string_view kToken = "mesh_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

void require(bool holds) {
  if (!holds) std::abort();
}

bool holds_token(std::string_view text) { return text.find(kToken) != std::string_view::npos; }

// Where the input has a 1 to 4, a token of ours stands in one of the ways it can be carried.
std::string with_tokens(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case 1:
        result.append("&api_token=").append(kToken).append("&");
        break;
      case 2:
        result.append("&ARVADOS%5fapi%5Ftoken=").append(kToken).append(";");
        break;
      case 3:
        result.append("; ").append(kTokenCookie).append("=").append(to_base64url(kToken)) += ";";
        break;
      case 4:
        result.append("Bearer ").append(kToken);
        break;
      default:
        result += c;
    }
  }
  return result;
}

void check_uri(const Request& request) {
  const auto& uri = request.uri;
  require(uri.starts_with('/'));
  require(uri.size() == 1 || (uri[1] != '/' && uri[1] != '\\'));
  require(std::ranges::none_of(uri, [](char c) { return (c >= 0 && c <= ' ') || c == '\x7f'; }));
  // Nothing more is found in what is left.
  const RequestHead again{"GET", "h", uri, request.cookie, {}, {}, {}, {}, {}};
  const auto second = parse_request(again, kContainerCookie);
  require(second && !second->token_in_query && second->uri == uri);
  require(second->cookie_token.empty() && second->container.empty());
  require(second->cookie == request.cookie);
}

const Directory& sample_directory() {
  static const auto directory = [] {
    DirectoryWriter writer;
    Opening opening;
    opening.id = "w1";
    opening.service = "db";
    opening.state = Opening::State::kReady;
    OpenPort port;
    port.port = 80;
    port.http = port.ready = true;
    port.addresses = {IpAddress::v4(0xc0000207)};
    port.upstream_port = 20001;
    port.access = Access::kPublic;
    opening.ports = {port};
    writer.set(opening);
    return writer.directory();
  }();
  return *directory;
}

void check_step(const Request& request, bool planted) {
  Known known;
  known.bearer = Answer{Answer::Kind::kBadToken, {}, std::nullopt};
  const auto step = decide(sample_directory(), ServiceTarget{"db", std::nullopt}, request, known);
  if (const auto* redirect = std::get_if<Redirect>(&step)) {
    require(redirect->location == request.uri);
    for (const auto& cookie : redirect->set_cookies) {
      require(cookie.find_first_of("\r\n") == std::string::npos);
    }
  }
  if (const auto* allow = std::get_if<Allow>(&step)) {
    require(!request.token_in_query);
    require(allow->cookie.find_first_of("\r\n") == std::string::npos);
    require(allow->authorization.find_first_of("\r\n") == std::string::npos);
    require(planted || (!holds_token(allow->cookie) && !holds_token(allow->authorization)));
  }
}

void read_one(std::string_view bytes) {
  // The fuzzer's own, wherever it put it.
  if (holds_token(bytes) || bytes.find(to_base64url(kToken)) != std::string_view::npos) return;
  // Fields end at a zero; a shorter input leaves the last ones empty.
  std::array<std::string, 6> fields;
  for (auto& field : fields) {
    const auto end = bytes.find('\0');
    field = with_tokens(bytes.substr(0, end));
    bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
  }
  const auto& [rest, cookie, authorization, accept, client, origin] = fields;
  const auto uri = "/" + rest;
  const RequestHead head{"GET", "db.example.org", uri,    cookie, authorization,
                         {},    origin,           accept, client};
  const auto request = parse_request(head, kContainerCookie);
  if (!request) return;
  check_uri(*request);
  // A token where none belongs (in a path, in a cookie of another name) is somebody's own text.
  const bool in_path = holds_token(rest.substr(0, rest.find('?')));
  require(in_path || !holds_token(request->uri));
  require(request->cookie.find(to_base64url(kToken)) == std::string::npos);
  const bool planted =
      in_path || holds_token(cookie) ||
      (holds_token(authorization) && !authorization.starts_with("Bearer " + std::string(kToken)));
  check_step(*request, planted);
}

}  // namespace
}  // namespace meshd::proxy

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::proxy::read_one({reinterpret_cast<const char*>(data), size});
  return 0;
}
