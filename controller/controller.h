// The controller: sessions with nodes and commands of people, brought through decide, store and
// fold to what the concerned nodes are sent.
//
// Threads:   the controller's loop only; time comes in as an argument. gRPC's threads hand
//            messages over (controller/server.h).
// Owns:      the store, the cluster and its slices. Borrows the streams, which on_closed() ends.
// Invariant: nothing is sent, and no command answered, before it is stored. What a node reports
//            and the store does not take now is kept and tried again.
// Errors:    of commands, "WHAT: WHY". A session that breaks the protocol is ended with its
//            reason; the others do not notice.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "controller/cluster.h"
#include "controller/controller_types.h"
#include "controller/counts.h"
#include "controller/decide.h"
#include "controller/elsewhere.h"
#include "controller/looking.h"
#include "controller/opened.h"
#include "controller/openings.h"
#include "controller/refused.h"
#include "controller/slices.h"
#include "controller/store.h"

namespace meshd::controller {

class Controller {
 public:
  // Reads the store.
  [[nodiscard]] static Result<std::unique_ptr<Controller>> make(std::unique_ptr<Store> store,
                                                                ControllerOptions options,
                                                                const Moment& now);

  // Sessions. The name is the certificate's.
  void on_message(const std::string& node, NodeStream& stream, const mesh::v1::FromNode& message,
                  const Moment& now);
  void on_closed(NodeStream& stream, const Moment& now);

  // Commands.
  [[nodiscard]] Status declare(const Author& author, std::vector<policy::Declaration> declarations,
                               const std::string& pinned, const Moment& now,
                               const Launches& launches = {});
  [[nodiscard]] Status forget(const Author& author, const std::string& id, bool force,
                              const Moment& now);
  [[nodiscard]] Status release(const Author& author, const std::string& name, const Moment& now);
  // A node that will not come back, before its time: its session ends, and its certificates are
  // refused from then on (is_dismissed()).
  [[nodiscard]] Status dismiss(const std::string& node, const Moment& now);

  // A machine with a token: counted as its use. Refused while a node of the name is connected.
  // `key` is the digest of the key that it will have a certificate for.
  [[nodiscard]] Status let_in(std::string_view token, const IpAddress& source,
                              const std::string& node, const std::string& key, const Moment& now);
  [[nodiscard]] Status put_token(const Token& token, const Moment& now);
  [[nodiscard]] Status revoke_token(const std::string& id, const Moment& now);

  // On demand: the container's TCP port is published to the proxies, for as long as it is used
  // (controller/opened.h). Harmless when it is published already. The node has it in force when
  // its report has a node port for it.
  [[nodiscard]] Status open_port(const std::string& id, std::uint16_t port, const std::string& by,
                                 const Moment& now);
  // Of each request, or each part of a long one; costs nothing but memory until the next timer.
  void note_use(const std::string& id, std::uint16_t port, TimePoint now);
  // A name outside that nobody declared (a link of Arvados'), and what it stands for.
  void set_alias(const std::string& name, std::optional<proxy::Target> target) {
    if (openings_) openings_->set_alias(name, std::move(target));
  }
  // What the proxy may open; null where none is configured.
  [[nodiscard]] const Openings* openings() const { return openings_ ? &*openings_ : nullptr; }
  [[nodiscard]] Looking& looking() { return looking_; }
  [[nodiscard]] const proxy::Site* web() const { return options_.web ? &*options_.web : nullptr; }

  void on_timer(const Moment& now);
  [[nodiscard]] std::optional<TimePoint> next_timer() const { return timer_; }
  void on_store_notified(const Moment& now);
  [[nodiscard]] Store& store() { return *store_; }

  // Whoever is told what happens in the cluster; empty: nobody, and nothing is made for them.
  using EventSink = std::function<void(mesh::v1::Event)>;
  void tell_events(EventSink sink) { sink_ = std::move(sink); }
  // Whoever is told of containers that a node waits for and that nobody has declared.
  using WaitSink = std::function<void(const std::string& id)>;
  void tell_waits(WaitSink sink) { wait_sink_ = std::move(sink); }
  void say_unknown(const std::string& id, const Moment& now);  // nobody else knows it either
  // Absent: nobody declares for others.
  void set_launch_report(LaunchReport report) { launch_report_ = std::move(report); }
  [[nodiscard]] const std::optional<LaunchReport>& launch_report() const { return launch_report_; }

  [[nodiscard]] const Counts& counts() const { return counts_; }
  [[nodiscard]] const policy::RefusedPairs& refused_pairs() const { return refused_.pairs(); }
  [[nodiscard]] const std::set<std::string>& stale() const { return stale_; }
  [[nodiscard]] const Cluster& cluster() const { return cluster_; }
  // With the holds as they are at that time.
  [[nodiscard]] const policy::World& world_at(TimePoint now) {
    cluster_.set_now(now);
    return cluster_.world();
  }
  [[nodiscard]] const Slices& slices() const { return slices_; }
  [[nodiscard]] std::uint64_t revision() const { return revision_; }
  [[nodiscard]] const std::string& name() const { return options_.name; }
  [[nodiscard]] std::vector<NodeStatus> node_status() const;
  [[nodiscard]] const std::string& store_trouble() const { return store_trouble_; }

 private:
  using Awaited = AwaitedAttach;
  using Session = NodeSession;
  using Decision = std::function<Result<Writes>()>;

  Controller(std::unique_ptr<Store> store, ControllerOptions options, TimePoint now)
      : store_(std::move(store)),
        options_(std::move(options)),
        elsewhere_(options_.instance, store_->notify_fd() >= 0, now) {
    if (options_.web) openings_.emplace(options_.proxy_node);
  }
  [[nodiscard]] Status load(const Moment& now);
  // Decides, stores, folds; again when somebody else was quicker.
  [[nodiscard]] Status carry_out(const Decision& decide, const Moment& now);
  [[nodiscard]] Status fold(const Writes& writes, const Moment& now);
  void follow(const Touched& touched, const Moment& now);
  [[nodiscard]] Status catch_up(const Moment& now);
  bool keep_up(const Moment& now);
  void take_message(const std::string& node, NodeStream& stream, const mesh::v1::FromNode& message,
                    const Moment& now);
  void on_hello(const std::string& node, NodeStream& stream, const mesh::v1::Hello& hello,
                const Moment& now);
  [[nodiscard]] GatewayFacts gateway_facts(const std::string& node, bool says_so,
                                           const std::vector<IpAddress>& addresses) const;
  void on_report(const std::string& node, Session& session, const mesh::v1::Report& report,
                 const Moment& now);
  void take_reports(const std::string& node, Session& session, const Moment& now);
  void on_applied(const std::string& node, Session& session, std::uint64_t revision,
                  const Moment& now);
  void on_refused(const std::string& node, Session& session, const mesh::v1::Refused& refused,
                  const Moment& now);
  void on_started(const std::string& node, Session& session, const mesh::v1::Started& started,
                  const Moment& now);
  void on_declare(const std::string& node, Session& session, const mesh::v1::Declare& request,
                  const Moment& now);
  void on_refused_flows(const std::string& node, Session& session,
                        const mesh::v1::RefusedFlows& flows, const Moment& now);
  void tell(mesh::v1::Event event) const {
    if (sink_) sink_(std::move(event));
  }
  void answer_awaited(const Moment& now);
  void welcome(const std::string& node, Session& session);
  void send_ready(const Moment& now);
  void send_next(const std::string& node, const Moment& now);
  // `word` is why, for the metrics.
  void end(const std::string& node, std::string_view word, const std::string& why,
           Duration retry_after, const Moment& now);
  void lose(const std::string& node, const Moment& now);
  void mark(const std::string& node, bool stale, const Moment& now);
  void look_after_nodes(const Moment& now);
  [[nodiscard]] bool is_connected(const std::string& node) const {
    return sessions_.contains(node) || elsewhere_.has(node);
  }
  // Of other controllers, and for them.
  void take_news(const std::vector<std::string>& lines, const Moment& now);
  void end_dismissed(const Moment& now);
  void sweep(const Moment& now);
  void settle_outside(const Moment& now);
  void note_news(NodeNews::Kind kind, const std::string& node);
  void tell_news();
  void tell_all(const Moment& now);
  void set_timer(TimePoint when);

  std::unique_ptr<Store> store_;
  const ControllerOptions options_;
  Cluster cluster_;
  Slices slices_;
  std::optional<Openings> openings_;
  std::uint64_t revision_ = 0;
  std::map<std::string, Session> sessions_;  // by node
  std::set<std::string> awaiting_;           // those in which a container waits, and maybe others
  std::map<std::string, TimePoint> lost_;    // nodes without a session, and since when
  std::set<std::string> stale_;
  Elsewhere elsewhere_;
  std::vector<NodeNews> news_;       // not told yet
  std::set<std::string> dismissed_;  // nodes with a session here
  Uses uses_;                        // of ports on demand, not stored
  TimePoint tell_all_at_{};
  std::string store_trouble_;
  std::optional<TimePoint> timer_;
  RefusedTable refused_;
  Looking looking_;
  Counts counts_;
  EventSink sink_;
  WaitSink wait_sink_;
  std::optional<LaunchReport> launch_report_;
};

}  // namespace meshd::controller
