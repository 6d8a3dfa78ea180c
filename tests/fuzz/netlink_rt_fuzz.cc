// The decoders of rtnetlink, conntrack, sock_diag and nflog messages on any bytes. The
// first byte chooses the decoder.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "netlink/address_route.h"
#include "netlink/conntrack.h"
#include "netlink/link.h"
#include "netlink/link_monitor.h"
#include "netlink/nflog.h"
#include "netlink/sock_diag.h"
#include "netlink/vxlan.h"

namespace meshd::netlink {
namespace {

void decode_by(std::uint8_t choice, ByteView content) {
  switch (choice % 10) {
    case 0:
      (void)decode_link(content);
      break;
    case 1:
      (void)decode_address(content);
      break;
    case 2:
      if (const auto route = decode_route(content)) (void)route->to_string();
      break;
    case 3:
      if (const auto rule = decode_rule(content)) (void)rule->to_string();
      break;
    case 4:
      if (const auto neighbour = decode_neighbour(content)) (void)neighbour->to_string();
      break;
    case 5:
      (void)decode_conntrack(content);
      break;
    case 6:
      if (const auto listener = decode_listener(content)) (void)serves(*listener, {});
      break;
    case 7:
      (void)decode_log_packet(content);
      break;
    case 9:
      if (const auto entry = decode_fdb(content)) (void)entry->to_string();
      break;
    default: {
      std::vector<LinkEvent> events;
      decode_link_events(content, 77, events);
      break;
    }
  }
}

}  // namespace
}  // namespace meshd::netlink

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  meshd::netlink::decode_by(data[0], std::as_bytes(std::span(data, size)).subspan(1));
  return 0;
}
