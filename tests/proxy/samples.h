// Openings as tests of the proxy use them.
#pragma once

#include <string>
#include <utility>

#include "proxy/directory.h"

namespace meshd::proxy {

inline OpenPort sample_port(std::uint16_t port, policy::Access access) {
  OpenPort open;
  open.port = port;
  open.http = true;
  open.addresses = {IpAddress::parse("192.0.2.7").value()};
  open.upstream_port = 20001;
  open.ready = true;
  open.access = access;
  return open;
}

inline Opening sample_opening(std::string id, std::string service = {}) {
  Opening opening;
  opening.id = std::move(id);
  opening.owner = "alice";
  opening.service = std::move(service);
  opening.state = Opening::State::kReady;
  opening.ports = {sample_port(8888, policy::Access::kCanRead)};
  return opening;
}

}  // namespace meshd::proxy
