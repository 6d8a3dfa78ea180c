// The node of the golden tests: a configuration as in meshd.yaml (empty: no file), and what the
// daemon would take from the machine it runs on, fixed.
#pragma once

#include <string_view>

#include "base/result.h"
#include "dns/name.h"
#include "dns/snapshot.h"
#include "meshd/config.h"
#include "policy/types.h"

namespace meshd {

[[nodiscard]] inline Result<policy::Settings> golden_settings(std::string_view file,
                                                              std::string_view text) {
  const auto config = TRY(text.empty() ? default_config() : parse_config(file, text));
  auto settings = TRY(settings_of(config, Prefix::parse("fd00::/48").value()));
  settings.node_name = "node-1";
  settings.node_addresses = {IpAddress::parse("192.0.2.1").value(),
                             IpAddress::parse("2001:db8::1").value()};
  settings.publish_addresses =
      config.publish_addresses.empty() ? settings.node_addresses : config.publish_addresses;
  return settings;
}

[[nodiscard]] inline dns::ZoneSettings golden_zone(const policy::Settings& settings) {
  dns::ZoneSettings zone;
  zone.zone = dns::to_wire(settings.zone).value();
  for (const auto& range :
       {settings.pool4, settings.pool6, settings.vip_pool4, settings.vip_pool6}) {
    if (range) zone.own_ranges.push_back(*range);
  }
  zone.resolver4 = settings.resolver4[0];
  if (settings.pool6) zone.resolver6 = settings.resolver6[0];
  return zone;
}

}  // namespace meshd
