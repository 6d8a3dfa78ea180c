#include "proxy/request.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace meshd::proxy {
namespace {

// Ours and upstream's, for whose links people have bookmarks.
constexpr std::array<std::string_view, 2> kTokenParameters = {"arvados_api_token", "api_token"};
// Of Arvados' own proxy, should it once have served this very host.
constexpr std::array<std::string_view, 2> kArvadosCookies = {"arvados_api_token",
                                                             "arvados_container_uuid"};

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool same_but_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, lower, lower);
}

bool starts_with_but_case(std::string_view text, std::string_view start) {
  return text.size() >= start.size() && same_but_case(text.substr(0, start.size()), start);
}

bool is_control(char c) { return (c >= 0 && c < ' ') || c == '\x7f'; }

std::string_view trimmed(std::string_view text, std::string_view blanks) {
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char letter = lower(c);
  return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

// As forms are: %xx and '+'. What is no escape stands for itself.
std::string decoded(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 &&
        hex_digit(text[i + 2]) >= 0) {
      result += static_cast<char>(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
      i += 2;
    } else {
      result += text[i] == '+' ? ' ' : text[i];
    }
  }
  return result;
}

std::unexpected<Error> odd(std::string what) { return fail(ErrorCode::kInvalid, std::move(what)); }

void take_parameter(std::string_view parameter, Request& request) {
  request.token_in_query = true;
  const auto equals = parameter.find('=');
  if (equals == std::string_view::npos || !request.query_token.empty()) return;
  // Pasted into a form, it has a line's end or blanks about it.
  const auto value = decoded(parameter.substr(equals + 1));
  const auto token = trimmed(value, " \t\r\n");
  if (is_token(token)) request.query_token = token;
}

// The query without ours. Parameters end at '&', for some programs also at ';'.
std::string take_query(std::string_view query, Request& request) {
  std::string rest;
  bool ours = false;
  for (bool more = true; more;) {
    const auto end = query.find_first_of("&;");
    more = end != std::string_view::npos;
    const auto parameter = query.substr(0, end);
    const auto name = decoded(parameter.substr(0, parameter.find('=')));
    ours = std::ranges::any_of(kTokenParameters,
                               [&](std::string_view one) { return same_but_case(name, one); });
    if (ours) {
      take_parameter(parameter, request);
      // Its own separator goes with it; the one before it belongs to what is kept.
      query.remove_prefix(more ? end + 1 : query.size());
    } else {
      const auto kept = more ? end + 1 : query.size();
      rest += query.substr(0, kept);
      query.remove_prefix(kept);
    }
  }
  // After the last one there is none of its own: what was before it.
  if (ours && !rest.empty()) rest.pop_back();
  return rest;
}

Status take_uri(std::string_view uri, Request& request) {
  if (!uri.starts_with('/')) return odd("the request is not for a path");
  for (const char c : uri) {
    if (is_control(c) || c == ' ') return odd("the path holds a control character or a blank");
    if (c == '#') return odd("the path holds a fragment");
  }
  const auto mark = uri.find('?');
  // To a browser "//host" and "/\host" are another site.
  auto path = uri.substr(0, mark);
  const auto first = path.find_first_not_of("/\\");
  path = first == std::string_view::npos ? std::string_view() : path.substr(first);
  request.uri = "/";
  request.uri += path;
  if (mark == std::string_view::npos) return {};
  const auto query = uri.substr(mark + 1);
  const auto rest = take_query(query, request);
  // A '?' without anything behind it stays where it was sent so.
  if (!rest.empty() || !request.token_in_query) request.uri += "?" + rest;
  return {};
}

// Names are case-sensitive to browsers, but not to every program behind us.
bool is_own_cookie(std::string_view name) {
  return starts_with_but_case(name, kCookiePrefix) ||
         std::ranges::any_of(kArvadosCookies,
                             [&](std::string_view one) { return same_but_case(name, one); });
}

// What a cookie's name may be, so that it can stand in an answer's Set-Cookie.
bool is_cookie_name(std::string_view name) {
  constexpr std::string_view kSeparators = "()<>@,;:\\\"/[]?={} ";
  return !name.empty() && name.size() <= 256 && std::ranges::all_of(name, [&](char c) {
    return c > ' ' && c < '\x7f' && kSeparators.find(c) == std::string_view::npos;
  });
}

class Cookies {
 public:
  Cookies(Request& request, std::string_view container) : to_(request), container_(container) {}

  void take(std::string_view header) {
    for (bool more = true; more;) {
      const auto end = header.find(';');
      more = end != std::string_view::npos;
      take_one(trimmed(header.substr(0, end), " \t"));
      if (more) header.remove_prefix(end + 1);
    }
    if (ambiguous_) to_.cookie_token.clear();
  }

 private:
  void take_one(std::string_view cookie) {
    // No browser sends control characters, and no answer of ours could pass them on.
    if (cookie.empty() || std::ranges::any_of(cookie, is_control)) return;
    const auto equals = cookie.find('=');
    const auto name = trimmed(cookie.substr(0, equals), " ");
    const auto value =
        equals == std::string_view::npos ? std::string_view() : cookie.substr(equals + 1);
    if (is_own_cookie(name)) {
      if (name == kTokenCookie) take_token(value);
      if (name == container_) to_.container = value;
      return;
    }
    if (!to_.cookie.empty()) to_.cookie += "; ";
    to_.cookie += cookie;
    auto& others = to_.other_cookies;
    if (others.size() < kMaxExpiredCookies && is_cookie_name(name) &&
        std::ranges::find(others, name) == others.end()) {
      others.emplace_back(name);
    }
  }

  void take_token(std::string_view value) {
    const auto token = parse_base64url(trimmed(value, " "));
    if (!token || !is_token(*token)) return;
    // One of two was planted, and nobody can say which.
    if (!to_.cookie_token.empty() && to_.cookie_token != *token) ambiguous_ = true;
    to_.cookie_token = *token;
  }

  Request& to_;
  std::string_view container_;
  bool ambiguous_ = false;
};

void take_authorization(std::string_view header, Request& request) {
  if (header.empty() || std::ranges::any_of(header, is_control)) return;
  header = trimmed(header, " ");
  const auto blank = header.find(' ');
  const auto scheme = header.substr(0, blank);
  const auto token = blank == std::string_view::npos ? header : trimmed(header.substr(blank), " ");
  const auto shape = token_shape(token);
  // Arvados' clients say OAuth2.
  const bool bearer = same_but_case(scheme, "Bearer") || same_but_case(scheme, "OAuth2");
  // Ours in a form that the application has for its own: taken for none, and not passed on.
  if (!bearer && shape == TokenShape::kOurs) return;
  request.authorization = header;
  if (!bearer) return;
  request.bearer_shape = shape;
  if (is_token(token)) request.bearer = token;
}

// As it would be on a socket for IPv4 alone: IPv6 sockets have ::ffff:a.b.c.d, which no IPv4
// prefix contains.
std::optional<IpAddress> client_address(std::string_view text) {
  constexpr std::string_view kMapped = "::ffff:";
  if (starts_with_but_case(text, kMapped)) {
    if (const auto v4 = IpAddress::parse(text.substr(kMapped.size())); v4 && v4->is_v4()) {
      return *v4;
    }
  }
  const auto address = IpAddress::parse(text);
  return address ? std::optional(*address) : std::nullopt;
}

}  // namespace

Result<Request> parse_request(const RequestHead& head, std::string_view container_cookie) {
  const auto bytes = head.method.size() + head.uri.size() + head.cookie.size() +
                     head.authorization.size() + head.host.size() + head.origin.size() +
                     head.accept.size();
  if (bytes > kMaxHeadBytes) return odd("the request's head is longer than 64 KiB");
  const bool method_ok = !head.method.empty() && head.method.size() <= 32 &&
                         std::ranges::all_of(head.method, [](char c) {
                           return (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
                         });
  if (!method_ok) return odd("the method is none");
  Request request;
  request.method = head.method;
  request.safe = head.method == "GET" || head.method == "HEAD";
  request.upgrade = !head.upgrade.empty();
  request.foreign =
      !head.origin.empty() && !same_but_case(head.origin, fmt::format("https://{}", head.host));
  request.html = wants_html(head.accept);
  request.client = client_address(head.client);
  CHECK_OK(take_uri(head.uri, request));
  Cookies(request, container_cookie).take(head.cookie);
  take_authorization(head.authorization, request);
  return request;
}

bool wants_html(std::string_view accept) {
  return std::ranges::search(accept, std::string_view("text/html"), {}, lower).begin() !=
         accept.end();
}

std::string own_cookie(std::string_view name, std::string_view value) {
  return fmt::format("{}={}; Path=/; Secure; HttpOnly; SameSite=Lax", name, value);
}

std::string expired_cookie(std::string_view name) {
  return fmt::format("{}=; Path=/; Max-Age=0; Secure", name);
}

}  // namespace meshd::proxy
