#include "proxy/nginx_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/ip.h"
#include "proxy/pages.h"

namespace meshd::proxy {
namespace {

bool is_alnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// A path that means to nginx what it means to the kernel, and nothing else.
std::string path_problem(std::string_view path) {
  constexpr std::string_view kMarks = "._/-+@";
  if (!path.starts_with('/')) return "is not an absolute path";
  if (path.size() > 255) return "is longer than 255 characters";
  const bool plain = std::ranges::all_of(
      path, [&](char c) { return is_alnum(c) || kMarks.find(c) != std::string_view::npos; });
  return plain ? "" : "holds other characters than A-Z a-z 0-9 . _ / - + @";
}

// As `server` in an upstream has it.
Result<std::string> endpoint_text(std::string_view endpoint) {
  if (endpoint.starts_with('/')) {
    const auto why = path_problem(endpoint);
    if (!why.empty()) return fail(ErrorCode::kInvalid, "endpoint: " + why);
    return fmt::format("unix:{}", endpoint);
  }
  const auto bad = [] {
    return fail(ErrorCode::kInvalid,
                "endpoint: is a socket's absolute path, 127.0.0.1:PORT or [::1]:PORT");
  };
  const auto colon = endpoint.rfind(':');
  if (colon == std::string_view::npos) return bad();
  const auto host = endpoint.substr(0, colon);
  // On any other address it would hear tokens in clear.
  if ((host != "127.0.0.1" && host != "[::1]") || !parse_port(endpoint.substr(colon + 1))) {
    return bad();
  }
  return std::string(endpoint);
}

// A header's name with every choice of '-' and '_': to programs behind CGI's rules all are one.
std::vector<std::string> spellings(std::string_view name) {
  std::vector<std::string> all = {""};
  for (const char c : name) {
    const auto before = all.size();
    if (c == '-') {
      for (std::size_t i = 0; i < before; ++i) all.push_back(all[i] + '_');
    }
    for (std::size_t i = 0; i < before; ++i) all[i] += c;
  }
  all.erase(all.begin());  // the name as it is: set, not stripped
  return all;
}

std::string stripped_headers() {
  std::string text;
  for (const auto name : {kArvadosUserHeader, kUserHeader}) {
    for (const auto& spelling : spellings(name)) {
      text += fmt::format("    proxy_set_header {} \"\";\n", spelling);
    }
  }
  return text;
}

// What stands in << >> is filled in.
constexpr std::string_view kShared = R"nginx(# Made by `mesh-controller proxy-config` for <<site>>.
# It belongs inside nginx's http block: /etc/nginx/conf.d/ or sites-enabled/. nginx asks the
# controller for each request where it may go; services come and go without a reload.
#
# The upstream is a variable, and so each request opens a connection of its own to its container.
# Closed ones keep their local port for a minute: above some 400 requests a second to one service
# set the sysctl net.ipv4.tcp_tw_reuse = 1.

upstream mesh_endpoint {
  server <<endpoint>>;
  keepalive 64;
}

# The one protocol that is passed on: by h2c a client would speak past the checks and headers here.
# HTTP/2 has no such header.
map "$server_protocol $http_upgrade" $mesh_upgrade {
  default "";
  "~*^HTTP/1.1 websocket$" websocket;
}
map $mesh_upgrade $mesh_connection {
  default "";
  websocket upgrade;
}

# A query may hold a token: neither $request nor $request_uri stands in a log.
map $request_uri $mesh_path {
  default "";
  "~^(?<mesh_raw_path>[^?]*)" $mesh_raw_path;
}
log_format mesh '$remote_addr $host "$request_method $mesh_path" $status $body_bytes_sent '
                '$request_time user=$mesh_user upstream=$mesh_upstream:$upstream_status';

# nginx reads a body whole, to disk, before it asks anybody for a page. Whose body is long, or of
# unknown length, is refused in a line instead.
map $http_content_length $mesh_long_length {
  default 1;
  "" 0;
  "~^[0-9]{1,5}$" 0;
}
map $http_transfer_encoding $mesh_long_body {
  default 1;
  "" $mesh_long_length;
}

# As the controller tells people's browsers from programs.
map $http_accept $mesh_reads_pages {
  default 0;
  "~*text/html" 1;
}
)nginx";

constexpr std::string_view kClosed = R"nginx(
  # Without the controller nobody is let in.
  location @mesh_closed {
    default_type application/json;
    add_header Cache-Control no-store always;
    add_header Retry-After 5 always;
    error_page 418 = @mesh_closed_page;
    if ($mesh_reads_pages) {
      return 418;
    }
    return 503 '{"errors":["<<text>>"]}\n';
  }

  location @mesh_closed_page {
    default_type text/html;
    add_header Cache-Control no-store always;
    add_header Retry-After 5 always;
    return 503 '<<page>>';
  }
)nginx";

constexpr std::string_view kServer = R"nginx(
server {
<<listen>>  server_name <<names>>;
  ssl_certificate <<certificate>>;
  ssl_certificate_key <<key>>;
  ssl_protocols TLSv1.2 TLSv1.3;
  server_tokens off;
  absolute_redirect off;
  recursive_error_pages on;

  # The error log writes the whole request line, token and all, and cannot be told not to: nothing
  # of this server goes there. A container that does not answer shows in the access log's upstream.
  error_log /dev/null crit;
  access_log <<access_log>> mesh;

  # Headers with underscores or stranger characters in their names are dropped.
  underscores_in_headers off;
  ignore_invalid_headers on;
  large_client_header_buffers 4 16k;

  # Uploads have any size, and nothing is collected: neither what comes nor what goes.
  client_max_body_size 0;
  gzip off;

  # Verdicts are not cached here: the key of such a cache, with the token in it, is a file.
  location = /__mesh_auth {
    internal;
    proxy_pass http://mesh_endpoint/auth;
    <<asking>>
  }

  # Refused, or sent elsewhere: the same question once more, answered with a page or a redirect.
  location @mesh_answer {
    if ($mesh_long_body) {
      return 413;
    }
    error_page 413 = @mesh_in_a_line;
    error_page 500 502 504 = @mesh_closed;
    client_max_body_size 100k;
    client_body_timeout 10s;
    rewrite ^ /answer? break;
    proxy_pass http://mesh_endpoint;
    <<asking>>
    proxy_set_header Accept $http_accept;
  }

  # Let in, but the container does not answer.
  location @mesh_down {
    error_page 500 502 504 = @mesh_closed;
    rewrite ^ /answer? break;
    proxy_pass http://mesh_endpoint;
    <<asking>>
    proxy_set_header Accept $http_accept;
    proxy_set_header X-Mesh-Status 502;
  }

  location @mesh_in_a_line {
    default_type application/json;
    add_header Cache-Control no-store always;
    add_header Referrer-Policy no-referrer always;
    add_header Set-Cookie $mesh_set_cookie always;
    if ($mesh_status = 303) {
      return 303 $mesh_location;
    }
<<lines>>    return 413 '{"errors":["too long to be read for a refusal"]}\n';
  }
<<closed>>
  location / {
    satisfy all;
    auth_request /__mesh_auth;
    auth_request_set $mesh_upstream $upstream_http_x_mesh_upstream;
    auth_request_set $mesh_user $upstream_http_x_mesh_user;
    auth_request_set $mesh_user_uuid $upstream_http_x_arvados_user_uuid;
    auth_request_set $mesh_cookie $upstream_http_x_mesh_cookie;
    auth_request_set $mesh_authorization $upstream_http_x_mesh_authorization;
    auth_request_set $mesh_set_cookie $upstream_http_x_mesh_set_cookie;
    auth_request_set $mesh_status $upstream_http_x_mesh_status;
    auth_request_set $mesh_location $upstream_http_x_mesh_location;
    auth_request_set $mesh_text $upstream_http_x_mesh_text;
    error_page 401 403 = @mesh_answer;
    error_page 502 504 = @mesh_down;
    error_page 500 = @mesh_closed;

    proxy_pass http://$mesh_upstream;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $mesh_upgrade;
    proxy_set_header Connection $mesh_connection;
    proxy_set_header HTTP2-Settings "";

    # Without tokens of ours. The endpoint takes out every copy; a map here would find the first.
    proxy_set_header Cookie $mesh_cookie;
    proxy_set_header Authorization $mesh_authorization;

    # Who it is, from us alone: what a client sends under these names is replaced, and what it
    # sends under names that CGI takes for the same is stripped.
    proxy_set_header X-Arvados-User-UUID $mesh_user_uuid;
    proxy_set_header X-Mesh-User $mesh_user;
<<stripped>>    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Proto https;
    proxy_set_header Forwarded "";
    proxy_set_header Proxy "";

    # What containers answer is for the browser alone. By X-Accel-Redirect one would send nginx to
    # the locations above; by a cookie's Domain, plant cookies at its neighbours.
    proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate
                         X-Accel-Buffering X-Accel-Charset;
    proxy_cookie_domain ~.+ $host;
    proxy_redirect http://$http_host/ /;
    proxy_intercept_errors off;
    add_header Set-Cookie $mesh_set_cookie always;

    proxy_buffering off;
    proxy_request_buffering off;
    proxy_buffer_size 32k;
    proxy_buffers 4 32k;
    proxy_next_upstream off;
    proxy_connect_timeout 5s;
    proxy_read_timeout 1d;
    proxy_send_timeout 1d;
    proxy_socket_keepalive on;
    send_timeout 1h;
    client_body_timeout 1h;
  }
}
)nginx";

// Of the page: nothing is forwarded, and what it answers is its own.
constexpr std::string_view kPageServer = R"nginx(
server {
<<listen>>  server_name <<page>>;
  ssl_certificate <<certificate>>;
  ssl_certificate_key <<key>>;
  ssl_protocols TLSv1.2 TLSv1.3;
  server_tokens off;
  absolute_redirect off;
  recursive_error_pages on;
  error_log /dev/null crit;
  access_log <<access_log>> mesh;
  underscores_in_headers off;
  large_client_header_buffers 4 16k;
  client_max_body_size 1k;

  # Nothing of a stranger's choosing stands in these answers: they can be compressed.
  gzip on;
  gzip_proxied any;
  gzip_types application/json text/css text/javascript;

  location / {
    error_page 500 502 504 = @mesh_closed;
    rewrite ^ /page? break;
    proxy_pass http://mesh_endpoint;
    <<asking>>
    proxy_set_header Accept $http_accept;
    proxy_set_header If-None-Match $http_if_none_match;
    proxy_set_header X-Mesh-Fetch-Site $http_sec_fetch_site;
    proxy_max_temp_file_size 0;
  }
<<closed>>}
)nginx";

// What each location has that asks the endpoint.
constexpr std::string_view kAsking = R"nginx(proxy_http_version 1.1;
    proxy_method GET;
    proxy_pass_request_body off;
    proxy_pass_request_headers off;
    proxy_set_header Connection "";
    proxy_set_header Content-Length "";
    proxy_set_header Host mesh-endpoint;
    proxy_set_header X-Mesh-Host $http_host;
    proxy_set_header X-Mesh-Line-Host $host;
    # Whole, as it came: $arg_ does not decode names, and so would miss a token's parameter.
    proxy_set_header X-Mesh-Uri $request_uri;
    proxy_set_header X-Mesh-Method $request_method;
    proxy_set_header X-Mesh-Client $remote_addr;
    proxy_set_header X-Mesh-Cookie $http_cookie;
    proxy_set_header X-Mesh-Authorization $http_authorization;
    proxy_set_header X-Mesh-Upgrade $mesh_upgrade;
    proxy_set_header X-Mesh-Origin $http_origin;
    proxy_connect_timeout 2s;
    proxy_read_timeout 30s;
    proxy_next_upstream off;
    proxy_intercept_errors off;
    proxy_cache off;
    # A redirect's Location goes out byte by byte as the endpoint wrote it.
    proxy_redirect off;
    # What comes back holds all cookies once more.
    proxy_buffer_size 80k;
    proxy_buffers 4 80k;)nginx";

// One pass: what is filled in is not looked at again.
std::string filled(std::string_view text,
                   const std::vector<std::pair<std::string_view, std::string>>& values) {
  std::string result;
  for (;;) {
    const auto start = text.find("<<");
    result += text.substr(0, start);
    if (start == std::string_view::npos) return result;
    const auto end = text.find(">>", start);
    const auto name = text.substr(start + 2, end - start - 2);
    const auto value =
        std::ranges::find(values, name, &std::pair<std::string_view, std::string>::first);
    if (value != values.end()) result += value->second;
    text.remove_prefix(end + 2);
  }
}

std::string lines_of_refusals() {
  std::string text;
  for (const int status : {400, 401, 403, 404, 410, 421, 503}) {
    text += fmt::format(
        "    if ($mesh_status = {}) {{\n      return {} '{{\"errors\":"
        "[\"$mesh_text\"]}}\\n';\n    }}\n",
        status, status);
  }
  return text;
}

std::string listen_lines(std::string_view ports) {
  return fmt::format("  listen {0} ssl http2;\n  listen [::]:{0} ssl http2;\n", ports);
}

Status check(const NginxSite& site) {
  CHECK_OK(check_site(site.names));
  for (const auto& [field, path] : {std::pair("certificate", &site.certificate),
                                    std::pair("certificate_key", &site.certificate_key),
                                    std::pair("access_log", &site.access_log)}) {
    if (const auto why = path_problem(*path); !why.empty()) {
      return fail(ErrorCode::kInvalid, fmt::format("{}: {}", field, why));
    }
  }
  return {};
}

}  // namespace

Result<std::string> render_nginx_config(const NginxSite& site) {
  CHECK_OK(check(site));
  const auto endpoint = TRY(endpoint_text(site.endpoint));
  const auto& names = site.names;
  const auto closed =
      filled(kClosed, {{"text", std::string(closed_text())}, {"page", closed_page()}});
  const auto server = [&](std::string_view text, std::string_view ports, std::string name) {
    return filled(text, {{"listen", listen_lines(ports)},
                         {"page", page_host(names)},
                         {"names", std::move(name)},
                         {"certificate", site.certificate},
                         {"key", site.certificate_key},
                         {"access_log", site.access_log},
                         {"asking", std::string(kAsking)},
                         {"lines", lines_of_refusals()},
                         {"stripped", stripped_headers()},
                         {"closed", closed}});
  };
  auto text = filled(kShared, {{"site", names.zone.empty() ? names.host : "*." + names.zone},
                               {"endpoint", endpoint}});
  if (!names.zone.empty()) text += server(kServer, fmt::to_string(names.port), "*." + names.zone);
  if (!names.host.empty()) {
    text += server(kServer, fmt::format("{}-{}", names.first_port, names.last_port), names.host);
  }
  return text + server(kPageServer, fmt::to_string(names.port), page_host(names));
}

}  // namespace meshd::proxy
