#include "controller/refused.h"

#include <fmt/format.h>

#include <algorithm>

#include "policy/name.h"

namespace meshd::controller {
namespace {

constexpr std::size_t kMaxNameBytes = 255;  // RFC 1035 section 3.1
constexpr std::size_t kMaxMissingBytes = 512;
constexpr std::uint64_t kMaxCount = 1'000'000;  // of a few seconds

bool is_printable(std::string_view text, std::size_t most) {
  return text.size() <= most &&
         std::ranges::all_of(text, [](char c) { return c >= ' ' && c < 0x7f; });
}

// Why it is no flow; empty: it is one.
std::string shape_problem(const mesh::v1::RefusedFlow& flow) {
  for (const auto* who : {&flow.consumer(), &flow.provider()}) {
    if (who->empty() || !is_printable(*who, kMaxNameBytes)) return "a name of 1 to 255 characters";
  }
  if (!is_printable(flow.missing(), kMaxMissingBytes)) return "missing: a line of text";
  if (flow.port().port() > 65535 || flow.port().end_port() != 0) return "port: 0 to 65535";
  if (flow.count() < 1 || flow.count() > kMaxCount) return "count: 1 to 1,000,000";
  return {};
}

// The workload or service whose address it is, else the text itself.
std::string named(const Cluster& cluster, const std::string& text) {
  const auto address = IpAddress::parse(text);
  if (!address) return text;
  if (const auto& id = cluster.id_at(*address); !id.empty()) return id;
  const auto key = cluster.service_at(*address);
  return key ? policy::service_fqdn(cluster.world().settings.zone, *key) : text;
}

bool is_on(const Cluster& cluster, const std::string& id, const std::string& node) {
  const auto* const placement = cluster.placement(id);
  return placement != nullptr && placement->node == node;
}

}  // namespace

Result<policy::Explanation> explained(const Cluster& cluster, const policy::RefusedPair& pair) {
  const auto& zone = cluster.world().settings.zone;
  // By the instance's full name: an id may be another service's name as well.
  const auto provider = cluster.declaration(pair.provider) != nullptr
                            ? policy::instance_fqdn(zone, pair.provider)
                            : pair.provider;
  return policy::explain(cluster.world(), policy::instance_fqdn(zone, pair.consumer), provider,
                         pair.proto, pair.port);
}

bool RefusedTable::may_explain(TimePoint now) {
  if (now - second_ >= std::chrono::seconds(1)) {
    second_ = now;
    explained_ = 0;
  }
  return explained_++ < kExplainedPerSecond;
}

RefusedTable::Taken RefusedTable::take(const Cluster& cluster, const std::string& node,
                                       const mesh::v1::RefusedFlows& flows, const Moment& now) {
  Taken taken;
  if (flows.flows().size() > kMaxRefusedFlows) {
    taken.refused.emplace_back("refused flows",
                               fmt::format("at most {} at once", kMaxRefusedFlows));
    return taken;
  }
  for (const auto& flow : flows.flows()) {
    if (auto problem = shape_problem(flow); !problem.empty()) {
      taken.refused.emplace_back("refused flows", std::move(problem));
      continue;
    }
    const policy::RefusedPair pair{
        named(cluster, flow.consumer()), named(cluster, flow.provider()),
        flow.port().protocol() == mesh::v1::Protocol::UDP ? Proto::kUdp : Proto::kTcp,
        static_cast<std::uint16_t>(flow.port().port())};
    const auto* const consumer = cluster.declaration(pair.consumer);
    if (consumer == nullptr) continue;  // deleted meanwhile
    if (!is_on(cluster, pair.consumer, node) && !is_on(cluster, pair.provider, node)) {
      taken.refused.emplace_back(pair.consumer, "is not on it, and what it was refused neither");
      continue;
    }
    auto& entry = pairs_.add(pair, flow.count(), now.wall_ms);
    entry.node = node;
    entry.owner = consumer->owner;
    entry.workflow = consumer->workflow;
    auto& event = taken.events.emplace_back();
    if (entry.missing.empty()) entry.missing = flow.missing();
    if (pair.port != 0 && may_explain(now.steady)) {
      if (const auto why = explained(cluster, pair)) {
        entry.missing = why->missing;
        event.set_detail(fmt::format("{}/{}: {}", proto_name(pair.proto), pair.port, why->reason));
      }
    }
    if (event.detail().empty()) {
      event.set_detail(pair.port == 0 ? "the name is withheld"
                                      : fmt::format("{}/{}", proto_name(pair.proto), pair.port));
    }
    event.set_kind(mesh::v1::Event::Kind::REFUSED_FLOW);
    event.set_id(pair.consumer);
    event.set_peer(pair.provider);
    event.set_missing(entry.missing);
    event.set_node(node);
    event.set_count(flow.count());
  }
  // Told to people, not to anybody else.
  [[maybe_unused]] const auto told = pairs_.take_untold(flows.flows().size());
  return taken;
}

}  // namespace meshd::controller
