#include "dns/forwarder.h"

#include <algorithm>
#include <array>

#include "dns/answer.h"
#include "dns/limits.h"
#include "dns/random.h"

namespace meshd::dns {
namespace {

constexpr auto kTick = std::chrono::milliseconds(50);

// ::ffff:10.0.0.1 is 10.0.0.1.
UpstreamAddress without_mapping(UpstreamAddress address) {
  static const auto mapped = Prefix::parse("::ffff:0:0/96").value();
  if (mapped.contains(address.address)) {
    address.address = IpAddress::v4(address.address.bytes().subspan<12, 4>());
  }
  return address;
}

}  // namespace

struct Forwarder::Server {
  UpstreamAddress address;
  std::unique_ptr<Upstream> upstream;  // null: the address is our own
  Duration smoothed_rtt{};             // RFC 6298's smoothing; zero: never answered
  int failures = 0;                    // in a row
  Duration retry_after = kFirstRetry;
  TimePoint retry_at{};
  bool leads_back = false;
  TimePoint loop_check_at = TimePoint::max();

  void answered(Duration took) {
    failures = 0;
    retry_after = kFirstRetry;
    smoothed_rtt = smoothed_rtt == Duration{} ? took : (smoothed_rtt * 7 + took) / 8;
  }
  [[nodiscard]] bool healthy() const { return failures < kUnhealthy && !leads_back; }
};

struct Forwarder::Pending {
  std::string key;
  Query query;
  std::vector<Prefix> filtered;
  std::vector<Question> waiters;
  std::vector<UpstreamAddress> tried;
  int under_way = 0;
  TimePoint deadline{}, hedge_at{}, stale_at{};
  std::shared_ptr<const UpstreamReply> stale;
  std::shared_ptr<const UpstreamReply> failure;  // a server's SERVFAIL, if nobody knows better
  bool silent = false, unreachable = false;      // how servers failed
  bool done = false;
};

Forwarder::Forwarder(std::size_t cache_bytes, Upstream::Watch watch, MakeUpstream make,
                     std::shared_ptr<LoopWatch> loops)
    : cache_(cache_bytes),
      watch_(std::move(watch)),
      make_(std::move(make)),
      loops_(std::move(loops)),
      buffer_(kMaxMessage) {}

Forwarder::~Forwarder() = default;

// --- servers -------------------------------------------------------------------------

void Forwarder::set_upstreams(const std::vector<UpstreamAddress>& addresses, TimePoint now) {
  now_ = now;
  std::vector<std::shared_ptr<Server>> next;
  bool same = addresses.size() == servers_.size();
  for (const auto& address : addresses) {
    const auto kept =
        std::ranges::find(servers_, address, [](const auto& s) { return s->address; });
    same = same && kept != servers_.end();
    auto server = kept != servers_.end() ? *kept : make_server(address);
    if (server) next.push_back(std::move(server));
  }
  if (!same) cache_.age_all(now);  // another network's servers may know other names
  ++changes_;
  // The new ones stand in place when the old ones die and hand back what they were asked.
  servers_.swap(next);
}

std::shared_ptr<Forwarder::Server> Forwarder::make_server(const UpstreamAddress& address) {
  auto server = std::make_shared<Server>();
  server->address = address;
  if (std::ranges::find(own_, without_mapping(address)) != own_.end()) {
    server->leads_back = true;
    return server;
  }
  auto upstream = make_(address, watch_);
  if (!upstream) return nullptr;  // out of descriptors: the others serve
  server->upstream = *std::move(upstream);
  look_for_loop(server);
  return server;
}

void Forwarder::look_for_loop(const std::shared_ptr<Server>& server) {
  server->loop_check_at = now_ + kLoopRecheck;  // unless it answers before
  std::array<std::uint8_t, 42> random{};
  random_bytes(random);
  std::uint64_t nonce = 1;
  for (int i = 0; i < 8; ++i) nonce = nonce << 8 | random[static_cast<std::size_t>(i)];
  nonce |= 1;  // never 0
  const auto id = static_cast<std::uint16_t>(random[8] << 8 | random[9]);
  const auto query = upstream_query(loops_->probe(nonce), id, std::span(random).subspan(10));
  server->upstream->ask(query, [this, nonce, weak = std::weak_ptr(server)](Bytes, auto failure) {
    const auto asked = weak.lock();
    if (!asked) return;
    // Whoever knows the question here answers it, so that the answer comes after the finding.
    asked->leads_back = loops_->came_back(nonce);
    ++changes_;
    if (failure == Upstream::Failure::kNone && !asked->leads_back) {
      asked->loop_check_at = TimePoint::max();
    }
  });
}

std::shared_ptr<Forwarder::Server> Forwarder::best(const Pending& pending) const {
  std::shared_ptr<Server> choice;
  const auto rank = [](const Server& server) {
    return std::pair(!server.healthy(), server.smoothed_rtt);
  };
  for (const auto& server : servers_) {
    if (server->leads_back) continue;
    if (std::ranges::find(pending.tried, server->address) != pending.tried.end()) continue;
    if (!choice || rank(*server) < rank(*choice)) choice = server;
  }
  return choice;
}

void Forwarder::count_failure(Server& server) {
  if (++server.failures < kUnhealthy) return;
  if (server.failures == kUnhealthy) ++changes_;
  server.retry_at = now_ + server.retry_after;
  server.retry_after = std::min<Duration>(server.retry_after * 2, kLastRetry);
}

// Beside the one that is asked anyway: no client waits for the trial.
void Forwarder::try_failed_ones(const std::shared_ptr<Pending>& pending, TimePoint now) {
  for (const auto& server : std::vector(servers_)) {
    if (server->upstream && server->loop_check_at <= now) look_for_loop(server);
    if (server->healthy() || server->leads_back || server->retry_at > now || pending->done)
      continue;
    if (std::ranges::find(pending->tried, server->address) != pending->tried.end()) continue;
    server->retry_at = now + server->retry_after;
    ask_server(pending, server, now);
  }
}

std::vector<UpstreamState> Forwarder::states() const {
  std::vector<UpstreamState> result;
  for (const auto& server : servers_) {
    const auto rtt = std::chrono::duration_cast<std::chrono::microseconds>(server->smoothed_rtt);
    result.push_back({server->address, server->healthy(), static_cast<std::uint32_t>(rtt.count()),
                      server->leads_back});
  }
  return result;
}

// --- questions -----------------------------------------------------------------------

std::size_t Forwarder::from_cache(const Query& query, Bytes message, std::size_t limit,
                                  const std::vector<Prefix>& filtered, TimePoint now,
                                  std::span<std::uint8_t> out) {
  now_ = now;
  Cache::write_key(query, key_);
  auto* const kept = cache_.find(key_);
  if (kept == nullptr) return 0;
  const bool fresh = kept->fresh_until > now;
  if (!fresh && (kept->recheck_at <= now || !kept->stale_at(now))) return 0;
  const auto age = std::chrono::duration_cast<std::chrono::seconds>(now - kept->stored_at);
  const auto size = write_reply(*kept->reply, query, message,
                                static_cast<std::uint32_t>(age.count()), !fresh, limit, out);
  if (fresh && ++kept->hits >= kPrefetchHits && !kept->asked_again && !kept->reply->negative &&
      kept->reply->rcode == Rcode::kNoError &&
      (kept->fresh_until - now) * kPrefetchShare < kept->fresh_until - kept->stored_at) {
    ask_again(*kept, query, filtered, now);
  }
  return size;
}

void Forwarder::ask_again(Cache::Entry& entry, const Query& query,
                          const std::vector<Prefix>& filtered, TimePoint now) {
  entry.asked_again = true;
  if (pending_.size() >= kMaxForwards || pending_.contains(entry.key)) return;
  const auto pending = start(entry.key, query, filtered, now);
  if (!ask_next(pending, now)) give_up(pending);
}

bool Forwarder::ask(Question question, const std::vector<Prefix>& filtered, TimePoint now) {
  now_ = now;
  const auto kept =
      from_cache(question.query, question.message, question.limit, filtered, now, buffer_);
  if (kept > 0) {
    question.send(Bytes(buffer_).first(kept));
    return true;
  }
  const auto mine = per_client_.find(question.client);
  if (waiting_ >= kMaxForwards) return false;
  if (mine != per_client_.end() && mine->second >= kMaxForwardsPerClient) return false;
  const auto same = pending_.find(key_);
  if (same != pending_.end() && same->second->waiters.size() >= kMaxWaiters) return false;
  ++per_client_[question.client];
  ++waiting_;
  const auto pending =
      same != pending_.end() ? same->second : start(key_, question.query, filtered, now);
  // Also beside one that was asked ahead of time, when nobody waited.
  const auto* old = cache_.find(key_);
  if (old != nullptr && old->stale_at(now)) pending->stale = old->reply;
  if (same != pending_.end()) {
    pending->waiters.push_back(std::move(question));
    return true;
  }
  pending->waiters.push_back(std::move(question));
  if (!ask_next(pending, now)) {
    give_up(pending);
  } else if (!pending->done) {
    try_failed_ones(pending, now);
  }
  return true;
}

std::shared_ptr<Forwarder::Pending> Forwarder::start(std::string key, const Query& query,
                                                     const std::vector<Prefix>& filtered,
                                                     TimePoint now) {
  if (pending_.empty()) tick_at_ = now + kTick;
  auto pending = std::make_shared<Pending>();
  pending->query = query;
  pending->filtered = filtered;
  pending->deadline = now + kForwardBudget;
  pending->stale_at = now + kStaleAfter;
  pending->key = std::move(key);
  pending_.emplace(pending->key, pending);
  return pending;
}

// False when there is nobody left to ask.
bool Forwarder::ask_next(const std::shared_ptr<Pending>& pending, TimePoint now) {
  const auto server = best(*pending);
  if (!server) return false;
  pending->hedge_at = now + std::max<Duration>(server->smoothed_rtt * 2, kHedgeFloor);
  ask_server(pending, server, now);
  return true;
}

void Forwarder::ask_server(const std::shared_ptr<Pending>& pending,
                           const std::shared_ptr<Server>& server, TimePoint now) {
  pending->tried.push_back(server->address);
  ++pending->under_way;
  std::array<std::uint8_t, 34> random{};
  random_bytes(random);
  const auto id = static_cast<std::uint16_t>(random[0] << 8 | random[1]);
  auto sent = upstream_query(pending->query, id, std::span(random).subspan(2));
  const Bytes bytes(sent);
  server->upstream->ask(bytes,
                        [this, weak = std::weak_ptr(pending), from = std::weak_ptr(server),
                         sent = std::move(sent), now](Bytes reply, Upstream::Failure failure) {
                          on_reply(weak, from, sent, reply, failure, now);
                        });
}

void Forwarder::on_reply(const std::weak_ptr<Pending>& weak, const std::weak_ptr<Server>& from,
                         Bytes sent, Bytes reply, Upstream::Failure failure, TimePoint asked_at) {
  const auto server = from.lock();
  const auto pending = weak.lock();
  const std::vector<Prefix> none;
  auto good = digest(reply, sent, pending ? pending->filtered : none);
  const bool refuses = good && (good->rcode == Rcode::kRefused || good->rcode == Rcode::kNotImp);
  if (server && (reply.empty() || refuses)) {
    count_failure(*server);
  } else if (server) {
    if (!server->healthy()) ++changes_;
    server->answered(now_ - asked_at);
  }
  if (!pending || pending->done) return;
  --pending->under_way;
  if (failure == Upstream::Failure::kSilent) pending->silent = true;
  if (failure == Upstream::Failure::kUnreachable) pending->unreachable = true;
  if (good) {
    auto shared = std::make_shared<const UpstreamReply>(*std::move(good));
    if (shared->rcode == Rcode::kNoError || shared->rcode == Rcode::kNxDomain) {
      cache_.store(pending->key, shared, now_);
      return finish(pending, *shared);
    }
    pending->failure = std::move(shared);
  }
  // One that is only tried again says nothing about those that are asked in earnest.
  if (pending->under_way > 0 && server && !server->healthy()) return;
  if (ask_next(pending, now_) || pending->under_way > 0) return;
  give_up(pending);
}

// --- endings -------------------------------------------------------------------------

void Forwarder::finish(const std::shared_ptr<Pending>& pending, const UpstreamReply& reply) {
  pending->done = true;
  for (const auto& waiter : pending->waiters) {
    const auto size =
        write_reply(reply, waiter.query, waiter.message, 0, false, waiter.limit, buffer_);
    if (size > 0) waiter.send(Bytes(buffer_).first(size));
  }
  forget(pending);
}

// The question goes on without anybody waiting: what comes later is kept (RFC 8767 section 5).
void Forwarder::answer_stale(const std::shared_ptr<Pending>& pending) {
  if (auto* entry = cache_.find(pending->key)) entry->recheck_at = now_ + kStaleRecheck;
  const auto stale = std::exchange(pending->stale, nullptr);
  for (const auto& waiter : pending->waiters) {
    const auto size =
        write_reply(*stale, waiter.query, waiter.message, 0, true, waiter.limit, buffer_);
    if (size > 0) waiter.send(Bytes(buffer_).first(size));
  }
  let_go(*pending);
}

std::string_view Forwarder::why_none(const Pending& pending) const {
  if (servers_.empty()) return "no upstream resolver is configured";
  if (pending.tried.empty()) return "the upstream resolvers lead back to this one";
  if (pending.unreachable && !pending.silent) return "no upstream resolver can be reached";
  return "no upstream resolver answers";
}

void Forwarder::give_up(const std::shared_ptr<Pending>& pending) {
  if (pending->stale) answer_stale(pending);
  if (pending->failure) {
    // Never in the place of an answer that is still good for something.
    const auto* kept = cache_.find(pending->key);
    const bool better = kept != nullptr && (kept->fresh_until > now_ || kept->stale_at(now_));
    if (!better) cache_.store(pending->key, pending->failure, now_);
    return finish(pending, *pending->failure);
  }
  pending->done = true;
  const bool network = pending->unreachable && !pending->silent;
  for (const auto& waiter : pending->waiters) {
    const auto size = empty_reply(waiter.query, waiter.message, Rcode::kServFail,
                                  network ? ede::kNetworkError : ede::kNoReachable,
                                  why_none(*pending), false, buffer_);
    if (size > 0) waiter.send(Bytes(buffer_).first(size));
  }
  forget(pending);
}

void Forwarder::let_go(Pending& pending) {
  for (const auto& waiter : pending.waiters) {
    const auto count = per_client_.find(waiter.client);
    if (count != per_client_.end() && --count->second == 0) per_client_.erase(count);
    --waiting_;
  }
  pending.waiters.clear();
}

void Forwarder::forget(const std::shared_ptr<Pending>& pending) {
  let_go(*pending);
  const auto entry = pending_.find(pending->key);
  if (entry != pending_.end() && entry->second == pending) pending_.erase(entry);
}

void Forwarder::on_event(int fd, bool readable, bool writable, TimePoint now) {
  now_ = now;
  for (const auto& server : std::vector(servers_)) {
    if (server->upstream) server->upstream->on_event(fd, readable, writable);
  }
}

void Forwarder::on_time(TimePoint now) {
  now_ = now;
  tick_at_ = now + kTick;
  for (const auto& server : std::vector(servers_)) {
    if (server->upstream && server->upstream->busy()) server->upstream->tick();
  }
  std::vector<std::shared_ptr<Pending>> all;
  all.reserve(pending_.size());
  for (const auto& [key, pending] : pending_) all.push_back(pending);
  for (const auto& pending : all) {
    if (pending->done) continue;
    if (pending->deadline <= now) {
      give_up(pending);
      continue;
    }
    if (pending->stale && pending->stale_at <= now) answer_stale(pending);
    if (pending->hedge_at <= now) {
      pending->hedge_at = pending->deadline;
      [[maybe_unused]] const bool another = ask_next(pending, now);  // the first may still answer
    }
  }
}

std::optional<TimePoint> Forwarder::next_time(TimePoint now) const {
  const bool busy = !pending_.empty() || std::ranges::any_of(servers_, [](const auto& s) {
    return s->upstream && s->upstream->busy();
  });
  if (!busy) return std::nullopt;
  return std::clamp(tick_at_, now, now + kTick);
}

}  // namespace meshd::dns
