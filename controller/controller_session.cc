// What a node says in its session, and what it is answered.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "controller/controller.h"
#include "controller/events.h"
#include "policy/from_proto.h"

namespace meshd::controller {
namespace {

constexpr std::uint32_t kProtocol = 1;
constexpr std::size_t kMaxUnderlay = 16;  // addresses of one node
constexpr std::size_t kMaxBootId = 64;

// gRPC's numbers, which a node passes on to its own client.
std::uint32_t grpc_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
      return 3;
    case ErrorCode::kNotFound:
      return 5;
    case ErrorCode::kConflict:
      return 9;
    case ErrorCode::kExhausted:
      return 8;
    case ErrorCode::kSystem:
      return 14;
    default:
      return 13;
  }
}

// Of an attach that was refused.
bool may_pass(const Error& why) {
  return why.code == ErrorCode::kNotInForce || why.code == ErrorCode::kSystem;
}

template <class Texts>
Result<std::vector<IpAddress>> read_addresses(std::string_view field, const Texts& texts) {
  if (static_cast<std::size_t>(texts.size()) > kMaxUnderlay) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: at most {}", field, kMaxUnderlay));
  }
  std::vector<IpAddress> addresses;
  for (const auto& text : texts) addresses.push_back(TRY(IpAddress::parse(text)));
  return addresses;
}

}  // namespace

void Controller::on_message(const std::string& node, NodeStream& stream,
                            const mesh::v1::FromNode& message, const Moment& now) {
  cluster_.set_now(now.steady);
  ++counts_.messages;
  take_message(node, stream, message, now);
  end_dismissed(now);
  tell_news();
}

void Controller::take_message(const std::string& node, NodeStream& stream,
                              const mesh::v1::FromNode& message, const Moment& now) {
  if (message.has_hello()) return on_hello(node, stream, message.hello(), now);
  const auto found = sessions_.find(node);
  if (found == sessions_.end() || found->second.stream != &stream) {
    log::warning("node {}: speaks before hello", node);
    ++counts_.ended["order"];
    mesh::v1::ToNode farewell;
    farewell.mutable_farewell()->set_reason("hello comes first");
    farewell.mutable_farewell()->set_retry_after_ms(1000);
    stream.send(std::move(farewell));
    return stream.close();
  }
  auto& session = found->second;
  switch (message.kind_case()) {
    case mesh::v1::FromNode::kReport:
      return on_report(node, session, message.report(), now);
    case mesh::v1::FromNode::kApplied:
      return on_applied(node, session, message.applied().revision(), now);
    case mesh::v1::FromNode::kRefused:
      return on_refused(node, session, message.refused(), now);
    case mesh::v1::FromNode::kStarted:
      return on_started(node, session, message.started(), now);
    case mesh::v1::FromNode::kDeclare:
      return on_declare(node, session, message.declare(), now);
    case mesh::v1::FromNode::kRefusedFlows:
      return on_refused_flows(node, session, message.refused_flows(), now);
    case mesh::v1::FromNode::kTraffic: {
      const auto status = looking_.take(cluster_, node, message.traffic(), now.steady);
      if (status) return;
      ++counts_.refused["traffic"];
      return log::warning("node {}: tells of traffic: {}", node, status.error().what);
    }
    default:
      return end(node, "unknown", "a message that this controller does not know", kRetryAfter, now);
  }
}

// Any node could say that it is one, and all nodes would admit it.
GatewayFacts Controller::gateway_facts(const std::string& node, bool says_so,
                                       const std::vector<IpAddress>& addresses) const {
  if (!says_so) return {};
  const auto& named = options_.gateway_nodes;
  if (options_.gateway_ports.first != 0 && (named.empty() || named.contains(node))) {
    return {true, addresses};
  }
  log::warning("node {}: says that it is a gateway, and gateway.ports and gateway.nodes do not",
               node);
  return {};
}

void Controller::on_hello(const std::string& node, NodeStream& stream, const mesh::v1::Hello& hello,
                          const Moment& now) {
  const auto turn_away = [&](std::string_view what, const std::string& why) {
    log::warning("node {}: turned away: {}", node, why);
    ++counts_.ended[std::string(what)];
    mesh::v1::ToNode message;
    message.mutable_farewell()->set_reason(why);
    message.mutable_farewell()->set_retry_after_ms(1000);
    stream.send(std::move(message));
    stream.close();
  };
  if (const auto other = sessions_.find(node); other != sessions_.end()) {
    if (other->second.stream == &stream)
      return end(node, "order", "hello said twice", kRetryAfter, now);
    return turn_away("name_taken", "a node of this name is connected already");
  }
  if (hello.protocol() != kProtocol) {
    return turn_away("protocol", fmt::format("protocol {} is not spoken here", hello.protocol()));
  }
  if (hello.boot_id().empty() || hello.boot_id().size() > kMaxBootId) {
    return turn_away("hello", "boot_id: 1 to 64 bytes");
  }
  // The same boot is the same node: the other controller has not noticed yet that it is gone.
  const auto known = cluster_.nodes().find(node);
  if (elsewhere_.has(node) && known != cluster_.nodes().end() &&
      known->second.boot_id != hello.boot_id()) {
    return turn_away("name_taken", "a node of this name is connected to another controller");
  }
  const auto underlay = read_addresses("underlay", hello.underlay());
  if (!underlay) return turn_away("hello", underlay.error().what);
  const auto reached = read_addresses("gateway_addresses", hello.gateway_addresses());
  if (!reached) return turn_away("hello", reached.error().what);
  const auto gateway = gateway_facts(node, hello.gateway(), *reached);
  const auto admitted = carry_out(
      [&] { return admit(cluster_, node, hello.boot_id(), *underlay, now, gateway); }, now);
  if (!admitted) {
    const bool away = admitted.error().code == ErrorCode::kSystem;
    return turn_away(away ? "store" : "not_admitted", admitted.error().what);
  }

  auto& session = sessions_[node];
  session.stream = &stream;
  session.status.version = hello.version();
  lost_.erase(node);
  mark(node, false, now);
  log::info("node {}: connected", node);
  ++counts_.sessions;
  tell(make_event(mesh::v1::Event::Kind::NODE_UP, node, node));
  welcome(node, session);
  if (slices_.begin(cluster_, node, hello.revision(), hello.slice_hash())) {
    mesh::v1::ToNode message;
    message.mutable_in_sync()->set_revision(hello.revision());
    message.mutable_in_sync()->set_slice_hash(slices_.hash(node));
    stream.send(std::move(message));
  }
  looking_.connected(node, stream, now.steady);
  note_news(NodeNews::Kind::kTook, node);
  send_ready(now);
}

void Controller::welcome(const std::string& node, Session& session) {
  mesh::v1::ToNode message;
  auto& welcome = *message.mutable_welcome();
  const auto& settings = cluster_.settings();
  welcome.set_cluster(settings.cluster());
  welcome.set_controller(options_.name);
  welcome.set_zone(settings.zone());
  welcome.set_pool4(settings.pool4());
  welcome.set_pool6(settings.pool6());
  welcome.set_vip4(settings.vip4());
  welcome.set_vip6(settings.vip6());
  for (const auto& block : cluster_.nodes().at(node).blocks) {
    (block.family() == Family::kV4 ? welcome.mutable_block4() : welcome.mutable_block6())
        ->assign(block.to_string());
  }
  welcome.set_allow_node_declarations(options_.node_declarations);
  for (const auto& prefix : options_.proxies) welcome.add_proxies(prefix.to_string());
  if (const auto& ports = options_.gateway_ports; ports.first != 0) {
    welcome.set_gateway_ports(fmt::format("{}-{}", ports.first, ports.last));
  }
  session.stream->send(std::move(message));
}

void Controller::on_closed(NodeStream& stream, const Moment& now) {
  const auto found = std::ranges::find_if(
      sessions_, [&](const auto& entry) { return entry.second.stream == &stream; });
  if (found == sessions_.end()) return;
  log::info("node {}: disconnected", found->first);
  lose(std::string(found->first), now);
  tell_news();
}

void Controller::end(const std::string& node, std::string_view word, const std::string& why,
                     Duration retry_after, const Moment& now) {
  log::warning("node {}: session ended: {}", node, why);
  ++counts_.ended[std::string(word)];
  mesh::v1::ToNode message;
  message.mutable_farewell()->set_reason(why);
  message.mutable_farewell()->set_retry_after_ms(static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(retry_after).count()));
  auto& stream = *sessions_.at(node).stream;
  lose(node, now);
  stream.send(std::move(message));
  stream.close();
}

void Controller::lose(const std::string& node, const Moment& now) {
  tell(make_event(mesh::v1::Event::Kind::NODE_DOWN, node, node));
  sessions_.erase(node);
  looking_.lost(node);
  slices_.end(node);
  note_news(NodeNews::Kind::kLost, node);
  if (cluster_.nodes().contains(node)) lost_.insert_or_assign(node, now.steady);
  set_timer(now.steady + options_.stale_after);
}

// --- reports -------------------------------------------------------------------------

void Controller::on_report(const std::string& node, Session& session,
                           const mesh::v1::Report& report, const Moment& now) {
  if (report.number() <= session.last_report) {
    return end(node, "order",
               fmt::format("report {} after {}", report.number(), session.last_report), kRetryAfter,
               now);
  }
  if (session.kept.size() >= kMaxKeptReports) {
    return end(node, "store", "the store has been away for long", std::chrono::seconds(5), now);
  }
  session.last_report = report.number();
  session.kept.push_back(report);
  take_reports(node, session, now);
  send_ready(now);
}

void Controller::take_reports(const std::string& node, Session& session, const Moment& now) {
  while (!session.kept.empty()) {
    const auto& report = session.kept.front();
    Judged judged;
    const auto status = carry_out(
        [&]() -> Result<Writes> {
          judged = controller::report(cluster_, node, report, now);
          return judged.writes;
        },
        now);
    if (!status) {
      log::warning("node {}: report kept: {}", node, status.error().what);
      set_timer(now.steady + kRetryAfter);
      return;
    }
    mesh::v1::ToNode message;
    message.mutable_report_taken()->set_number(report.number());
    for (const auto& [id, why] : judged.refused) {
      log::warning("node {}: reports {}, which {}", node, id, why);
      ++counts_.refused["endpoint"];
      tell(make_event(mesh::v1::Event::Kind::PROBLEM, id, node, why));
      auto& problem = *message.mutable_report_taken()->add_refused();
      problem.set_subject(id);
      problem.set_detail(why);
    }
    session.status.generation = report.generation();
    session.kept.pop_front();
    session.stream->send(std::move(message));
  }
}

// --- slices --------------------------------------------------------------------------

void Controller::on_applied(const std::string& node, Session& session, std::uint64_t revision,
                            const Moment& now) {
  if (!slices_.applied(node, revision)) {
    return end(node, "revision",
               fmt::format("answers revision {}, which is not on its way", revision), kRetryAfter,
               now);
  }
  ++counts_.slices_applied;
  session.status.trouble.clear();
  note_news(NodeNews::Kind::kHolds, node);
  send_ready(now);
}

void Controller::on_refused(const std::string& node, Session& session,
                            const mesh::v1::Refused& refused, const Moment& now) {
  if (!slices_.refused(cluster_, node, refused.revision())) {
    return end(node, "revision",
               fmt::format("answers revision {}, which is not on its way", refused.revision()),
               kRetryAfter, now);
  }
  ++counts_.slices_refused;
  log::warning("node {}: refuses its slice: {}", node, refused.reason());
  if (session.status.trouble != refused.reason()) {
    tell(make_event(mesh::v1::Event::Kind::PROBLEM, node, node,
                    "refuses its slice: " + refused.reason()));
  }
  session.status.trouble = refused.reason();
  session.retry_at = now.steady + kRetryAfter;
  set_timer(*session.retry_at);
}

void Controller::send_ready(const Moment& now) {
  // One that was lost by what another was sent is not in it any more.
  for (const auto& node : slices_.take_ready(now.steady)) send_next(node, now);
  if (const auto news = slices_.next_news()) set_timer(*news);
}

void Controller::send_next(const std::string& node, const Moment& now) {
  const auto found = sessions_.find(node);
  if (found == sessions_.end() || found->second.retry_at) return;
  auto next = slices_.take(cluster_, node, now.steady);
  if (!next) return;
  const auto revision = next->change.revision();
  mesh::v1::ToNode message;
  *message.mutable_slice() = std::move(next->change);
  found->second.stream->send(std::move(message));
  ++counts_.slices_sent;
  if (!next->in_sync) return;
  mesh::v1::ToNode mark;
  mark.mutable_in_sync()->set_revision(revision);
  mark.mutable_in_sync()->set_slice_hash(slices_.hash(node));
  found->second.stream->send(std::move(mark));
}

// --- what is asked for on a node -----------------------------------------------------

void Controller::on_started(const std::string& node, Session& session,
                            const mesh::v1::Started& started, const Moment& now) {
  if (session.awaited.size() >= kMaxAwaited) {
    return end(node, "overload", "too many containers wait for their declaration", kRetryAfter,
               now);
  }
  session.awaited.insert_or_assign(started.id(),
                                   Awaited{started.call(), now.steady + kAwaitLimit, {}});
  awaiting_.insert(node);
  answer_awaited(now);
  if (cluster_.declaration(started.id()) == nullptr) {
    // Who else might know it is asked, and says it then.
    if (wait_sink_) {
      wait_sink_(started.id());
    } else {
      say_unknown(started.id(), now);
    }
  }
  send_ready(now);
}

// It stays awaited: who declares it may be late. Another controller may have stored it a moment
// ago: who cannot read the store does not know.
void Controller::say_unknown(const std::string& id, const Moment& now) {
  if (!keep_up(now) || cluster_.declaration(id) != nullptr) return;
  for (const auto& node : awaiting_) {
    const auto session = sessions_.find(node);
    if (session == sessions_.end()) continue;
    const auto awaited = session->second.awaited.find(id);
    if (awaited == session->second.awaited.end()) continue;
    mesh::v1::ToNode message;
    message.mutable_started()->set_call(awaited->second.call);
    message.mutable_started()->set_unknown(true);
    session->second.stream->send(std::move(message));
  }
}

// Those whose declaration is there now, and nothing in the way that may pass. The slice with it
// goes before or after the answer: the node waits for both.
void Controller::answer_awaited(const Moment& now) {
  struct Answer {
    std::string node, id;
    Awaited awaited;
  };
  std::vector<Answer> answers;  // first all of them: to carry one out may come here again
  for (auto at = awaiting_.begin(); at != awaiting_.end();) {
    const auto found = sessions_.find(*at);
    if (found != sessions_.end()) {
      auto& all = found->second.awaited;
      for (auto entry = all.begin(); entry != all.end();) {
        if (cluster_.declaration(entry->first) == nullptr) {
          ++entry;
          continue;
        }
        answers.push_back({*at, entry->first, entry->second});
        entry = all.erase(entry);
      }
    }
    const bool none = found == sessions_.end() || found->second.awaited.empty();
    at = none ? awaiting_.erase(at) : std::next(at);
  }
  for (auto& [node, id, awaited] : answers) {
    const auto status = carry_out([&] { return start(cluster_, node, id); }, now);
    const auto session = sessions_.find(node);
    if (session == sessions_.end()) continue;
    if (!status && may_pass(status.error())) {
      if (!awaited.refused_at) awaited.refused_at = now.steady + kMoveLimit;
      if (now.steady < *awaited.refused_at) {
        set_timer(std::min(*awaited.refused_at, now.steady + kRetryAfter));
        session->second.awaited.try_emplace(id, awaited);
        awaiting_.insert(node);
        continue;
      }
    }
    mesh::v1::ToNode message;
    message.mutable_started()->set_call(awaited.call);
    if (!status) message.mutable_started()->set_error(status.error().what);
    session->second.stream->send(std::move(message));
  }
}

void Controller::on_declare(const std::string& node, Session& session,
                            const mesh::v1::Declare& request, const Moment& now) {
  const Author author{Author::Role::kNode, node};
  const auto carry = [&]() -> Status {
    if (!request.forget().empty()) return forget(author, request.forget(), true, now);
    if (!request.release().empty()) return release(author, request.release(), now);
    std::vector<policy::Declaration> declarations;
    for (const auto& workload : request.workloads()) {
      declarations.push_back(TRY(policy::from_proto(workload)));
    }
    return declare(author, std::move(declarations), node, now);
  };
  const auto status = carry();
  if (!status) {
    log::warning("node {}: declares: {}", node, status.error().what);
    ++counts_.refused["declaration"];
  }
  mesh::v1::ToNode message;
  auto& reply = *message.mutable_declare();
  reply.set_call(request.call());
  reply.set_revision(slices_.revision_with_all(node));
  if (!status) {
    reply.set_error(status.error().what);
    reply.set_code(grpc_code(status.error().code));
  }
  session.stream->send(std::move(message));
}

// --- refused flows -------------------------------------------------------------------

void Controller::on_refused_flows(const std::string& node, Session& session,
                                  const mesh::v1::RefusedFlows& flows, const Moment& now) {
  if (session.refused_at && now.steady - *session.refused_at < kRefusedPause) {
    ++counts_.refused["refused_flows"];
    log::warning("node {}: tells of refused flows too often: left out", node);
    return;
  }
  session.refused_at = now.steady;
  auto taken = refused_.take(cluster_, node, flows, now);
  for (const auto& [what, why] : taken.refused) {
    ++counts_.refused["refused_flows"];
    log::warning("node {}: tells of {}, which {}", node, what, why);
  }
  counts_.refused_flows += taken.events.size();
  for (auto& event : taken.events) tell(std::move(event));
}

}  // namespace meshd::controller
