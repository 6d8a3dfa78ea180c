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
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "controller/cluster.h"
#include "controller/decide.h"
#include "controller/slices.h"
#include "controller/store.h"

namespace meshd::controller {

// The way to one node. Messages go in order; after close() none does.
class NodeStream {
 public:
  virtual ~NodeStream() = default;
  virtual void send(mesh::v1::ToNode message) = 0;
  virtual void close() = 0;
};

struct ControllerOptions {
  std::string name;  // what nodes are told they speak with
  bool node_declarations = false;
  // A node without a session: its workloads are marked after the first, given up, with its
  // block, after the second. Longer than any restart, partition or upgrade that is to be
  // survived without a change of names.
  Duration stale_after = std::chrono::seconds(10);
  Duration dismiss_after = std::chrono::hours(1);
};

// How long an attach may wait for its declaration here; the node's own deadline is shorter.
inline constexpr auto kAwaitLimit = std::chrono::minutes(2);
inline constexpr std::size_t kMaxAwaited = 1024;  // of one node
// What a node has more, for each of the cluster's, when a controller starts and all come at once:
// several times the CPU that this takes, most of it TLS.
inline constexpr auto kComeBack = std::chrono::milliseconds(20);
// After a slice was refused, and while the store is away.
inline constexpr auto kRetryAfter = std::chrono::seconds(1);
// Reports of one node that the store has not taken yet; beyond it the session ends and begins
// with a report of everything.
inline constexpr std::size_t kMaxKeptReports = 64;
// Decisions that others were quicker with, one after the other.
inline constexpr int kMaxAttempts = 20;

struct NodeStatus {
  std::string name;
  bool connected = false, stale = false;
  std::string version;
  std::uint64_t revision = 0;    // sent
  std::uint64_t generation = 0;  // of its last report
  std::string trouble;           // why it refused its last slice
};

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
                               const std::string& pinned, const Moment& now);
  [[nodiscard]] Status forget(const Author& author, const std::string& id, bool force,
                              const Moment& now);
  [[nodiscard]] Status release(const Author& author, const std::string& name, const Moment& now);
  // A node that will not come back, before its time.
  [[nodiscard]] Status dismiss(const std::string& node, const Moment& now);

  // A machine with a token: counted as its use. Refused while a node of the name is connected.
  [[nodiscard]] Status let_in(std::string_view token, const IpAddress& source,
                              const std::string& node, const Moment& now);
  [[nodiscard]] Status put_token(const Token& token, const Moment& now);
  [[nodiscard]] Status revoke_token(const std::string& id, const Moment& now);

  void on_timer(const Moment& now);
  [[nodiscard]] std::optional<TimePoint> next_timer() const { return timer_; }
  void on_store_notified(const Moment& now);
  [[nodiscard]] Store& store() { return *store_; }

  [[nodiscard]] const Cluster& cluster() const { return cluster_; }
  [[nodiscard]] const Slices& slices() const { return slices_; }
  [[nodiscard]] std::uint64_t revision() const { return revision_; }
  [[nodiscard]] const std::string& name() const { return options_.name; }
  [[nodiscard]] std::vector<NodeStatus> node_status() const;
  [[nodiscard]] const std::string& store_trouble() const { return store_trouble_; }

 private:
  struct Session {
    NodeStream* stream = nullptr;
    bool greeted = false;
    std::uint64_t last_report = 0;
    std::deque<mesh::v1::Report> kept;                                   // not stored yet
    std::map<std::string, std::pair<std::uint64_t, TimePoint>> awaited;  // id: call, until
    std::optional<TimePoint> retry_at;  // of a slice that was refused
    NodeStatus status;
  };
  using Decision = std::function<Result<Writes>()>;

  Controller(std::unique_ptr<Store> store, ControllerOptions options)
      : store_(std::move(store)), options_(std::move(options)) {}
  [[nodiscard]] Status load(const Moment& now);
  // Decides, stores, folds; again when somebody else was quicker.
  [[nodiscard]] Status carry_out(const Decision& decide, const Moment& now);
  [[nodiscard]] Status fold(const Writes& writes, const Moment& now);
  void follow(const Touched& touched, const Moment& now);
  [[nodiscard]] Status catch_up(const Moment& now);
  void on_hello(const std::string& node, NodeStream& stream, const mesh::v1::Hello& hello,
                const Moment& now);
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
  void answer_awaited(const Moment& now);
  void welcome(const std::string& node, Session& session);
  void send_ready(const Moment& now);
  void send_next(const std::string& node, const Moment& now);
  void end(const std::string& node, const std::string& why, Duration retry_after,
           const Moment& now);
  void lose(const std::string& node, const Moment& now);
  void mark(const std::string& node, bool stale);
  void look_after_nodes(const Moment& now);
  void set_timer(TimePoint when);

  std::unique_ptr<Store> store_;
  const ControllerOptions options_;
  Cluster cluster_;
  Slices slices_;
  std::uint64_t revision_ = 0;
  std::map<std::string, Session> sessions_;  // by node
  std::set<std::string> awaiting_;           // those in which a container waits, and maybe others
  std::map<std::string, TimePoint> lost_;    // nodes without a session, and since when
  std::set<std::string> stale_;
  std::string store_trouble_;
  std::optional<TimePoint> timer_;
};

}  // namespace meshd::controller
