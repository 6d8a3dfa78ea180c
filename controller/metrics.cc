#include "controller/metrics.h"

#include <string_view>

#include "controller/controller.h"

namespace meshd::controller {
namespace {

using metrics::Text;

void add_nodes(Text& text, const Controller& controller) {
  std::uint64_t connected = 0, away = 0, stale = 0, refusing = 0;
  for (const auto& node : controller.node_status()) {
    ++(node.connected ? connected : node.stale ? stale : away);
    if (!node.trouble.empty()) ++refusing;
  }
  text.gauge("mesh_controller_nodes", "Nodes of the cluster, by their session.")
      .sample(connected, {{"state", "connected"}})
      .sample(away, {{"state", "away"}})
      .sample(stale, {{"state", "stale"}});
  text.gauge("mesh_controller_nodes_refusing", "Nodes that refused their slice last.")
      .sample(refusing);
}

void add_cluster(Text& text, const Controller& controller) {
  const auto& cluster = controller.cluster();
  std::uint64_t declared = 0, attached = 0, ready = 0;
  for (const auto& [id, workload] : cluster.world().workloads) {
    ++(!workload.remote ? declared : workload.ready && !workload.drains() ? ready : attached);
  }
  text.gauge("mesh_controller_workloads", "Workloads of the cluster, by state.")
      .sample(declared, {{"state", "declared"}})
      .sample(attached, {{"state", "attached"}})
      .sample(ready, {{"state", "ready"}});
  text.gauge("mesh_controller_services", "Names with a VIP.")
      .sample(cluster.world().services.size());
  text.gauge("mesh_controller_tokens", "Join tokens that are kept, good or not.")
      .sample(cluster.tokens().size());
}

void add_store(Text& text, const Controller& controller) {
  const auto& counts = controller.counts();
  text.gauge("mesh_controller_revision", "The store's, rising with every commit.")
      .sample(controller.revision());
  text.gauge("mesh_controller_store_up", "0 while the store does not take changes.")
      .sample(controller.store_trouble().empty() ? 1 : 0);
  text.counter("mesh_controller_commits_total", "Changes given to the store, by what it said.")
      .sample(counts.commits, {{"outcome", "done"}})
      .sample(counts.commit_conflicts, {{"outcome", "conflict"}})
      .sample(counts.commit_failures, {{"outcome", "failed"}});
}

void add_sessions(Text& text, const Controller& controller) {
  const auto& counts = controller.counts();
  text.counter("mesh_controller_sessions_total", "Sessions of nodes that have begun.")
      .sample(counts.sessions);
  text.counter("mesh_controller_sessions_ended_total",
               "Sessions that the controller ended or turned away, by why.");
  add_tally(text, counts.ended, "reason");
  text.counter("mesh_controller_messages_total", "Messages of nodes.").sample(counts.messages);
  text.counter("mesh_controller_refused_total",
               "What nodes said and what was left out, by what it was.");
  add_tally(text, counts.refused, "what");
  text.counter("mesh_controller_slices_total", "Changes of nodes' slices.")
      .sample(counts.slices_sent, {{"outcome", "sent"}})
      .sample(counts.slices_applied, {{"outcome", "applied"}})
      .sample(counts.slices_refused, {{"outcome", "refused"}});
  text.counter("mesh_controller_refused_flows_total", "Refused flows that nodes told of.")
      .sample(counts.refused_flows);
  text.gauge("mesh_controller_refused_consumers", "Containers in `list refused`.")
      .sample(controller.refused_pairs().consumers());
}

void add_arvados(Text& text, const Controller& controller) {
  const auto& launches = controller.launch_report();
  if (!launches) return;
  std::uint64_t workloads = 0;
  const auto& cluster = controller.cluster();
  const auto author = arvados_author().text();
  for (const auto& [id, workload] : cluster.world().workloads) {
    workloads += cluster.author(id) == author ? 1 : 0;
  }
  text.gauge("mesh_controller_arvados_up", "0 while the Arvados API is not read.")
      .sample(launches->trouble.empty() ? 1 : 0);
  text.counter("mesh_controller_arvados_readings_total", "Readings of all that the API lists.")
      .sample(launches->readings);
  text.gauge("mesh_controller_arvados_workloads", "Declared for containers of Arvados.")
      .sample(workloads);
  text.gauge("mesh_controller_arvados_problems",
             "Of these, with something that its author hears of.")
      .sample(launches->problems.size());
}

void add_served(Text& text, const ServedCounts& served) {
  text.counter("mesh_controller_commands_total",
               "Commands that change something, by how they ended.");
  for (const auto& [what, count] : served.commands) {
    text.sample(count, {{"command", what.first}, {"outcome", what.second}});
  }
  text.counter("mesh_controller_joins_total", "Machines that asked to join, by how it ended.");
  add_tally(text, served.joins, "outcome");
  text.counter("mesh_controller_turned_away_total",
               "Connections and calls of those who may not, by why.");
  add_tally(text, served.turned_away, "reason");
  text.counter("mesh_controller_handshakes_refused_total",
               "TLS handshakes that came to nothing: a certificate of strangers, or expired.")
      .sample(served.handshakes_refused);
  text.gauge("mesh_controller_watchers", "Clients of `watch`.").sample(served.watchers);
}

void add_web(Text& text, const Controller& controller, const proxy::EndpointCounts& web) {
  text.counter("mesh_controller_web_verdicts_total",
               "Requests from outside, by what nginx was told.");
  for (const auto& [word, count] : web.verdicts) text.sample(count, {{"verdict", word}});
  text.counter("mesh_controller_web_cache_total", "Verdicts by whether the token was known.")
      .sample(web.cache_hits, {{"known", "yes"}})
      .sample(web.cache_misses, {{"known", "no"}});
  text.counter("mesh_controller_web_asked_total", "Questions about tokens to the Arvados API.")
      .sample(web.asked);
  text.counter("mesh_controller_web_not_answered_total", "Those of them without an answer in time.")
      .sample(web.not_answered);
  text.counter("mesh_controller_web_websockets_cut_total",
               "Callers with websockets whose access was taken away.")
      .sample(web.websockets_cut);
  text.gauge("mesh_controller_web_websockets", "Websockets that are open.").sample(web.websockets);
  text.gauge("mesh_controller_web_waiting", "Requests that wait for an answer about their token.")
      .sample(web.waiting);
  text.gauge("mesh_controller_web_connections", "Connections of nginx.").sample(web.connections);
  text.gauge("mesh_controller_web_on_demand", "Ports that are open on demand.")
      .sample(controller.cluster().opened().size());
}

}  // namespace

std::string render(const Controller& controller, const ServedCounts& served) {
  Text text;
  text.gauge("mesh_controller_info", "Always 1; what runs here.")
      .sample(1, {{"name", controller.name()}});
  add_nodes(text, controller);
  add_cluster(text, controller);
  add_store(text, controller);
  add_sessions(text, controller);
  add_arvados(text, controller);
  add_served(text, served);
  if (served.web) add_web(text, controller, *served.web);
  return text.take();
}

}  // namespace meshd::controller
