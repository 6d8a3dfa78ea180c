// The node's state machine: a declaration, an attach or an event of the kernel goes in,
// and store, kernel and names are brought to what follows from it, in this order: stored,
// in the kernel, named, answered. A name is never ahead of its rules, a withdrawn name's
// flows are shut before it goes.
//
// Threads:   the main loop only; time comes in as an argument.
// Owns:      the World and its Compiler. Borrows store, kernel and names, which outlive it.
// Invariant: a refused command changed nothing. A command that is stored stays: when the
//            kernel refuses its rules the old ones stand, names stay behind, and the node
//            tries again until it holds ("behind"); what is pending is never forgotten.
// Errors:    kInvalid, kNotFound, kConflict, kExhausted to the caller at once; kNotInForce when
//            what was stored did not come in force within kInForceLimit, or `by` (its deadline).
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "meshd/api.h"
#include "meshd/idle_names.h"
#include "meshd/kernel.h"
#include "meshd/names.h"
#include "meshd/node_cluster.h"
#include "meshd/node_types.h"
#include "meshd/room.h"
#include "meshd/store.h"
#include "policy/allocate.h"
#include "policy/changes.h"
#include "policy/explain.h"
#include "policy/plan.h"

namespace meshd {

class Node {
 public:
  using EventSink = std::function<void(mesh::v1::Event)>;

  Node(policy::Settings settings, Store& store, Kernel& kernel, Names& names, EventSink sink,
       NodeOptions options = {});

  // Reads the store, compiles, and publishes the names of the stored generation: the kernel
  // still has their rules. Nothing is written to the kernel yet.
  [[nodiscard]] Status load(TimePoint now);
  // The node's own facts changed (its addresses): everything is compiled anew.
  void set_settings(policy::Settings settings, TimePoint now);
  // Makes links and table equal to the plan; attachments whose link is gone are detached.
  [[nodiscard]] Status converge(TimePoint now);

  void apply(std::vector<policy::Declaration> declarations, TimePoint now,
             Reply<mesh::v1::ApplyReply> reply, TimePoint by = TimePoint::max());
  [[nodiscard]] Result<std::vector<policy::Change>> plan(
      std::vector<policy::Declaration> declarations, TimePoint now);
  void attach(const AttachSpec& spec, TimePoint now, Reply<policy::Attachment> reply);
  void detach(const std::string& id, TimePoint now, Reply<mesh::v1::DetachReply> reply,
              TimePoint by = TimePoint::max());
  // What a detach of `id` has left to its client to remove.
  [[nodiscard]] mesh::v1::DetachReply left_netns(const std::string& id) const;
  void forget_netns(const std::string& id, std::uint64_t ino, TimePoint now,
                    Reply<mesh::v1::DetachReply> reply);
  void drain(const std::string& id, TimePoint now, Reply<mesh::v1::Empty> reply);
  void remove(const std::string& id, bool force, TimePoint now, Reply<mesh::v1::DetachReply> reply);
  void release_name(const std::string& name, TimePoint now, Reply<mesh::v1::Empty> reply);
  // `call` names it for cancel_wait().
  void wait(const std::string& target, std::chrono::milliseconds limit, std::uint64_t call,
            TimePoint now, Reply<mesh::v1::WaitReply> reply);
  void cancel_wait(std::uint64_t call);
  // Nothing more will come in force: every command that still waits is told so.
  void give_up_waiting(std::string_view why);

  // Events.
  void on_listening(const std::string& id,
                    const std::map<std::uint16_t, policy::FamilyReady>& ready,
                    std::vector<std::string> problems, TimePoint now);
  void on_link_gone(const std::string& host_ifname, TimePoint now);
  void on_drift(TimePoint now);  // something foreign changed what is ours, or may have
  void on_audit(TimePoint now);  // links, routes and the like: no event tells of all changes
  void on_timer(TimePoint now);
  [[nodiscard]] std::optional<TimePoint> next_timer() const;

  [[nodiscard]] const policy::World& world() const { return world_; }
  [[nodiscard]] const policy::Compiler& compiler() const { return compiler_; }
  [[nodiscard]] const NodeGenerations& generations() const { return generations_; }
  [[nodiscard]] const std::map<std::string, std::vector<std::string>>& problems() const {
    return problems_;
  }
  [[nodiscard]] const std::string& behind() const { return behind_; }  // empty: in force
  [[nodiscard]] std::uint64_t repairs() const { return repairs_; }
  [[nodiscard]] std::size_t waiting() const { return ready_waiters_.size(); }
  [[nodiscard]] const policy::Quarantine& quarantine() const { return quarantine_; }
  [[nodiscard]] std::vector<LinkPlan> links() const;
  // A change that nobody waited for and the store did not take; empty: none.
  [[nodiscard]] const std::string& store_trouble() const { return store_trouble_; }
  [[nodiscard]] std::string id_at(const IpAddress& address) const;  // empty: nobody's
  [[nodiscard]] Result<policy::Explanation> explain(std::string_view source,
                                                    std::string_view destination, Proto proto,
                                                    std::uint16_t port, TimePoint now);
  [[nodiscard]] std::uint32_t mtu() const { return mtu_; }
  void set_mtu(std::uint32_t mtu) { mtu_ = mtu; }
  [[nodiscard]] ClusterPart* cluster() const { return cluster_.get(); }  // null: by itself

 private:
  friend class ClusterPart;
  friend class SliceChangeover;
  [[nodiscard]] bool in_cluster() const { return cluster_ && cluster_->governs(); }
  // Stores `changes` as the next generation: what is compiled from them comes in force next.
  [[nodiscard]] Status persist(std::vector<StoreChange> changes);
  // The same for what has happened already: what is not stored is kept, in order, for the next.
  Status persist_or_keep(std::vector<StoreChange> changes, TimePoint now);
  [[nodiscard]] Status store_kept(TimePoint now);
  [[nodiscard]] Status amend(std::vector<StoreChange> changes);  // nothing is compiled from it
  void follow_stored();
  void note_store(const Status& status);
  void drop_doubles(TimePoint now);
  [[nodiscard]] Error plainly(Error error) const;
  // Services that lose their last endpoint by it are held again, from now.
  [[nodiscard]] Compiled compile(policy::Touched touched, TimePoint now);
  // The caller has put back what else it changed in the world.
  void take_back(const Compiled& compiled);
  [[nodiscard]] Result<policy::Outcome> declare(std::vector<policy::Declaration> declarations);
  [[nodiscard]] Result<std::vector<policy::Change>> describe(const policy::Outcome& outcome);
  [[nodiscard]] Trial try_out(policy::Outcome outcome, TimePoint now);
  void take_back(Trial trial);
  [[nodiscard]] Status give_up_name(const std::string& name, TimePoint now);
  void release_idle_names(TimePoint now);
  void sweep_quarantine(TimePoint now);
  [[nodiscard]] std::int64_t wall_s() const;
  void bring_in_force(policy::PlanDelta delta, TimePoint now);
  void catch_up(TimePoint now);
  void fall_behind(const Error& error, TimePoint now);
  void installed(TimePoint now);
  void when_in_force(TimePoint now, std::move_only_function<void(Status)> done,
                     TimePoint by = TimePoint::max());
  void answer_empty(TimePoint now, Reply<mesh::v1::Empty> reply);
  void answer_detached(mesh::v1::DetachReply answer, TimePoint now,
                       Reply<mesh::v1::DetachReply> reply, TimePoint by = TimePoint::max());
  // What a detach stores; notes a prepared namespace as left.
  [[nodiscard]] std::vector<StoreChange> leave(const std::string& id,
                                               const policy::Attachment& attachment, TimePoint now);

  [[nodiscard]] Result<policy::Attachment> pick_address();
  [[nodiscard]] Status check_attach(const AttachSpec& spec) const;
  // Shuts in any case; the error is the store's.
  Status drop_attachment(const std::string& id, TimePoint now);
  // Addresses rest, connections and link go once the rules are in force.
  void let_go(const policy::Attachment& attachment, TimePoint now);
  void note_addresses(const std::string& id, const policy::Attachment& attachment);
  void rest(const IpAddress& address, TimePoint until);
  void refresh_ready(const std::string& id, TimePoint now);
  void answer_waiters(TimePoint now);
  [[nodiscard]] Result<WaitTarget> wait_target(const std::string& text) const;
  [[nodiscard]] bool is_known(const WaitTarget& target) const;
  [[nodiscard]] bool is_ready_now(const WaitTarget& target) const;
  [[nodiscard]] std::string why_not_ready(const ReadyWaiter& waiter) const;
  [[nodiscard]] policy::Touched touched_by(const std::string& id) const;
  [[nodiscard]] policy::Touched touched_by(const policy::Outcome& outcome) const;
  [[nodiscard]] LinkPlan link_plan(const std::string& id, const policy::Attachment& a) const;
  void emit(mesh::v1::Event::Kind::Value kind, std::string id, std::string detail = {});

  policy::World world_;
  policy::Compiler compiler_;
  Store& store_;
  Kernel& kernel_;
  Names& names_;
  EventSink sink_;
  const NodeOptions options_;
  policy::Quarantine quarantine_;
  std::optional<TimePoint> sweep_at_;  // when some of it has rested
  IdleNames idle_names_;
  TimePoint idle_not_before_{};  // after a failure
  NodeGenerations generations_;

  EraseRequest pending_erase_;
  bool outlived_erased_ = false;  // what an earlier process did not come to erase
  NameChanges pending_names_;
  std::vector<std::string> pending_disconnects_;  // host link names
  std::deque<Waiting> waiting_;                   // the soonest first
  std::map<std::string, LeftNetns> left_netns_;
  std::map<IpAddress, std::string> ids_;  // of attached workloads, by address
  std::vector<ReadyWaiter> ready_waiters_;

  std::vector<StoreChange> unstored_;  // done, in order
  std::optional<TimePoint> store_again_at_;
  std::string store_trouble_;
  std::string behind_;  // why the kernel is behind the plan
  std::optional<TimePoint> retry_at_;
  TimePoint drift_not_before_{};
  std::optional<TimePoint> drift_at_;  // a comparison that came too soon
  Duration retry_after_ = kRetryFirst;
  std::map<std::string, std::vector<std::string>> problems_;  // by workload id
  std::uint64_t repairs_ = 0;
  std::uint32_t mtu_ = 1500;
  std::uint64_t last_index_ = 0;  // of the address given out last
  std::unique_ptr<ClusterPart> cluster_;
};

}  // namespace meshd
