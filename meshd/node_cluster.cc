// A node's session with the controller. How a slice comes in force: slice_changeover.cc.
#include "meshd/node_cluster.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "meshd/node.h"
#include "meshd/refusals.h"
#include "meshd/report.h"
#include "meshd/traffic.h"
#include "policy/from_proto.h"
#include "policy/truth.h"

namespace meshd {

namespace pb = mesh::v1;

namespace {

constexpr std::uint32_t kProtocol = 1;

// Of gRPC's numbers.
ErrorCode code_of(std::uint32_t grpc) {
  switch (grpc) {
    case 3:
      return ErrorCode::kInvalid;
    case 5:
      return ErrorCode::kNotFound;
    case 8:
      return ErrorCode::kExhausted;
    case 9:
      return ErrorCode::kConflict;
    case 14:
      return ErrorCode::kNotInForce;  // as far as this node knows
    default:
      return ErrorCode::kInternal;
  }
}

// Out of the map, in order: an answer may ask for something itself.
template <class Call, class Is>
std::vector<Call> take_if(std::map<std::uint64_t, Call>& calls, Is is_it) {
  std::vector<Call> taken;
  for (auto at = calls.begin(); at != calls.end();) {
    if (!is_it(std::as_const(at->second))) {
      ++at;
      continue;
    }
    taken.push_back(std::move(at->second));
    at = calls.erase(at);
  }
  return taken;
}

}  // namespace

ClusterPart::ClusterPart(Node& node, ClusterOptions options)
    : node_(node), options_(std::move(options)), away_since_(wall_now()) {}

std::string ClusterPart::wall_now() const { return rfc3339(node_.options_.wall_clock()); }

std::string ClusterPart::text() const {
  if (link_ != nullptr && welcome_) return "connected to " + controller_;
  if (link_ != nullptr && !trouble_.empty()) return "not joined: " + trouble_;
  auto text = "away since " + away_since_;
  if (!why_away_.empty()) text += ": " + why_away_;
  return text;
}

Error ClusterPart::away(const std::string& what) const {
  return {ErrorCode::kNotInForce, fmt::format("{}: the controller is {}", what, text())};
}

void ClusterPart::send(pb::FromNode message) { link_->send(std::move(message)); }

// --- sessions ------------------------------------------------------------------------

pb::Hello ClusterPart::hello() const {
  pb::Hello hello;
  hello.set_protocol(kProtocol);
  hello.set_version(options_.version);
  hello.set_boot_id(node_.store_.boot_id());
  hello.set_revision(revision_);
  hello.set_slice_hash(hash());
  for (const auto& address : options_.underlay) hello.add_underlay(address.to_string());
  hello.set_gateway(options_.gateway);
  if (!options_.gateway) return hello;
  for (const auto& address : node_.world_.settings.publish_addresses) {
    hello.add_gateway_addresses(address.to_string());
  }
  return hello;
}

void ClusterPart::on_connected(ClusterLink& link, TimePoint now) {
  node_.world_.now = now;
  link_ = &link;
  ++session_;
  ++session_count_;
  welcome_ = false;
  named_.reset();
  in_force_ = 0;
  looked_until_ = {};
  told_traffic_ = false;
  why_away_.clear();
  turned_down_.reset();
}

void ClusterPart::on_disconnected(const std::string& why, TimePoint now) {
  node_.world_.now = now;
  if (link_ == nullptr) return;
  link_ = nullptr;
  ++session_;
  welcome_ = false;
  named_.reset();
  away_since_ = wall_now();
  why_away_ = why;
  // An attach waits on: the controller may be back before its time is over. What one has said of
  // it is not the word of the next.
  for (auto& [call, awaited] : awaited_) awaited.unknown = false;
  for (auto& [call, asked] : std::exchange(asked_, {})) {
    const auto done = asked.revision ? "declared, not in force here" : "not known to be declared";
    asked.done(std::unexpected(away(asked.what + ": " + done)));
  }
}

void ClusterPart::on_message(const pb::ToNode& message, TimePoint now) {
  node_.world_.now = now;
  if (link_ == nullptr) return;
  switch (message.kind_case()) {
    case pb::ToNode::kWelcome:
      return on_welcome(message.welcome(), now);
    case pb::ToNode::kSlice: {
      const auto revision = message.slice().revision();
      // It comes again and again: by now the node may be as it has to be.
      if (turned_down_) on_welcome(mesh::v1::Welcome(*turned_down_), now);
      return on_slice(message.slice(), now,
                      [this, revision, session = session_](Result<std::uint64_t> outcome) {
                        if (session == session_) answer_slice(revision, std::move(outcome));
                      });
    }
    case pb::ToNode::kInSync:
      return on_in_sync(message.in_sync(), now);
    case pb::ToNode::kReportTaken:
      return on_report_taken(message.report_taken());
    case pb::ToNode::kStarted:
      return on_started(message.started());
    case pb::ToNode::kDeclare:
      return on_declared(message.declare());
    case pb::ToNode::kLook:
      return on_look(message.look(), now);
    default:
      return;  // of a later controller, which does without an answer
  }
}

void ClusterPart::on_problem(const std::string& why) {
  if (!why.empty() && why != why_away_) {
    node_.emit(pb::Event::Kind::PROBLEM, {}, "controller: " + why);
  }
  why_away_ = why;
}

void ClusterPart::on_report_taken(const pb::ReportTaken& taken) {
  reporter_.taken(taken);
  for (const auto& problem : taken.refused()) {
    node_.emit(pb::Event::Kind::PROBLEM, problem.subject(),
               "the controller does not believe that it is here: it " + problem.detail());
  }
}

void ClusterPart::on_welcome(const pb::Welcome& welcome, TimePoint now) {
  const auto terms = read_terms(welcome);
  const auto status = terms ? join(*terms, now) : Status(std::unexpected(terms.error()));
  if (!status) {
    welcome_ = false;
    if (trouble_ != status.error().what) {
      node_.emit(pb::Event::Kind::PROBLEM, {}, "cluster: " + status.error().what);
    }
    trouble_ = status.error().what;
    turned_down_ = welcome;
    return;
  }
  trouble_.clear();
  turned_down_.reset();
  welcome_ = true;
  controller_ = welcome.controller();
  may_declare_ = welcome.allow_node_declarations();
  reporter_.begin();
  on_installed();
  for (const auto& [call, awaited] : awaited_) send_started(call, awaited.spec.id);
}

void ClusterPart::send_started(std::uint64_t call, const std::string& id) {
  pb::FromNode message;
  message.mutable_started()->set_call(call);
  message.mutable_started()->set_id(id);
  send(std::move(message));
}

// --- slices --------------------------------------------------------------------------

void ClusterPart::answer_slice(std::uint64_t revision, Result<std::uint64_t> outcome) {
  pb::FromNode message;
  ++(outcome ? slices_applied_ : slices_refused_);
  if (outcome) {
    message.mutable_applied()->set_revision(*outcome);
    why_refused_.clear();
  } else {
    // It comes again and again.
    if (std::exchange(why_refused_, outcome.error().what) != outcome.error().what) {
      node_.emit(pb::Event::Kind::PROBLEM, {}, "slice refused: " + outcome.error().what);
    }
    named_.reset();  // all of it comes again
    message.mutable_refused()->set_revision(revision);
    message.mutable_refused()->set_reason(outcome.error().what);
  }
  send(std::move(message));
  if (outcome) in_force(*outcome);
}

void ClusterPart::in_force(std::uint64_t revision) {
  in_force_ = std::max(in_force_, revision);
  auto answered = take_if(
      asked_, [&](const Asked& asked) { return asked.revision && *asked.revision <= in_force_; });
  // What came with it may wait for the kernel.
  for (auto& asked : answered) {
    node_.when_in_force(node_.world_.now, std::move(asked.done), asked.deadline);
  }
}

void ClusterPart::on_in_sync(const pb::InSync& in_sync, TimePoint now) {
  in_force_ = std::max(in_force_, std::min(in_sync.revision(), revision_));
  // A part of the snapshot was refused: all of it comes again.
  if (!named_ || !welcome_ || in_sync.revision() != revision_) return;
  SliceUpdate sweep;
  sweep.revision = revision_;
  for (const auto& [key, value] : slice_) {
    if (!named_->contains(key)) sweep.gone.push_back(key);
  }
  named_.reset();
  auto status = sweep.gone.empty() ? Status() : take(std::move(sweep), now);
  if (status && hash() != in_sync.slice_hash()) {
    status = fail(ErrorCode::kInternal, "the slice came to another hash");
  }
  if (!status) answer_slice(in_sync.revision(), std::unexpected(status.error()));
}

// --- attaching what is not here yet --------------------------------------------------

bool ClusterPart::governs() const { return terms_ || node_.world_.workloads.empty(); }

bool ClusterPart::must_ask(const std::string& id) const { return governs() && !own_.contains(id); }

Error ClusterPart::not_joined(const std::string& id) const {
  return {ErrorCode::kNotInForce,
          fmt::format("attach {}: what a cluster has declared is not known here (controller: {})",
                      id, text())};
}

void ClusterPart::await(const AttachSpec& spec, TimePoint now, Reply<policy::Attachment> reply) {
  if (awaited_.size() >= kMaxAsked) {
    return reply(fail(ErrorCode::kExhausted,
                      fmt::format("attach {}: {} others wait for their declaration already",
                                  spec.id, awaited_.size())));
  }
  Awaited awaited{
      spec, {}, now, std::min(spec.deadline, now + options_.declaration_limit), std::move(reply)};
  if (spec.netns_fd >= 0) {
    awaited.netns = UniqueFd(fcntl(spec.netns_fd, F_DUPFD_CLOEXEC, 0));
    if (!awaited.netns) {
      return awaited.reply(fail_errno("attach " + spec.id + ": keep the namespace", errno));
    }
  }
  awaited.spec.netns_fd = awaited.netns.get();
  const auto call = ++last_call_;
  awaited_.emplace(call, std::move(awaited));
  if (welcome_) send_started(call, spec.id);
}

void ClusterPart::on_started(const pb::StartedReply& started) {
  const auto found = awaited_.find(started.call());
  // Without an error the slice with the declaration comes, or came: that counts.
  if (found == awaited_.end()) return;
  found->second.unknown = started.unknown();
  if (started.error().empty()) return;
  auto reply = std::move(found->second.reply);
  awaited_.erase(found);
  reply(fail(ErrorCode::kConflict, started.error()));
}

void ClusterPart::serve_awaited(TimePoint now) {
  auto here =
      take_if(awaited_, [&](const Awaited& awaited) { return own_.contains(awaited.spec.id); });
  for (auto& awaited : here) node_.attach(awaited.spec, now, std::move(awaited.reply));
}

// --- declaring -----------------------------------------------------------------------

void ClusterPart::ask(pb::Declare request, Asked asked) {
  if (!welcome_) return asked.done(std::unexpected(away(asked.what)));
  if (!may_declare_) {
    return asked.done(fail(ErrorCode::kConflict, asked.what +
                                                     ": nodes of this cluster do not declare "
                                                     "(allow_node_declarations)"));
  }
  if (asked_.size() >= kMaxAsked) {
    return asked.done(fail(ErrorCode::kExhausted, asked.what + ": too many wait already"));
  }
  const auto call = ++last_call_;
  request.set_call(call);
  asked_.emplace(call, std::move(asked));
  pb::FromNode message;
  *message.mutable_declare() = std::move(request);
  send(std::move(message));
}

void ClusterPart::on_declared(const pb::DeclareReply& declared) {
  const auto found = asked_.find(declared.call());
  if (found == asked_.end()) return;
  if (!declared.error().empty()) {
    auto done = std::move(found->second.done);
    asked_.erase(found);
    return done(fail(code_of(declared.code()), declared.error()));
  }
  found->second.revision = declared.revision();
  in_force(in_force_);
}

void ClusterPart::declare(const std::vector<policy::Declaration>& declarations, TimePoint now,
                          Reply<pb::ApplyReply> reply, TimePoint by) {
  pb::Declare request;
  for (const auto& declaration : declarations) {
    *request.add_workloads() = policy::to_proto(declaration);
  }
  ask(std::move(request), {"apply",
                           std::min(by, now + options_.declaration_limit),
                           {},
                           [this, reply = std::move(reply)](Status status) mutable {
                             if (!status) return reply(std::unexpected(std::move(status).error()));
                             pb::ApplyReply answer;
                             answer.set_generation(node_.generations_.installed);
                             reply(std::move(answer));
                           }});
}

void ClusterPart::remove(const std::string& id, bool force, TimePoint now,
                         Reply<pb::DetachReply> reply) {
  const auto found = node_.world_.workloads.find(id);
  const bool attached = found != node_.world_.workloads.end() && found->second.attachment;
  if (attached && !force) {
    return reply(fail(ErrorCode::kConflict,
                      "delete " + id + ": it is attached; detach it first, or use --force"));
  }
  auto answer = attached ? detach_reply(*found->second.attachment) : node_.left_netns(id);
  pb::Declare request;
  request.set_forget(id);
  ask(std::move(request),
      {"delete " + id,
       now + options_.declaration_limit,
       {},
       [answer = std::move(answer), reply = std::move(reply)](Status status) mutable {
         if (!status) return reply(std::unexpected(std::move(status).error()));
         reply(std::move(answer));
       }});
}

void ClusterPart::release(const std::string& name, TimePoint now, Reply<pb::Empty> reply) {
  pb::Declare request;
  request.set_release(name);
  ask(std::move(request), {"name release " + name,
                           now + options_.declaration_limit,
                           {},
                           [reply = std::move(reply)](Status status) mutable {
                             if (!status) return reply(std::unexpected(std::move(status).error()));
                             reply(pb::Empty{});
                           }});
}

// --- reports and time ----------------------------------------------------------------

void ClusterPart::on_installed() {
  if (!welcome_ || !node_.behind_.empty()) return;
  auto report = reporter_.next(node_.world_, node_.generations_.installed);
  if (!report) return;
  pb::FromNode message;
  *message.mutable_report() = *std::move(report);
  send(std::move(message));
}

std::map<std::string, std::vector<std::string>> ClusterPart::problems() const {
  auto all = port_problems_;
  for (const auto& id : own_) {
    const auto& workload = node_.world_.workloads.find(id)->second;
    if (!workload.attachment || workload.attachment->default_route) continue;
    if (workload.declaration.egress.empty()) continue;
    all[id].emplace_back("egress: it is attached with --no-default-route");
  }
  for (const auto& [id, why] : reporter_.refused()) {
    all[id].push_back("the controller does not believe that it is here: it " + why);
  }
  return all;
}

void ClusterPart::tell_refused(pb::RefusedFlows flows) {
  if (flows.flows().empty()) return;
  pb::FromNode message;
  *message.mutable_refused_flows() = std::move(flows);
  send(std::move(message));
}

void ClusterPart::on_look(const pb::Look& look, TimePoint now) {
  looked_until_ = now + std::min<Duration>(std::chrono::seconds(look.for_s()), kMaxLook);
}

// That nothing passes any more is said once.
void ClusterPart::tell_traffic(pb::Traffic traffic) {
  const bool any = !traffic.flows().empty();
  if (!std::exchange(told_traffic_, any) && !any) return;
  pb::FromNode message;
  *message.mutable_traffic() = std::move(traffic);
  send(std::move(message));
}

void ClusterPart::give_up(std::string_view why) {
  for (auto& [call, awaited] : std::exchange(awaited_, {})) {
    awaited.reply(fail(ErrorCode::kNotInForce, fmt::format("attach {}: {}", awaited.spec.id, why)));
  }
  for (auto& [call, asked] : std::exchange(asked_, {})) {
    asked.done(fail(ErrorCode::kNotInForce, fmt::format("{}: {}", asked.what, why)));
  }
}

void ClusterPart::on_timer(TimePoint now) {
  const auto is_late = [&](const auto& call) { return call.deadline <= now; };
  for (auto& awaited : take_if(awaited_, is_late)) {
    const auto waited =
        std::chrono::round<std::chrono::seconds>(std::min(awaited.deadline, now) - awaited.since);
    // That there is none is for the controller to say: one that is away, or has had no answer
    // itself, has not.
    const bool is_nobodys = is_connected() && awaited.unknown;
    awaited.reply(fail(is_nobodys ? ErrorCode::kNotFound : ErrorCode::kNotInForce,
                       fmt::format("attach: {}: no declaration arrived within {} s (controller: "
                                   "{})",
                                   awaited.spec.id, waited.count(), text())));
  }
  for (auto& asked : take_if(asked_, is_late)) {
    asked.done(fail(ErrorCode::kNotInForce,
                    asked.what + (asked.revision ? ": declared, not in force here yet"
                                                 : ": the controller does not answer")));
  }
}

std::optional<TimePoint> ClusterPart::next_timer() const {
  std::optional<TimePoint> next;
  for (const auto& [call, awaited] : awaited_) {
    next = std::min(awaited.deadline, next.value_or(awaited.deadline));
  }
  for (const auto& [call, asked] : asked_) {
    next = std::min(asked.deadline, next.value_or(asked.deadline));
  }
  return next;
}

}  // namespace meshd
