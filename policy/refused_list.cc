#include "policy/refused_list.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>

namespace meshd::policy {

std::string time_text(std::int64_t wall_ms) {
  const std::chrono::sys_time<std::chrono::milliseconds> time{std::chrono::milliseconds(wall_ms)};
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", std::chrono::floor<std::chrono::seconds>(time));
}

mesh::v1::RefusedList refused_list(const RefusedPairs& pairs) {
  mesh::v1::RefusedList list;
  for (const auto& [pair, entry] : pairs.all()) {
    auto& info = *list.add_refused();
    info.set_consumer(pair.consumer);
    info.set_provider(pair.provider);
    info.set_protocol(pair.proto == Proto::kUdp ? mesh::v1::Protocol::UDP
                                                : mesh::v1::Protocol::TCP);
    info.set_port(pair.port);
    info.set_missing(entry.missing);
    info.set_count(entry.count);
    info.set_last(time_text(entry.last_ms));
    info.set_node(entry.node);
    info.set_owner(entry.owner);
    info.set_workflow(entry.workflow);
  }
  return list;
}

}  // namespace meshd::policy
