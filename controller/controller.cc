#include "controller/controller.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "controller/events.h"
#include "controller/outside.h"

namespace meshd::controller {
namespace {

constexpr auto kSweepEvery = std::chrono::seconds(5);

}  // namespace

Result<std::unique_ptr<Controller>> Controller::make(std::unique_ptr<Store> store,
                                                     ControllerOptions options, const Moment& now) {
  std::unique_ptr<Controller> controller(
      new Controller(std::move(store), std::move(options), now.steady));
  CHECK_OK(controller->load(now));
  return controller;
}

Status Controller::load(const Moment& now) {
  const auto stored = TRY(store_->load());
  CHECK_OK(fold(stored.objects, now));
  revision_ = stored.revision;
  // Nobody has been heard of yet: they have as long as those that were just lost, and the time
  // that it takes all of them to come. Whoever came while others are marked would get its whole
  // slice again, and so make them come later still.
  const auto since = now.steady + kComeBack * static_cast<int>(cluster_.nodes().size());
  for (const auto& [name, node] : cluster_.nodes()) lost_.insert_or_assign(name, since);
  set_timer(now.steady + kSweepEvery);
  tell_all(now);
  return {};
}

// --- decide, store, fold -------------------------------------------------------------

Status Controller::carry_out(const Decision& decide, const Moment& now) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    cluster_.set_now(now.steady);
    const auto writes = TRY(decide());
    if (writes.empty()) return {};
    const auto revision = store_->commit(revision_, writes);
    if (revision) {
      ++counts_.commits;
      store_trouble_.clear();
      CHECK_OK(fold(writes, now));
      revision_ = *revision;
      answer_awaited(now);
      return {};
    }
    const bool behind = revision.error().code == ErrorCode::kConflict;
    ++(behind ? counts_.commit_conflicts : counts_.commit_failures);
    if (!behind) {
      store_trouble_ = revision.error().what;
      return std::unexpected(revision.error());
    }
    CHECK_OK(catch_up(now));
  }
  return fail(ErrorCode::kNotInForce, "store: other controllers change it all the time");
}

Status Controller::fold(const Writes& writes, const Moment& now) {
  Touched touched;
  std::map<std::string, Shown> before;
  for (const auto& write : writes) {
    const bool shows =
        write.kind == kind::ObjectKind::DECLARATION || write.kind == kind::ObjectKind::ENDPOINT;
    if (sink_ && shows) before.try_emplace(write.key, shown(cluster_, write.key));
  }
  for (const auto& write : writes) CHECK_OK(cluster_.fold(write, now, touched));
  follow(touched, now);
  for (const auto& [id, was] : before) {
    for (auto& event : events_between(id, was, shown(cluster_, id))) tell(std::move(event));
  }
  return {};
}

// What the cluster's change comes to for sessions and slices.
void Controller::follow(const Touched& touched, const Moment& now) {
  for (const auto& name : touched.nodes) {
    if (cluster_.nodes().contains(name)) {
      if (!sessions_.contains(name)) lost_.try_emplace(name, now.steady);
      continue;
    }
    lost_.erase(name);
    stale_.erase(name);
    if (sessions_.contains(name)) dismissed_.insert(name);
    tell(make_event(mesh::v1::Event::Kind::NODE_GONE, name, name));
  }
  slices_.update(cluster_, touched, stale_);
  if (openings_) openings_->update(cluster_, touched, stale_, now.steady);
  for (const auto& key : touched.services) {
    if (key.scope == policy::Scope::kCluster && !cluster_.world().services.contains(key)) {
      tell(make_event(mesh::v1::Event::Kind::NAME_RELEASED, key.name, {}));
    }
  }
}

Status Controller::catch_up(const Moment& now) {
  auto changes = TRY(store_->changes_since(revision_));
  if (changes) {
    CHECK_OK(fold(changes->writes, now));
    revision_ = changes->revision;
    return {};
  }
  // Too long ago: all of it anew. In which order things went meanwhile cannot be told, so
  // nothing of it is folded into what was: an address may have another owner by now.
  const auto stored = TRY(store_->load());
  Cluster fresh;
  Touched touched;
  for (const auto& object : stored.objects) CHECK_OK(fresh.fold(object, now, touched));
  for (const auto& [id, workload] : cluster_.world().workloads) touched.workloads.insert(id);
  for (const auto& [key, service] : cluster_.world().services) touched.services.insert(key);
  for (const auto use : {OutsideUse::kGateway, OutsideUse::kWeb}) {
    auto& keys = use == OutsideUse::kWeb ? touched.web_ports : touched.outside;
    for (const auto& [key, port] : cluster_.outside(use).given) keys.insert(key);
  }
  for (const auto& [name, node] : cluster_.nodes()) {
    touched.nodes.insert(name);
    const auto& placed = cluster_.placed_on(name);
    touched.workloads.insert(placed.begin(), placed.end());
  }
  cluster_ = std::move(fresh);
  cluster_.set_now(now.steady);
  revision_ = stored.revision;
  follow(touched, now);
  return {};
}

// Whether what the store has is known here.
bool Controller::keep_up(const Moment& now) {
  if (const auto status = catch_up(now); !status) {
    store_trouble_ = status.error().what;
    log::warning("store: {}", status.error().what);
    set_timer(now.steady + kRetryAfter);
    return false;
  }
  store_trouble_.clear();
  answer_awaited(now);
  return true;
}

void Controller::on_store_notified(const Moment& now) {
  const auto heard = store_->hear();
  if (heard.changed) keep_up(now);
  // After the changes that they may speak of. What could not be read now is told again.
  take_news(heard.news, now);
  end_dismissed(now);
  send_ready(now);
  tell_news();
}

// --- commands ------------------------------------------------------------------------

Status Controller::declare(const Author& author, std::vector<policy::Declaration> declarations,
                           const std::string& pinned, const Moment& now, const Launches& launches) {
  const auto status = carry_out(
      [&] {
        return controller::declare(cluster_, author, declarations, pinned,
                                   {options_.node_declarations, options_.arvados}, now, launches);
      },
      now);
  if (status) settle_outside(now);
  send_ready(now);
  return status;
}

Status Controller::forget(const Author& author, const std::string& id, bool force,
                          const Moment& now) {
  const auto status = carry_out(
      [&] {
        return controller::forget(cluster_, author, id, force, now,
                                  {options_.node_declarations, options_.arvados});
      },
      now);
  if (status) settle_outside(now);
  send_ready(now);
  return status;
}

Status Controller::release(const Author& author, const std::string& name, const Moment& now) {
  const auto status =
      carry_out([&] { return controller::release(cluster_, author, name, now); }, now);
  if (status) settle_outside(now);
  send_ready(now);
  return status;
}

Status Controller::dismiss(const std::string& node, const Moment& now) {
  if (!cluster_.nodes().contains(node)) {
    return fail(ErrorCode::kNotFound, fmt::format("node dismiss: no node {}", node));
  }
  if (sessions_.contains(node)) {
    end(node, "dismissed", std::string(kDismissed), kDismissedPause, now);
  }
  const auto status = carry_out(
      [&]() -> Result<Writes> {
        auto writes = controller::dismiss(cluster_, node, now);
        writes.push_back(put_dismissal(node, now));
        return writes;
      },
      now);
  send_ready(now);
  return status;
}

Status Controller::let_in(std::string_view token, const IpAddress& source, const std::string& node,
                          const std::string& key, const Moment& now) {
  if (is_connected(node)) {
    return fail(ErrorCode::kConflict, fmt::format("node {} is connected already", node));
  }
  const pki::UtcTime wall{std::chrono::seconds(now.wall_ms / 1000)};
  return carry_out(
      [&]() -> Result<Writes> {
        auto writes = TRY(spend(cluster_, token, source, node, wall));
        if (auto known = put_enrolled(cluster_, node, key)) writes.push_back(*std::move(known));
        return writes;
      },
      now);
}

Status Controller::put_token(const Token& token, const Moment& now) {
  return carry_out([&]() -> Result<Writes> { return Writes{controller::put_token(token)}; }, now);
}

Status Controller::revoke_token(const std::string& id, const Moment& now) {
  return carry_out(
      [&]() -> Result<Writes> {
        // Looked up in each attempt: another controller may have counted a use meanwhile.
        const auto found = cluster_.tokens().find(id);
        if (found == cluster_.tokens().end()) {
          return fail(ErrorCode::kNotFound, "token revoke: there is none of that id");
        }
        if (found->second.revoked) return Writes();
        auto token = found->second;
        token.revoked = true;
        return Writes{controller::put_token(token)};
      },
      now);
}

Status Controller::open_port(const std::string& id, std::uint16_t port, const std::string& by,
                             const Moment& now) {
  bool is_new = false;
  const auto status = carry_out(
      [&]() -> Result<Writes> {
        auto writes = TRY(controller::open_port(cluster_, id, port, by, now));
        is_new = !writes.empty();
        return writes;
      },
      now);
  note_use(id, port, now.steady);
  // Refused ones are limited: who asks is whoever has a browser.
  if (!status) {
    log::warning("audit {}: {}", by, status.error().what);
  } else if (is_new) {
    log::audit(fmt::format("audit {}: open {} tcp/{}: done", by, id, port));
  }
  send_ready(now);
  return status;
}

void Controller::note_use(const std::string& id, std::uint16_t port, TimePoint now) {
  const policy::PublishKey key{id, Proto::kTcp, port};
  if (cluster_.opened().contains(key)) uses_.insert_or_assign(key, now);
}

// --- time ----------------------------------------------------------------------------

void Controller::on_timer(const Moment& now) {
  timer_.reset();
  cluster_.set_now(now.steady);
  tell_all(now);
  look_after_nodes(now);
  for (auto& [name, session] : sessions_) {
    if (!session.kept.empty()) take_reports(name, session, now);
    if (session.retry_at && *session.retry_at <= now.steady) {
      session.retry_at.reset();
      send_next(name, now);
    }
    std::erase_if(session.awaited,
                  [&](const auto& entry) { return entry.second.until <= now.steady; });
  }
  answer_awaited(now);
  sweep(now);
  if (openings_) openings_->forget_ended(now.steady);
  end_dismissed(now);
  send_ready(now);
  tell_news();
  set_timer(now.steady + kSweepEvery);
}

// What it could not now the next timer will.
void Controller::settle_outside(const Moment& now) {
  // One port is one host's: a site without wildcard names has its own.
  const policy::PortSpan web_ports =
      options_.web && !options_.web->host.empty()
          ? policy::PortSpan{options_.web->first_port, options_.web->last_port}
          : policy::PortSpan();
  const auto settled = carry_out(
      [&]() -> Result<Writes> {
        auto writes =
            controller::settle_outside(cluster_, OutsideUse::kGateway, options_.gateway_ports, now);
        std::ranges::move(controller::settle_outside(cluster_, OutsideUse::kWeb, web_ports, now),
                          std::back_inserter(writes));
        return writes;
      },
      now);
  if (!settled) log::warning("store: {}", settled.error().what);
}

// What was used is stored before what was not is shut.
void Controller::sweep(const Moment& now) {
  settle_outside(now);
  const auto used = carry_out(
      [&]() -> Result<Writes> { return store_uses(cluster_, uses_, options_.open_idle, now); },
      now);
  std::erase_if(uses_, [&](const auto& use) {
    const auto opened = cluster_.opened().find(use.first);
    return opened == cluster_.opened().end() || use.second <= opened->second.used_at;
  });
  const auto swept = !used ? used
                           : carry_out(
                                 [&]() -> Result<Writes> {
                                   auto writes = controller::sweep(cluster_, now);
                                   std::ranges::move(shut_idle(cluster_, options_.open_idle, now),
                                                     std::back_inserter(writes));
                                   return writes;
                                 },
                                 now);
  if (!swept) log::warning("store: {}", swept.error().what);
}

void Controller::look_after_nodes(const Moment& now) {
  for (const auto& [name, since] : elsewhere_.expire(now.steady)) {
    const bool here = sessions_.contains(name) || !cluster_.nodes().contains(name);
    if (!here) lost_.insert_or_assign(name, since);
  }
  if (!elsewhere_.hears(now.steady)) {
    // They may be with another controller, for all that is known.
    for (auto& [name, since] : lost_) since = std::max(since, now.steady);
    return;
  }
  for (const auto& [name, since] : std::map(lost_)) {
    if (now.steady - since >= options_.dismiss_after) {
      log::warning("node {}: not heard of for {} s: its containers and its block are given up",
                   name,
                   std::chrono::duration_cast<std::chrono::seconds>(now.steady - since).count());
      const auto status = carry_out(
          [&]() -> Result<Writes> { return controller::dismiss(cluster_, name, now); }, now);
      if (!status) log::warning("node {}: {}", name, status.error().what);
    } else if (now.steady - since >= options_.stale_after && !stale_.contains(name)) {
      log::warning("node {}: not heard of: its workloads are marked", name);
      tell(make_event(mesh::v1::Event::Kind::NODE_STALE, name, name));
      mark(name, true, now);
    } else {
      set_timer(since + (stale_.contains(name) ? options_.dismiss_after : options_.stale_after));
    }
  }
}

void Controller::mark(const std::string& node, bool stale, const Moment& now) {
  if (stale ? !stale_.insert(node).second : stale_.erase(node) == 0) return;
  Touched touched;
  touched.workloads = cluster_.placed_on(node);
  slices_.update(cluster_, touched, stale_);
  if (openings_) openings_->update(cluster_, touched, stale_, now.steady);
}

// --- other controllers ---------------------------------------------------------------

void Controller::take_news(const std::vector<std::string>& lines, const Moment& now) {
  for (const auto& line : lines) {
    for (const auto& news : elsewhere_.hear(line, now.steady)) {
      const auto& node = news.node;
      if (!cluster_.nodes().contains(node)) continue;
      if (news.kind == NodeNews::Kind::kLost) {
        if (!sessions_.contains(node)) lost_.insert_or_assign(node, now.steady);
        set_timer(now.steady + options_.stale_after);
        continue;
      }
      if (sessions_.contains(node)) {
        // A later one there: what is left here is a connection that has not noticed its end.
        if (news.kind != NodeNews::Kind::kTook) continue;
        end(node, "moved", "connected to another controller since", kRetryAfter, now);
      }
      lost_.erase(node);
      mark(node, false, now);
      if (news.in_force) slices_.heard_in_force(node, *news.in_force);
    }
  }
}

// By another controller, while they are connected here. Not where it is folded: a session is in use
// there.
void Controller::end_dismissed(const Moment& now) {
  for (const auto& node : std::exchange(dismissed_, {})) {
    if (!sessions_.contains(node) || cluster_.nodes().contains(node)) continue;
    if (cluster_.dismissals().contains(node)) {
      end(node, "dismissed", std::string(kDismissed), kDismissedPause, now);
    } else {
      end(node, "given_up", "given up meanwhile", kRetryAfter, now);
    }
  }
}

void Controller::note_news(NodeNews::Kind kind, const std::string& node) {
  if (elsewhere_.shared() && !elsewhere_.alone()) {
    news_.push_back({kind, node, slices_.in_force(node)});
  }
}

// Lost ones are told by the next tell_all().
void Controller::tell_news() {
  if (news_.empty()) return;
  [[maybe_unused]] const auto told = store_->tell(elsewhere_.lines(std::exchange(news_, {})));
}

void Controller::tell_all(const Moment& now) {
  if (!elsewhere_.shared()) return;
  if (now.steady >= tell_all_at_) {
    std::vector<NodeNews> all;
    for (const auto& [name, session] : sessions_) {
      all.push_back({NodeNews::Kind::kHolds, name, slices_.in_force(name)});
    }
    [[maybe_unused]] const auto told = store_->tell(elsewhere_.lines(all));
    tell_all_at_ = now.steady + kNewsEvery;
  }
  set_timer(tell_all_at_);
}

void Controller::set_timer(TimePoint when) { timer_ = timer_ ? std::min(*timer_, when) : when; }

std::vector<NodeStatus> Controller::node_status() const {
  std::vector<NodeStatus> all;
  for (const auto& [name, node] : cluster_.nodes()) {
    const auto session = sessions_.find(name);
    NodeStatus status;
    if (session != sessions_.end()) status = session->second.status;
    status.name = name;
    status.connected = is_connected(name);
    status.stale = stale_.contains(name);
    status.revision = slices_.revision(name);
    all.push_back(std::move(status));
  }
  return all;
}

}  // namespace meshd::controller
