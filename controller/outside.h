// Outside ports: which publication has which, and where a gateway's leads to. Of gateways raw ones
// have them; at the proxy of a site without wildcard names, http ones. Pure.
//
// Invariant: a port is one holder's, for as long as that is declared and, where it is a service,
//            as the service is; then it rests before it is another's. One that comes back while
//            it rests has it again. Ports beyond what the range holds are not given: they are
//            when one is free.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "controller/cluster.h"
#include "controller/record.h"
#include "policy/outside_ports.h"
#include "proto/controller.pb.h"

namespace meshd::controller {

// People keep the port in files and bookmarks.
inline constexpr auto kOutsideRest = std::chrono::hours(1);
// Of a publication that declares no sources, as its node reports them: as many as it may declare.
inline constexpr std::size_t kMaxReportedSources = 64;

// What is to be given, to rest, and to be free. A range of none changes nothing: another
// controller may have one.
[[nodiscard]] Writes settle_outside(const Cluster& cluster, OutsideUse use,
                                    const policy::PortSpan& range, const Moment& now);

struct OutsideTarget {
  std::string id;  // the provider
  mesh::v1::SliceOutside item;
};
// Of a gateway's. Absent: nobody's, or not installed on the provider's node.
[[nodiscard]] std::optional<OutsideTarget> outside_target(const Cluster& cluster,
                                                          const policy::OutsideKey& key);

}  // namespace meshd::controller
