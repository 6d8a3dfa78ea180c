// mesh-controller's configuration, checked and with every default filled in.
//
// Errors: kInvalid as one line "FILE:LINE: FIELD: REASON"; kSystem when the file cannot be read.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/log.h"
#include "base/result.h"
#include "controller/controller_types.h"
#include "metrics/http.h"
#include "policy/outside_ports.h"
#include "proxy/nginx_config.h"

namespace meshd::controller {

inline constexpr const char* kDefaultConfigPath = "/etc/mesh-controller/mesh-controller.yaml";
inline constexpr std::uint32_t kMaxSeconds = 30 * 24 * 3600;  // longer is for ever

// Containers of an Arvados site are declared as its API has them.
struct ArvadosConfig {
  std::string api_host, token_file;
  std::string ca_file;  // empty: the system's
  Duration poll = std::chrono::seconds(5);
};

// Access that is taken away works on until it is asked for again.
inline constexpr std::uint32_t kMaxKeepSeconds = 3600;

struct WebConfig {
  proxy::NginxSite nginx;  // names, certificate, and where nginx asks
  std::string group, relay_dir, tokens;
  Duration keep_good = std::chrono::seconds(60), keep_bad = std::chrono::seconds(5);
  Duration open_idle = kOpenIdle;
};

struct Config {
  std::string listen = "[::]:7443";
  std::string join_listen = "[::]:7444";  // empty: nobody joins
  std::string dir = "/var/lib/mesh-controller";
  std::string name;      // the host's unless given
  std::string postgres;  // empty: <dir>/controller.db
  bool node_declarations = false;
  Duration stale_after = std::chrono::seconds(10);
  Duration dismiss_after = std::chrono::hours(1);
  log::Level log_level = log::Level::kInfo;
  log::Format log_format = log::Format::kText;
  std::optional<metrics::ListenAddress> metrics;  // absent: nowhere
  std::vector<Prefix> proxies;                    // where the proxies' requests come from
  std::string proxy_node;                         // that this one's proxy runs on; may be empty
  policy::PortSpan gateway_ports;                 // none: there are no gateways
  std::set<std::string> gateway_nodes;            // none: any node may be one
  std::optional<ArvadosConfig> arvados;           // absent: there is none
  std::optional<WebConfig> web;                   // absent: nothing is opened from outside
};

// Where the token file is unless the configuration says otherwise.
[[nodiscard]] std::string default_tokens(const std::string& dir);
// Fills in what is left out, from the site's name.
void fill_certificates(proxy::NginxSite& site);

[[nodiscard]] Result<Config> parse_config(std::string_view file, std::string_view text);
// A missing file is an error where it was asked for by name.
[[nodiscard]] Result<Config> load_config(const std::string& path, bool required);

}  // namespace meshd::controller
