// The tables of the state file, and the steps that lead to them from every older version.
//
// Invariants: a step that was released is never changed; a new version appends one. The
//             file's user_version is the number of steps it has seen. Every row ends in
//             `sum`, a check sum over its other columns, and node.total is the sum of all
//             of them: SQLite does not notice a flipped bit in a value, and a port that
//             became another one would open what nobody declared.
// Units:      times in nanoseconds since boot, addresses as 4 or 16 bytes.
// Source:     sqlite.org/stricttables.html, /withoutrowid.html, /foreignkeys.html.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace meshd::schema {

// "mesh" in the file's header, so that another program's database is not taken for ours.
inline constexpr std::int32_t kApplicationId = 0x6d657368;

enum class Table : std::uint8_t {
  kDeclarations,
  kAttachments,
  kDraining,
  kReady,
  kServices,
  kNodePorts,
  kQuarantine,
  kSysctls,
  kIdleNames,
  kLeftNetns,
  kCluster,
  kTerms,
  kSlice,
  kConfirmed,
};

// Rows of `terms`.
inline constexpr std::string_view kProxies = "proxies", kGatewayPorts = "gateway_ports";

struct TableInfo {
  Table table;
  std::string_view name;
  std::string_view columns;  // without sum; the keys come first
  std::size_t keys;
};

// In the order in which rows can be read: what others refer to comes first.
inline constexpr std::array kTables = {
    TableInfo{Table::kDeclarations, "declarations", "id,workload,declared_at", 1},
    TableInfo{Table::kAttachments, "attachments",
              "id,netns_dev,netns_ino,netns_path,ifname,host_ifname,mac,v4,v6,default_route,"
              "prepared,attached_at",
              1},
    TableInfo{Table::kDraining, "draining", "id", 1},
    TableInfo{Table::kReady, "ready", "id,ready,ports", 1},
    TableInfo{Table::kServices, "services",
              "scope,workflow,name,owner,vip4,vip6,declared_at,endpoint_lost_at", 3},
    TableInfo{Table::kNodePorts, "node_ports", "id,protocol,port,node_port", 3},
    TableInfo{Table::kQuarantine, "quarantine", "address,until", 1},
    TableInfo{Table::kSysctls, "sysctls", "key,value", 1},
    TableInfo{Table::kIdleNames, "idle_names", "name,since", 1},
    TableInfo{Table::kLeftNetns, "left_netns", "id,netns_dev,netns_ino,netns_path", 1},
    TableInfo{Table::kCluster, "cluster", "name,zone,pool4,pool6,vip4,vip6,block4,block6,revision",
              1},
    TableInfo{Table::kTerms, "terms", "name,value", 1},
    TableInfo{Table::kSlice, "slice", "kind,key,value", 2},
    TableInfo{Table::kConfirmed, "confirmed", "consumer,provider,from4,from6,to4,to6,ranges", 2},
};

// Foreign keys are checked at commit: the order of changes within one does not matter.
inline constexpr std::array<std::string_view, 4> kSteps = {
    R"sql(
CREATE TABLE node (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  generation INTEGER NOT NULL,
  ula BLOB NOT NULL CHECK (length(ula) = 16),
  boot_id TEXT NOT NULL,
  total INTEGER NOT NULL,
  sum INTEGER NOT NULL
) STRICT;
CREATE TABLE declarations (
  id TEXT PRIMARY KEY,
  workload BLOB NOT NULL,        -- mesh.v1.Workload, defaults filled in
  declared_at INTEGER NOT NULL,  -- seconds since 1970, for people
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE attachments (
  id TEXT PRIMARY KEY REFERENCES declarations DEFERRABLE INITIALLY DEFERRED,
  netns_dev INTEGER NOT NULL,
  netns_ino INTEGER NOT NULL,
  netns_path TEXT NOT NULL,
  ifname TEXT NOT NULL,
  host_ifname TEXT NOT NULL,
  mac BLOB NOT NULL CHECK (length(mac) = 6),
  v4 BLOB CHECK (length(v4) = 4),
  v6 BLOB CHECK (length(v6) = 16),
  default_route INTEGER NOT NULL,
  prepared INTEGER NOT NULL,
  attached_at INTEGER NOT NULL,
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE draining (
  id TEXT PRIMARY KEY REFERENCES attachments DEFERRABLE INITIALLY DEFERRED,
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE ready (
  id TEXT PRIMARY KEY REFERENCES attachments DEFERRABLE INITIALLY DEFERRED,
  ready INTEGER NOT NULL,
  ports TEXT NOT NULL,  -- "5432:46 8080:4"
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE services (
  scope INTEGER NOT NULL,
  workflow TEXT NOT NULL,
  name TEXT NOT NULL,
  owner TEXT NOT NULL,
  vip4 BLOB CHECK (length(vip4) = 4),
  vip6 BLOB CHECK (length(vip6) = 16),
  declared_at INTEGER NOT NULL,
  endpoint_lost_at INTEGER NOT NULL,
  sum INTEGER NOT NULL,
  PRIMARY KEY (scope, workflow, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE node_ports (
  id TEXT NOT NULL REFERENCES declarations DEFERRABLE INITIALLY DEFERRED,
  protocol INTEGER NOT NULL,
  port INTEGER NOT NULL,
  node_port INTEGER NOT NULL,
  sum INTEGER NOT NULL,
  PRIMARY KEY (id, protocol, port)
) STRICT, WITHOUT ROWID;
CREATE TABLE quarantine (
  address BLOB PRIMARY KEY CHECK (length(address) IN (4, 16)),
  until INTEGER NOT NULL,
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sysctls (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL,  -- as it was before meshd
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
)sql",
    R"sql(
CREATE TABLE idle_names (
  name TEXT PRIMARY KEY,   -- a CLUSTER name without a declaration
  since INTEGER NOT NULL,  -- seconds since 1970
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE left_netns (
  id TEXT PRIMARY KEY,  -- it may be deleted by now
  netns_dev INTEGER NOT NULL,
  netns_ino INTEGER NOT NULL,
  netns_path TEXT NOT NULL,
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
)sql",
    R"sql(
CREATE TABLE cluster (
  name TEXT PRIMARY KEY,
  zone TEXT NOT NULL,
  pool4 TEXT NOT NULL,  -- prefixes; empty: the family is off
  pool6 TEXT NOT NULL,
  vip4 TEXT NOT NULL,
  vip6 TEXT NOT NULL,
  block4 TEXT NOT NULL,
  block6 TEXT NOT NULL,
  revision INTEGER NOT NULL,
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE slice (
  kind INTEGER NOT NULL,
  key TEXT NOT NULL,
  value BLOB NOT NULL,  -- as the controller sent it
  sum INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE confirmed (
  consumer TEXT NOT NULL,
  provider TEXT NOT NULL,
  from4 BLOB CHECK (length(from4) = 4),
  from6 BLOB CHECK (length(from6) = 16),
  to4 BLOB CHECK (length(to4) = 4),
  to6 BLOB CHECK (length(to6) = 16),
  ranges TEXT NOT NULL,  -- "6:5432-5432 17:8000-8100"
  sum INTEGER NOT NULL,
  PRIMARY KEY (consumer, provider)
) STRICT, WITHOUT ROWID;
)sql",
    R"sql(
CREATE TABLE terms (
  name TEXT PRIMARY KEY,  -- of the cluster's terms that came later than the table: "proxies"
  value TEXT NOT NULL,
  sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
)sql",
};

}  // namespace meshd::schema
