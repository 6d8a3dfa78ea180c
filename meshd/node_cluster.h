// The part of Node that belongs to a cluster: it speaks with the controller, keeps the node's
// slice and brings it in force, and asks for what only the controller may say.
//
// Threads:   the main loop only.
// Owns:      the slice as it came. Borrows the node, and during a session the link.
// Invariant: a slice changes the world whole or not at all, and is stored before it is in force;
//            nothing that is in force needs the controller. What a snapshot does not name is
//            swept only when the controller has said that this was all of it.
// Errors:    a slice is refused with one line; a command that needs the controller says since
//            when that is away.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "meshd/api.h"
#include "meshd/node_types.h"
#include "meshd/reporter.h"
#include "meshd/slice.h"
#include "policy/types.h"
#include "proto/controller.pb.h"

namespace meshd {

class Node;

// The way to the controller, for as long as a session lasts.
class ClusterLink {
 public:
  virtual ~ClusterLink() = default;
  virtual void send(mesh::v1::FromNode message) = 0;
};

// Containers that wait for their declaration, and commands for the controller's answer.
inline constexpr std::size_t kMaxAsked = 1024;

class ClusterPart {
 public:
  ClusterPart(Node& node, ClusterOptions options);

  // What a session begins with.
  [[nodiscard]] mesh::v1::Hello hello() const;
  // A controller has answered that: what it says comes by on_message() until the session ends.
  void on_connected(ClusterLink& link, TimePoint now);
  void on_disconnected(const std::string& why, TimePoint now);
  void on_message(const mesh::v1::ToNode& message, TimePoint now);
  // Whether this node may become one of another cluster.
  [[nodiscard]] Status may_move() const;
  // Said in a session that has been accepted only.
  [[nodiscard]] bool is_connected() const { return link_ != nullptr && welcome_; }
  void tell_refused(mesh::v1::RefusedFlows flows);
  // Until when somebody looks at the controller's page, and wants to see what passes.
  [[nodiscard]] TimePoint looked_until() const { return looked_until_; }
  void tell_traffic(mesh::v1::Traffic traffic);
  // Sessions so far; slices that came in force, and that were refused.
  [[nodiscard]] std::uint64_t sessions() const { return session_count_; }
  [[nodiscard]] std::uint64_t slices_applied() const { return slices_applied_; }
  [[nodiscard]] std::uint64_t slices_refused() const { return slices_refused_; }
  // What stands in the way of a session; empty: nothing any more.
  void on_problem(const std::string& why);
  // Answers with the revision once it is in force.
  void on_slice(const mesh::v1::SliceChange& change, TimePoint now, Reply<std::uint64_t> reply);

  [[nodiscard]] const std::optional<ClusterTerms>& terms() const { return terms_; }
  [[nodiscard]] std::uint64_t revision() const { return revision_; }
  [[nodiscard]] std::uint64_t hash() const { return slice_hash(slice_); }
  [[nodiscard]] std::uint64_t reported() const { return reporter_.reported(); }
  // "connected to c1", "away since 2026-01-31T09:30:00Z".
  [[nodiscard]] std::string text() const;
  // Why this node takes no part, for `status`; empty: it does.
  [[nodiscard]] const std::string& trouble() const { return trouble_; }
  // Of workloads, by id: node ports that somebody else has, reports that were not believed.
  [[nodiscard]] std::map<std::string, std::vector<std::string>> problems() const;

  // --- of Node alone -----------------------------------------------------------------
  void load(StoredState& stored);
  [[nodiscard]] policy::Settings overlay(policy::Settings settings) const;
  // Whether the controller says what is declared here: not on a node that was used by itself.
  [[nodiscard]] bool governs() const;
  [[nodiscard]] bool must_ask(const std::string& id) const;
  // Of whom nobody declared on a node that is to join and does not govern yet.
  [[nodiscard]] Error not_joined(const std::string& id) const;
  void await(const AttachSpec& spec, TimePoint now, Reply<policy::Attachment> reply);
  void declare(const std::vector<policy::Declaration>& declarations, TimePoint now,
               Reply<mesh::v1::ApplyReply> reply, TimePoint by);
  void remove(const std::string& id, bool force, TimePoint now, Reply<mesh::v1::DetachReply> reply);
  void release(const std::string& name, TimePoint now, Reply<mesh::v1::Empty> reply);
  // Confirmations of what `compiled` touches that say nothing any more.
  void prune(Compiled& compiled);
  void take_back(const Compiled& compiled);
  void note(const std::set<std::string>& ids) { reporter_.note(ids); }
  void note_all() { reporter_.note_all(); }
  void on_installed();
  void give_up(std::string_view why);
  void on_timer(TimePoint now);
  [[nodiscard]] std::optional<TimePoint> next_timer() const;

 private:
  friend class SliceChangeover;
  struct Awaited {  // an attach
    AttachSpec spec;
    UniqueFd netns;
    TimePoint since, deadline;
    Reply<policy::Attachment> reply;
    bool unknown = false;  // says the controller, for now
  };
  struct Asked {       // of the controller
    std::string what;  // "apply"
    TimePoint deadline;
    std::optional<std::uint64_t> revision;  // answered: done once that is in force
    std::move_only_function<void(Status)> done;
  };

  void on_welcome(const mesh::v1::Welcome& welcome, TimePoint now);
  [[nodiscard]] Status join(const ClusterTerms& terms, TimePoint now);
  [[nodiscard]] std::size_t attached() const;
  [[nodiscard]] Status check_join(const ClusterTerms& terms) const;
  [[nodiscard]] Status take_terms(const ClusterTerms& terms, TimePoint now);
  [[nodiscard]] Status take_loose_terms(const ClusterTerms& terms, TimePoint now);
  [[nodiscard]] Status take(SliceUpdate update, TimePoint now);
  void on_in_sync(const mesh::v1::InSync& in_sync, TimePoint now);
  void on_started(const mesh::v1::StartedReply& started);
  void on_declared(const mesh::v1::DeclareReply& declared);
  void on_report_taken(const mesh::v1::ReportTaken& taken);
  void on_look(const mesh::v1::Look& look, TimePoint now);
  void answer_slice(std::uint64_t revision, Result<std::uint64_t> outcome);
  void in_force(std::uint64_t revision);
  void serve_awaited(TimePoint now);
  void ask(mesh::v1::Declare request, Asked asked);
  void send(mesh::v1::FromNode message);
  void send_started(std::uint64_t call, const std::string& id);
  [[nodiscard]] Error away(const std::string& what) const;
  [[nodiscard]] std::string wall_now() const;

  Node& node_;
  const ClusterOptions options_;
  std::optional<ClusterTerms> terms_;  // absent: not joined
  SliceBytes slice_;
  std::uint64_t revision_ = 0;
  std::set<std::string> own_;  // workloads assigned to this node
  std::map<std::string, std::vector<std::string>> port_problems_;  // by id
  std::optional<std::set<SliceKey>> named_;                        // by the snapshot that is coming

  ClusterLink* link_ = nullptr;
  std::uint64_t session_ = 0;
  bool welcome_ = false;  // in this session, and accepted
  bool may_declare_ = false;
  std::string controller_, trouble_, why_away_;
  std::string why_refused_;                       // the slice, last
  std::optional<mesh::v1::Welcome> turned_down_;  // because of the trouble
  std::string away_since_;
  std::uint64_t in_force_ = 0;  // revision, of this session
  TimePoint looked_until_{};    // likewise
  bool told_traffic_ = false;   // and there was some
  Reporter reporter_;
  std::map<std::uint64_t, Awaited> awaited_;  // by call
  std::map<std::uint64_t, Asked> asked_;
  std::uint64_t last_call_ = 0;
  std::uint64_t session_count_ = 0, slices_applied_ = 0, slices_refused_ = 0;
};

// Absent: it goes.
void set_confirmed(policy::World& world, const std::string& consumer, const std::string& provider,
                   const std::optional<policy::Confirmation>& said);
// What of a confirmation holds in this world; nothing: it says nothing any more.
[[nodiscard]] std::optional<policy::Confirmation> still_confirmed(const policy::World& world,
                                                                  const std::string& consumer,
                                                                  const std::string& provider,
                                                                  const policy::Confirmation& said);

}  // namespace meshd
