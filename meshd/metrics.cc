#include "meshd/metrics.h"

#include <fmt/format.h>

#include <string_view>

namespace meshd {
namespace {

using metrics::Text;

// RFC 1035 section 4.1.1; others are shown by their number.
std::string rcode_name(std::size_t rcode) {
  constexpr std::string_view kNames[] = {"NOERROR",  "FORMERR", "SERVFAIL",
                                         "NXDOMAIN", "NOTIMP",  "REFUSED"};
  return rcode < std::size(kNames) ? std::string(kNames[rcode]) : fmt::format("{}", rcode);
}

void add_commands(Text& text, const NodeMetrics& m) {
  text.gauge("meshd_info", "Always 1; what runs here.")
      .sample(1, {{"version", m.version}, {"node", m.node}});
  text.counter("meshd_commands_total", "Commands that change something, by how they ended.");
  for (const auto& [what, count] : m.counts.commands) {
    text.sample(count, {{"command", what.first}, {"outcome", what.second}});
  }
  text.gauge("meshd_watchers", "Clients of `meshctl watch`.").sample(m.watching);
}

void add_state(Text& text, const NodeMetrics& m) {
  text.gauge("meshd_healthy", "Whether `meshctl status` says so.").sample(m.healthy ? 1 : 0);
  text.gauge("meshd_problems", "Problems in `meshctl status`.").sample(m.problems);
  text.gauge("meshd_workloads", "Workloads declared for this node, by state.");
  for (const auto& [state, count] : m.workloads) text.sample(count, {{"state", state}});
  text.gauge("meshd_flows", "Permitted flows between containers, as elements of the table.")
      .sample(m.flows);
  text.gauge("meshd_elements", "Elements of all sets and maps of the table.").sample(m.elements);
  text.gauge("meshd_generation", "Equal in all stages when what is stored is in force.");
  const auto& g = m.generations;
  const std::pair<std::string_view, std::uint64_t> stages[] = {{"stored", g.stored},
                                                               {"planned", g.planned},
                                                               {"installed", g.installed},
                                                               {"named", g.named},
                                                               {"reported", m.reported}};
  for (const auto& [stage, number] : stages) text.sample(number, {{"stage", stage}});
  text.gauge("meshd_behind", "1 while the kernel does not take the rules that are planned.")
      .sample(m.behind ? 1 : 0);
  text.counter("meshd_repairs_total", "Foreign changes to what is ours that were put right.")
      .sample(m.repairs);
}

void add_refusals(Text& text, const NodeMetrics& m) {
  text.counter("meshd_dropped_packets_total",
               "Packets that the table dropped or refused, by its counter.");
  for (const auto& [counter, packets] : m.dropped) text.sample(packets, {{"counter", counter}});
  text.counter("meshd_refused_flows_total",
               "Refused flows that were told of: of one flow at most one a second.")
      .sample(m.counts.refused_flows);
  text.counter("meshd_refused_names_total", "Withheld names that were told of.")
      .sample(m.counts.refused_names);
  text.gauge("meshd_refused_consumers", "Containers in `meshctl list refused`.")
      .sample(m.refused_consumers);
  text.counter("meshd_refused_lost_total", "Refused pairs that `list refused` had no room for.")
      .sample(m.refused_lost);
}

void add_dns(Text& text, const NodeMetrics& m) {
  text.counter("meshd_dns_queries_total", "Questions to the resolver.").sample(m.dns.queries);
  text.counter("meshd_dns_answers_total", "Answers, by their code.");
  for (std::size_t rcode = 0; rcode < m.dns.answers.size(); ++rcode) {
    const auto count = m.dns.answers.at(rcode);
    if (count > 0 || rcode == 0) text.sample(count, {{"rcode", rcode_name(rcode)}});
  }
  text.counter("meshd_dns_forwarded_total", "Questions for foreign names, from the cache or not.")
      .sample(m.dns.forwarded);
  text.counter("meshd_dns_dropped_total", "Questions without an answer: strangers, floods.")
      .sample(m.dns.dropped);
  text.counter("meshd_dns_withheld_total", "Answers that withheld a name of the zone.")
      .sample(m.dns.withheld);
  text.gauge("meshd_dns_upstream_up", "Whether that upstream resolver answers.");
  for (const auto& upstream : m.upstreams) {
    text.sample(upstream.healthy && !upstream.leads_back ? 1 : 0,
                {{"upstream", upstream.address.to_string()}});
  }
}

void add_cluster(Text& text, const ClusterCounts& c) {
  text.gauge("meshd_controller_connected", "1 while there is a session with a controller.")
      .sample(c.connected ? 1 : 0);
  text.counter("meshd_controller_sessions_total", "Sessions that have begun.").sample(c.sessions);
  text.counter("meshd_slices_total", "Changes of the node's slice, by what became of them.")
      .sample(c.slices_applied, {{"outcome", "applied"}})
      .sample(c.slices_refused, {{"outcome", "refused"}});
  text.gauge("meshd_slice_revision", "Of the slice that the node has.").sample(c.revision);
}

}  // namespace

std::string render(const NodeMetrics& metrics) {
  Text text;
  add_commands(text, metrics);
  add_state(text, metrics);
  add_refusals(text, metrics);
  add_dns(text, metrics);
  if (metrics.cluster) add_cluster(text, *metrics.cluster);
  return text.take();
}

}  // namespace meshd
