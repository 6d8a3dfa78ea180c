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
// Errors:    kInvalid, kNotFound, kConflict, kExhausted to the caller at once; kNotInForce
//            when what was stored could not be brought in force within kInForceLimit.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "meshd/api.h"
#include "meshd/kernel.h"
#include "meshd/names.h"
#include "meshd/store.h"
#include "policy/allocate.h"
#include "policy/changes.h"
#include "policy/explain.h"
#include "policy/plan.h"

namespace meshd {

// How long a command waits for the kernel before it is answered "stored, not in force".
inline constexpr auto kInForceLimit = std::chrono::seconds(5);
// An address is not given out again this long after its last use: clients' caches (our
// TTL is 5 s, but libraries keep answers longer) and half-dead connections fade meanwhile.
inline constexpr auto kQuarantine = std::chrono::seconds(60);
// Between attempts while the kernel refuses; doubled each time up to the second.
inline constexpr auto kRetryFirst = std::chrono::milliseconds(50);
inline constexpr auto kRetryLast = std::chrono::seconds(5);

struct AttachSpec {
  std::string id;
  int netns_fd = -1;  // borrowed for the call
  policy::Netns netns;
  std::string netns_path, ifname;
  bool default_route = true;
  bool prepared = false;
};

struct NodeGenerations {
  std::uint64_t stored = 0, planned = 0, installed = 0, named = 0;
};

class Node {
 public:
  using EventSink = std::function<void(mesh::v1::Event)>;

  Node(policy::Settings settings, Store& store, Kernel& kernel, Names& names, EventSink sink);

  // Reads the store, compiles, and publishes the names of the stored generation: the
  // kernel still has their rules. Nothing is written to the kernel yet.
  [[nodiscard]] Status load(TimePoint now);
  // The node's own facts changed (its addresses): everything is compiled anew.
  void set_settings(policy::Settings settings, TimePoint now);
  // Makes links and table equal to the plan; attachments whose link is gone are detached.
  [[nodiscard]] Status converge(TimePoint now);

  void apply(std::vector<policy::Declaration> declarations, TimePoint now,
             Reply<mesh::v1::ApplyReply> reply);
  [[nodiscard]] Result<std::vector<policy::Change>> plan(
      std::vector<policy::Declaration> declarations, TimePoint now);
  void attach(const AttachSpec& spec, TimePoint now, Reply<policy::Attachment> reply);
  void detach(const std::string& id, TimePoint now, Reply<mesh::v1::DetachReply> reply);
  void drain(const std::string& id, TimePoint now, Reply<mesh::v1::Empty> reply);
  void remove(const std::string& id, bool force, TimePoint now, Reply<mesh::v1::Empty> reply);
  void release_name(const std::string& name, TimePoint now, Reply<mesh::v1::Empty> reply);
  void wait(const std::string& target, std::chrono::milliseconds limit, TimePoint now,
            Reply<mesh::v1::WaitReply> reply);

  // Events.
  void on_listening(const std::string& id,
                    const std::map<std::uint16_t, policy::FamilyReady>& ready,
                    std::vector<std::string> problems, TimePoint now);
  void on_link_gone(const std::string& host_ifname, TimePoint now);
  void on_drift(TimePoint now);  // something foreign changed what is ours, or may have
  void on_audit(TimePoint now);  // links, routes and the like: no event tells of all changes
  void on_timer(TimePoint now);
  // When on_timer() wants to be called next.
  [[nodiscard]] std::optional<TimePoint> next_timer() const;

  [[nodiscard]] const policy::World& world() const { return world_; }
  [[nodiscard]] const policy::Compiler& compiler() const { return compiler_; }
  [[nodiscard]] const NodeGenerations& generations() const { return generations_; }
  [[nodiscard]] const std::map<std::string, std::vector<std::string>>& problems() const {
    return problems_;
  }
  [[nodiscard]] const std::string& behind() const { return behind_; }  // empty: in force
  [[nodiscard]] std::uint64_t repairs() const { return repairs_; }
  [[nodiscard]] std::vector<LinkPlan> links() const;
  // A change that nobody waited for and the store did not take; empty: none.
  [[nodiscard]] const std::string& store_trouble() const { return store_trouble_; }
  [[nodiscard]] std::string id_at(const IpAddress& address) const;  // empty: nobody's
  [[nodiscard]] Result<policy::Explanation> explain(std::string_view source,
                                                    std::string_view destination, Proto proto,
                                                    std::uint16_t port, TimePoint now);
  [[nodiscard]] std::uint32_t mtu() const { return mtu_; }
  void set_mtu(std::uint32_t mtu) { mtu_ = mtu; }

 private:
  struct Waiting {  // a command whose change is stored
    TimePoint deadline;
    std::move_only_function<void(Status)> done;
  };
  struct ReadyWaiter {
    std::string target;
    TimePoint deadline;
    Reply<mesh::v1::WaitReply> reply;
  };

  // Stores `changes` as the next generation.
  [[nodiscard]] Status persist(std::vector<StoreChange> changes);
  void note_store(const Status& status);
  // Refuses a plan that the kernel's sets cannot hold.
  [[nodiscard]] Status check_room() const;
  // Compiles what `touched` names and brings it in force, or falls behind.
  void bring_in_force(const policy::Touched& touched, TimePoint now);
  void bring_in_force(policy::PlanDelta delta, TimePoint now);
  void catch_up(TimePoint now);
  void fall_behind(const Error& error, TimePoint now);
  void installed(TimePoint now);
  void when_in_force(TimePoint now, std::move_only_function<void(Status)> done);
  void answer_empty(TimePoint now, Reply<mesh::v1::Empty> reply);

  [[nodiscard]] Status check_attach(const AttachSpec& spec) const;
  void drop_attachment(const std::string& id, TimePoint now);
  void note_endpoint_lost(const std::optional<policy::ServiceKey>& key, TimePoint now);
  void refresh_ready(const std::string& id, TimePoint now);
  void answer_waiters(TimePoint now);
  [[nodiscard]] std::string why_not_ready(const std::string& target) const;
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
  policy::Quarantine quarantine_;
  NodeGenerations generations_;

  EraseRequest pending_erase_;
  NameChanges pending_names_;
  std::vector<std::string> pending_disconnects_;  // host link names
  std::deque<Waiting> waiting_;
  std::map<std::string, mesh::v1::DetachReply> unheard_detaches_;  // done, answered with an error
  std::vector<ReadyWaiter> ready_waiters_;

  std::string store_trouble_;
  std::string behind_;  // why the kernel is behind the plan
  std::optional<TimePoint> retry_at_;
  Duration retry_after_ = kRetryFirst;
  std::map<std::string, std::vector<std::string>> problems_;  // by workload id
  std::uint64_t repairs_ = 0;
  std::uint32_t mtu_ = 1500;
  std::uint64_t last_index_ = 0;  // of the address given out last
};

}  // namespace meshd
