// The composition root: makes the parts, starts them in order, and answers the API.
//
// Start:   store, node facts, table options -> names of the stored generation -> resolver
//          sockets and workers -> links and table made equal -> API sockets -> READY.
// Threads: made and run on the main thread; signals are blocked before any thread starts.
// Errors:  start() says what and why in one line; nothing of ours is changed in the kernel
//          before store and configuration are known to be good.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "dns/server.h"
#include "meshd/admin.h"
#include "meshd/api.h"
#include "meshd/config.h"
#include "meshd/controller_session.h"
#include "meshd/engine_notes.h"
#include "meshd/firewalls.h"
#include "meshd/linux_kernel.h"
#include "meshd/loop.h"
#include "meshd/metrics.h"
#include "meshd/names.h"
#include "meshd/node.h"
#include "meshd/notify.h"
#include "meshd/ready_watch.h"
#include "meshd/refusals.h"
#include "meshd/run_lock.h"
#include "meshd/store.h"
#include "meshd/traffic.h"
#include "metrics/http.h"
#include "netlink/link_monitor.h"
#include "netlink/nflog.h"
#include "netlink/nft_monitor.h"
#include "policy/refused_pairs.h"

namespace meshd {

inline constexpr std::string_view kVersion = "0.1.0";

class Daemon final : public Api {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Daemon>> start(Config config);
  ~Daemon() override;
  [[nodiscard]] Status run() { return loop_->run(); }

  // Api
  void apply(std::vector<policy::Declaration>, Caller, Reply<mesh::v1::ApplyReply>) override;
  void attach(const mesh::v1::AttachRequest&, Caller, Reply<mesh::v1::AttachReply>) override;
  void detach(const mesh::v1::DetachRequest&, Caller, Reply<mesh::v1::DetachReply>) override;
  void drain(const mesh::v1::WorkloadRequest&, Caller, Reply<mesh::v1::Empty>) override;
  void remove(const mesh::v1::DeleteRequest&, Caller, Reply<mesh::v1::DetachReply>) override;
  void release_name(const mesh::v1::NameRequest&, Caller, Reply<mesh::v1::Empty>) override;
  void plan(std::vector<policy::Declaration>, Reply<mesh::v1::PlanReply>) override;
  void list_workloads(const mesh::v1::Empty&, Reply<mesh::v1::WorkloadList>) override;
  void list_services(const mesh::v1::Empty&, Reply<mesh::v1::ServiceList>) override;
  void list_flows(const mesh::v1::Empty&, Reply<mesh::v1::FlowList>) override;
  void list_published(const mesh::v1::Empty&, Reply<mesh::v1::PublishedList>) override;
  void list_nodes(const mesh::v1::Empty&, Reply<mesh::v1::NodeList>) override;
  void list_refused(const mesh::v1::Empty&, Reply<mesh::v1::RefusedList>) override;
  void explain(const mesh::v1::ExplainRequest&, Reply<mesh::v1::ExplainReply>) override;
  void resolve(const mesh::v1::ResolveRequest&, Reply<mesh::v1::ResolveReply>) override;
  void get_status(const mesh::v1::Empty&, Reply<mesh::v1::StatusReply>) override;
  void wait(const mesh::v1::WaitRequest&, CallNumber, Reply<mesh::v1::WaitReply>) override;
  void cancel_wait(CallNumber) override;
  void watch(const mesh::v1::WatchRequest&, std::shared_ptr<EventStream>) override;
  void unwatch(const EventStream&) override;
  void stop(std::string_view why) override;

 private:
  explicit Daemon(Config config) : config_(std::move(config)) {}

  // Steps of start(), in order.
  [[nodiscard]] Status open_store();
  [[nodiscard]] Status learn_node();
  [[nodiscard]] Status start_node();
  [[nodiscard]] Status start_dns();
  [[nodiscard]] Status start_events();
  [[nodiscard]] Status watch_table();
  [[nodiscard]] Status start_api();
  [[nodiscard]] Status start_controller();
  [[nodiscard]] Status start_metrics();

  [[nodiscard]] Status remember(const std::vector<OldSysctl>& old);
  [[nodiscard]] dns::ZoneSettings zone_settings() const;
  [[nodiscard]] std::vector<dns::UpstreamAddress> upstreams() const;
  // The node becomes one of a cluster: table and names are made for that.
  [[nodiscard]] Status adopt(const policy::Settings& settings);

  void on_jobs();
  void on_table_events();
  void on_link_events();
  void on_log_packets();
  void on_refused_names();
  void on_audit();
  bool take(NodeNetwork network);
  void follow_addresses();
  void set_table();  // as the settings are, and what was on the node before us
  void follow_firewalls();
  // Ways to the other nodes and the MTU of containers to come, by what is known of both now.
  void follow_underlay(const std::map<std::string, policy::RemoteNode>& nodes);
  // The same at a start, before node_ is made: its first audit would sweep what is there.
  void follow_stored(const StoredState& stored);
  void open_log();
  void audit_by(TimePoint when);
  [[nodiscard]] bool is_mesh(const Prefix& range) const;
  void on_event(mesh::v1::Event event);
  void note_refusal(const std::string& id, std::string line);
  void publish_why();
  void note_pair(const policy::RefusedPair& pair, const std::string& missing);
  template <class T>
  [[nodiscard]] Reply<T> audited(Caller caller, std::string_view command,
                                 std::vector<std::string> lines, Reply<T> reply);
  void report_pairs();
  void follow_look(TimePoint now);
  void read_traffic();
  [[nodiscard]] mesh::v1::StatusReply status_reply() const;
  [[nodiscard]] std::string metrics_text();
  void serve_metrics();
  [[nodiscard]] bool is_attached_as(const std::string& id, const std::string& netns) const;
  [[nodiscard]] Status note_declared();
  // After anything that may have changed the world: watches and timers follow.
  void settle();

  const Config config_;
  std::unique_ptr<Loop> loop_;
  std::unique_ptr<RunLock> lock_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<LinuxKernel> kernel_;
  std::unique_ptr<Names> names_;
  std::unique_ptr<EngineNotes> engine_notes_;
  policy::Settings settings_;
  std::vector<Prefix> bridges_;
  std::vector<dns::UpstreamAddress> upstreams_;
  std::vector<dns::Listener> listeners_;
  std::unique_ptr<dns::Server> dns_;
  std::unique_ptr<Node> node_;
  policy::TableOptions table_options_;
  std::unique_ptr<ControllerSession> controller_;
  std::unique_ptr<ReadyWatch> ready_;
  std::unique_ptr<Admin> admin_;
  std::unique_ptr<netlink::NftMonitor> nft_monitor_;
  std::unique_ptr<Firewalls> firewalls_;
  std::unique_ptr<netlink::LinkMonitor> link_monitor_;
  std::unique_ptr<netlink::NflogReader> nflog_;
  std::string log_trouble_;  // why there is none
  std::string engine_trouble_;
  std::vector<std::string> underlay_trouble_;
  std::vector<std::string> firewall_trouble_;
  std::map<std::string, policy::RemoteNode> followed_nodes_;
  TimePoint audit_at_ = TimePoint::max();
  std::deque<Admin::Job> jobs_;  // taken from admin_ and not done yet
  Refusals refusals_;
  RepeatFilter repeats_;
  std::set<std::string> why_changed_;
  policy::RefusedPairs pairs_{kRefusedConsumers};
  bool pairs_timer_set_ = false;
  bool looking_ = false;  // somebody looks at the controller's page
  TrafficCounts traffic_;
  std::optional<TimePoint> traffic_at_;  // when that was read
  NodeCounts counts_;
  std::unique_ptr<metrics::Endpoint> metrics_;
  std::vector<std::shared_ptr<EventStream>> watchers_;
  std::vector<std::shared_ptr<EventStream>> refusal_watchers_;
  std::unique_ptr<Timer> node_timer_, audit_timer_, why_timer_, watchdog_timer_, controller_timer_,
      pairs_timer_, metrics_timer_, traffic_timer_;
  std::vector<std::unique_ptr<Source>> sources_;
};

// Removes everything that is ours on this node, and nothing else; refused while a daemon
// runs. Works without a store, as far as that goes.
[[nodiscard]] Status purge(const Config& config);

}  // namespace meshd
