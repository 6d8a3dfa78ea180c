#include "controller/opened.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "policy/name.h"

namespace meshd::controller {
namespace {

constexpr std::string_view kTcp = "/tcp-";

Write put_opened(const policy::PublishKey& key, const std::string& by, TimePoint used_at,
                 const Moment& now) {
  mesh::v1::StoredOpened stored;
  stored.set_by(by);
  stored.set_used_at_ms(now.wall_of(used_at));
  return put(kind::ObjectKind::OPENED, opened_key(key), stored);
}

std::unexpected<Error> refuse(ErrorCode code, const std::string& id, std::uint16_t port,
                              std::string_view why) {
  return fail(code, fmt::format("open: {} tcp/{}: {}", id, port, why));
}

}  // namespace

std::string opened_key(const policy::PublishKey& key) {
  return fmt::format("{}{}{}", key.id, kTcp, key.port);
}

Result<policy::PublishKey> parse_opened_key(const std::string& text) {
  const auto wrong = fail(ErrorCode::kInvalid, "is not ID/tcp-PORT");
  const auto slash = text.find('/');
  if (slash == std::string::npos || !std::string_view(text).substr(slash).starts_with(kTcp)) {
    return wrong;
  }
  policy::PublishKey key{text.substr(0, slash), Proto::kTcp, 0};
  std::from_chars(text.data() + slash + kTcp.size(), text.data() + text.size(), key.port);
  if (key.id.empty() || key.port == 0 || opened_key(key) != text) return wrong;
  return key;
}

Result<Writes> open_port(const Cluster& cluster, const std::string& id, std::uint16_t port,
                         const std::string& by, const Moment& now) {
  const auto found = cluster.world().workloads.find(id);
  if (found == cluster.world().workloads.end()) {
    return refuse(ErrorCode::kNotFound, id, port, "is not declared");
  }
  if (port == 0) return refuse(ErrorCode::kInvalid, id, port, "is no port");
  if (by.empty() || by.size() > kMaxOpenerBytes) {
    return refuse(ErrorCode::kInvalid, id, port, "who opens it is not said");
  }
  const auto& workload = found->second;
  if (!workload.remote) return refuse(ErrorCode::kNotInForce, id, port, "is not attached");
  const bool declared = std::ranges::any_of(workload.declaration.publish, [&](const auto& p) {
    return p.proto == Proto::kTcp && p.port == port;
  });
  if (declared || workload.opened.contains(port)) return Writes();
  if (workload.opened.size() >= kMaxOpenedPorts) {
    return refuse(ErrorCode::kExhausted, id, port,
                  fmt::format("{} ports of it are open already", workload.opened.size()));
  }
  return Writes{put_opened({id, Proto::kTcp, port}, by, now.steady, now)};
}

Writes store_uses(const Cluster& cluster, const Uses& uses, Duration idle, const Moment& now) {
  Writes writes;
  for (const auto& [key, used_at] : uses) {
    const auto opened = cluster.opened().find(key);
    if (opened == cluster.opened().end()) continue;
    if (used_at < opened->second.used_at + use_stored(idle)) continue;
    writes.push_back(put_opened(key, opened->second.by, used_at, now));
  }
  return writes;
}

Writes shut_idle(const Cluster& cluster, Duration idle, const Moment& now) {
  Writes writes;
  for (const auto& [key, opened] : cluster.opened()) {
    // A use just before another was to be stored is not known.
    if (now.steady < opened.used_at + idle + use_stored(idle)) continue;
    writes.push_back(drop(kind::ObjectKind::OPENED, opened_key(key)));
  }
  return writes;
}

void shut_all(const Cluster& cluster, const std::string& id, Writes& writes) {
  for (auto at = cluster.opened().lower_bound({id, {}, 0});
       at != cluster.opened().end() && at->first.id == id; ++at) {
    writes.push_back(drop(kind::ObjectKind::OPENED, opened_key(at->first)));
  }
}

}  // namespace meshd::controller
