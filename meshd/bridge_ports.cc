#include "meshd/bridge_ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace meshd {

namespace nl = netlink;

std::vector<nl::Link> open_ports(std::span<const nl::Link> links, const NetnsIds& containers) {
  std::vector<nl::Link> ports;
  std::ranges::copy_if(links, std::back_inserter(ports), [&](const nl::Link& link) {
    return link.bridge_port && !link.isolated.value_or(false) && link.peer_netnsid &&
           containers.contains(*link.peer_netnsid);
  });
  return ports;
}

bool are_ends(const nl::Link& inside, const nl::Link& outside, int netnsid) {
  return inside.kind == "veth" && outside.kind == "veth" && outside.index == inside.peer_index &&
         outside.peer_index == inside.index && outside.peer_netnsid == netnsid;
}

Status isolate_beside(nl::Channel& channel, const nl::Link& ours,
                      std::span<const nl::Link> inside) {
  for (const auto& link : inside) {
    // A veth without a number has both ends in the container.
    if (link.kind != "veth" || !link.peer_netnsid || link.index == ours.peer_index) continue;
    const auto isolate = [&]() -> Status {
      if (!ours.peer_netnsid) return fail(ErrorCode::kInternal, ours.name + " leads nowhere");
      const auto outside = TRY(nl::find_link(channel, link.peer_index));
      if (!outside || !are_ends(link, *outside, *ours.peer_netnsid)) return {};
      for (const auto& port : open_ports(std::span(&*outside, 1), {*ours.peer_netnsid})) {
        CHECK_OK(nl::isolate_port(channel, port));
      }
      return {};
    };
    if (auto status = isolate(); !status) {
      return std::unexpected(std::move(status.error())
                                 .in(fmt::format("interface {} of the container would reach other "
                                                 "containers beside the mesh",
                                                 link.name)));
    }
  }
  return {};
}

}  // namespace meshd
