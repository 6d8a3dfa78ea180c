// A small zone with one consumer's view, for the resolver's tests and fuzz targets.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "dns/name.h"
#include "dns/snapshot.h"

namespace meshd::dns {

inline std::string wire_of(std::string_view text) { return to_wire(text).value(); }
inline IpAddress ip_of(std::string_view text) { return IpAddress::parse(text).value(); }
inline Prefix prefix_of(std::string_view text) { return Prefix::parse(text).value(); }

inline std::shared_ptr<ZoneSettings> sample_settings() {
  auto settings = std::make_shared<ZoneSettings>();
  settings->zone = wire_of("mesh.internal");
  settings->own_ranges = {prefix_of("10.213.0.0/16"), prefix_of("10.214.0.0/16"),
                          prefix_of("fd00:1::/64")};
  settings->engine_prefixes = {prefix_of("172.17.0.0/16")};
  settings->filtered = {prefix_of("127.0.0.0/8"), prefix_of("10.213.0.0/16"),
                        prefix_of("fd00:1::/64")};
  settings->resolver4 = ip_of("169.254.1.1");
  settings->resolver6 = ip_of("fd00:1::53");
  return settings;
}

// Sees db (both families, with a service record) and v4only; web is declared but withheld.
inline std::shared_ptr<View> sample_view() {
  const auto zone = wire_of("mesh.internal");
  auto view = std::make_shared<View>();
  view->client = "c1";
  const auto db = wire_of("db.wf1.wf.mesh.internal");
  const NameData both{ip_of("10.214.0.1"), ip_of("fd00:1::1"), {}};
  view->add(db, both, zone);
  view->add(wire_of("db"), both, zone);
  view->add(wire_of("v4only.svc.mesh.internal"), {ip_of("10.214.0.2"), std::nullopt, {}}, zone);
  view->add(wire_of("_sql._tcp.db.wf1.wf.mesh.internal"),
            {std::nullopt, std::nullopt, {{5432, db, both.v4, both.v6}}}, zone);
  view->pointers[ip_of("10.214.0.1")] = db;
  view->withheld[wire_of("web.svc.mesh.internal")] = "peer web is not available to you";
  view->withheld[wire_of("web")] = "peer web is not available to you";
  return view;
}

}  // namespace meshd::dns
