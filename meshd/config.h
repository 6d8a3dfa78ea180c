// The daemon's configuration, checked and with every default filled in. A file is not
// needed: an empty configuration is one that works.
//
// Threads: any; reads the file, the host's name and the user database.
// Errors:  kInvalid as one line "FILE:LINE: FIELD: REASON"; kSystem when the file cannot be
//          read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "base/log.h"
#include "base/result.h"
#include "meshd/pools.h"
#include "meshd/underlay_plan.h"
#include "meshd/upstreams.h"
#include "metrics/http.h"
#include "policy/types.h"

namespace meshd {

inline constexpr const char* kDefaultConfigPath = "/etc/meshd/meshd.yaml";
// Entries of any list: more are a program's doing, and each costs at every start.
inline constexpr std::size_t kMaxConfigEntries = 256;
// "<run_dir>/control.sock" must fit into a Unix socket's name of 107 bytes (unix(7)).
inline constexpr std::size_t kMaxRunDirBytes = 107 - 13;
inline constexpr std::uint32_t kMaxCacheMib = 1024;         // beyond it a cache of its own is due
inline constexpr std::uint32_t kMaxDnsWorkers = 64;         // one a core is the most that helps
inline constexpr std::uint32_t kMaxClientRate = 1'000'000;  // what one socket can carry

inline constexpr std::uint32_t kMaxIdleDays = 36'500;  // a century: as good as never

// How the node gets to controllers: with a ticket, or with an identity from elsewhere.
struct ControllerSettings {
  std::vector<std::string> addresses;  // empty: the ticket's
  std::string join_file;               // empty: the two below
  std::string authorities_file, identity_file;
};

// What becomes of a container that an engine starts and that nobody declared.
enum class Undeclared { kIgnore, kClosed, kRefuse };

struct Config {
  std::string node_name;                  // the host's unless given
  std::vector<std::uint32_t> allow_uids;  // sorted, without 0, which always may
  std::string zone = "mesh.internal";     // lower case, no final dot
  PoolConfig pools;

  std::vector<Upstream> upstreams;  // empty: resolv.conf's
  std::uint32_t dns_cache_mib = 16;
  std::uint32_t dns_workers = 1;
  std::uint32_t dns_client_rate = 2000;
  std::vector<Prefix> engine_prefixes;  // empty: the engines' bridges

  std::vector<IpAddress> publish_addresses;  // empty: the node's global ones, followed
  std::uint16_t publish_first = 20000, publish_last = 29999;
  std::vector<Prefix> publish_allow_from;
  std::vector<Prefix> proxies;
  bool gateway = false;

  std::vector<std::string> reserved_names;  // sorted
  std::uint32_t idle_release_days = 0;      // 0: never
  Undeclared undeclared = Undeclared::kIgnore;
  bool docker_user = false;
  UnderlayConfig underlay;
  std::string state_dir = "/var/lib/meshd";
  std::string run_dir = "/run/meshd";
  log::Level log_level = log::Level::kInfo;
  std::optional<log::Format> log_format;          // absent: journal_or_text()
  std::optional<ControllerSettings> controller;   // absent: a single node
  std::optional<metrics::ListenAddress> metrics;  // absent: nowhere
};

// `file` is for messages only.
[[nodiscard]] Result<Config> parse_config(std::string_view file, std::string_view text);
// The defaults, as if an empty file had been read.
[[nodiscard]] Result<Config> default_config();
// A missing file is an error where it was asked for by name.
[[nodiscard]] Result<Config> load_config(const std::string& path, bool required);

// What is compiled with, as far as the configuration and the node's own /48 say it: what the
// node's addresses are, its caller knows.
[[nodiscard]] Result<policy::Settings> settings_of(const Config& config, const Prefix& ula);

// Journal when stderr is connected to it, else text. Source: systemd.exec(5) JOURNAL_STREAM.
[[nodiscard]] log::Format journal_or_text();

}  // namespace meshd
