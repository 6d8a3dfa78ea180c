#include "dns/forwarder.h"

#include <sys/random.h>

#include <algorithm>

#include "dns/answer.h"
#include "dns/limits.h"

namespace meshd::dns {
namespace {

// Upstream ids and letter cases: what an off-path forger has to guess.
void random_bytes(std::span<std::uint8_t> out) {
  while (!out.empty()) {
    const auto got = getrandom(out.data(), out.size(), 0);
    if (got > 0) out = out.subspan(static_cast<std::size_t>(got));
  }
}

constexpr auto kTick = std::chrono::milliseconds(50);
// A server that failed this often in a row is asked last, but asked.
constexpr int kUnhealthy = 3;

}  // namespace

struct Forwarder::Server {
  UpstreamAddress address;
  std::unique_ptr<Upstream> upstream;
  Duration smoothed_rtt{};  // RFC 6298's smoothing; zero: never answered
  int failures = 0;

  void answered(Duration took) {
    failures = 0;
    smoothed_rtt = smoothed_rtt == Duration{} ? took : (smoothed_rtt * 7 + took) / 8;
  }
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
  bool done = false;
};

Forwarder::Forwarder(std::size_t cache_bytes, Upstream::Watch watch, MakeUpstream make)
    : cache_(cache_bytes), watch_(std::move(watch)), make_(std::move(make)), buffer_(kMaxMessage) {}

Forwarder::~Forwarder() = default;

void Forwarder::set_upstreams(const std::vector<UpstreamAddress>& addresses) {
  std::vector<std::shared_ptr<Server>> next;
  for (const auto& address : addresses) {
    const auto kept =
        std::ranges::find(servers_, address, [](const auto& s) { return s->address; });
    if (kept != servers_.end()) {
      next.push_back(*kept);
      continue;
    }
    auto upstream = make_(address, watch_);
    if (!upstream) continue;  // out of descriptors: the others serve
    auto server = std::make_shared<Server>();
    server->address = address;
    server->upstream = *std::move(upstream);
    next.push_back(std::move(server));
  }
  // The new ones stand in place when the old ones die and hand back what they were asked.
  servers_.swap(next);
}

bool Forwarder::ask(Question question, const std::vector<Prefix>& filtered, TimePoint now) {
  now_ = now;
  auto key = Cache::key_of(question.query);
  const auto* kept = cache_.find(key);
  if (kept != nullptr && kept->fresh_until > now) {
    const auto age = std::chrono::duration_cast<std::chrono::seconds>(now - kept->stored_at);
    answer_one(question, *kept->reply, static_cast<std::uint32_t>(age.count()), false);
    return true;
  }
  const auto mine = per_client_.find(question.client);
  if (waiting_ >= kMaxForwards) return false;
  if (mine != per_client_.end() && mine->second >= kMaxForwardsPerClient) return false;
  auto& pending = pending_[key];
  if (pending && pending->waiters.size() >= kMaxWaiters) return false;
  ++per_client_[question.client];
  ++waiting_;
  if (pending) {
    pending->waiters.push_back(std::move(question));
    return true;
  }
  pending = std::make_shared<Pending>();
  pending->key = std::move(key);
  pending->query = question.query;
  pending->filtered = filtered;
  pending->deadline = now + kForwardBudget;
  pending->stale_at = now + kStaleAfter;
  // A negative answer is never served stale: what was missing may be there by now.
  if (kept != nullptr && !kept->reply->negative && kept->reply->rcode == Rcode::kNoError &&
      now - kept->fresh_until < kMaxStale) {
    pending->stale = kept->reply;
  }
  pending->waiters.push_back(std::move(question));
  start(std::shared_ptr(pending), now);
  return true;
}

void Forwarder::start(const std::shared_ptr<Pending>& pending, TimePoint now) {
  if (!ask_next(pending, now)) give_up(pending);
}

std::shared_ptr<Forwarder::Server> Forwarder::best(const Pending& pending) const {
  std::shared_ptr<Server> choice;
  const auto rank = [](const Server& server) {
    return std::pair(server.failures >= kUnhealthy, server.smoothed_rtt);
  };
  for (const auto& server : servers_) {
    if (std::ranges::find(pending.tried, server->address) != pending.tried.end()) continue;
    if (!choice || rank(*server) < rank(*choice)) choice = server;
  }
  return choice;
}

// False when there is nobody left to ask.
bool Forwarder::ask_next(const std::shared_ptr<Pending>& pending, TimePoint now) {
  const auto server = best(*pending);
  if (!server) return false;
  pending->tried.push_back(server->address);
  const auto patience = std::max<Duration>(server->smoothed_rtt * 2, kHedgeFloor);
  pending->hedge_at = now + patience;
  ++pending->under_way;
  std::array<std::uint8_t, 34> random{};
  random_bytes(random);
  const auto id = static_cast<std::uint16_t>(random[0] << 8 | random[1]);
  auto sent = upstream_query(pending->query, id, std::span(random).subspan(2));
  const Bytes bytes(sent);
  server->upstream->ask(bytes, [this, weak = std::weak_ptr(pending), from = std::weak_ptr(server),
                                sent = std::move(sent),
                                now](Bytes reply) { on_reply(weak, from, sent, reply, now); });
  return true;
}

void Forwarder::on_reply(const std::weak_ptr<Pending>& weak, const std::weak_ptr<Server>& from,
                         Bytes sent, Bytes reply, TimePoint asked_at) {
  const auto server = from.lock();
  const auto pending = weak.lock();
  if (server) {
    if (reply.empty()) {
      ++server->failures;
    } else {
      server->answered(now_ - asked_at);
    }
  }
  if (!pending || pending->done) return;
  --pending->under_way;
  if (auto good = digest(reply, sent, pending->filtered)) {
    auto shared = std::make_shared<const UpstreamReply>(*std::move(good));
    const bool useful = shared->rcode == Rcode::kNoError || shared->rcode == Rcode::kNxDomain;
    if (useful) {
      cache_.store(pending->key, shared, now_);
      return finish(pending, std::move(shared), false);
    }
    pending->failure = std::move(shared);
  }
  if (ask_next(pending, now_) || pending->under_way > 0) return;
  give_up(pending);
}

void Forwarder::answer_one(const Question& question, const UpstreamReply& reply, std::uint32_t age,
                           bool stale) {
  const auto size =
      write_reply(reply, question.query, question.message, age, stale, question.limit, buffer_);
  if (size > 0) question.send(Bytes(buffer_).first(size));
}

void Forwarder::finish(const std::shared_ptr<Pending>& pending,
                       std::shared_ptr<const UpstreamReply> reply, bool stale) {
  pending->done = true;
  for (const auto& waiter : pending->waiters) answer_one(waiter, *reply, 0, stale);
  forget(pending);
}

void Forwarder::give_up(const std::shared_ptr<Pending>& pending) {
  if (pending->stale) return finish(pending, pending->stale, true);
  if (pending->failure) return finish(pending, pending->failure, false);
  pending->done = true;
  const std::string_view reason =
      servers_.empty() ? "no upstream resolver is configured" : "no upstream resolver answers";
  for (const auto& waiter : pending->waiters) {
    const auto size = empty_reply(waiter.query, waiter.message, Rcode::kServFail, ede::kNoReachable,
                                  reason, false, buffer_);
    if (size > 0) waiter.send(Bytes(buffer_).first(size));
  }
  forget(pending);
}

void Forwarder::forget(const std::shared_ptr<Pending>& pending) {
  for (const auto& waiter : pending->waiters) {
    const auto count = per_client_.find(waiter.client);
    if (count != per_client_.end() && --count->second == 0) per_client_.erase(count);
    --waiting_;
  }
  pending->waiters.clear();
  const auto entry = pending_.find(pending->key);
  if (entry != pending_.end() && entry->second == pending) pending_.erase(entry);
}

void Forwarder::on_event(int fd, bool readable, bool writable, TimePoint now) {
  now_ = now;
  for (const auto& server : std::vector(servers_)) {
    server->upstream->on_event(fd, readable, writable);
  }
}

void Forwarder::on_time(TimePoint now) {
  now_ = now;
  for (const auto& server : std::vector(servers_)) {
    if (server->upstream->busy()) server->upstream->tick();
  }
  std::vector<std::shared_ptr<Pending>> all;
  all.reserve(pending_.size());
  for (const auto& [key, pending] : pending_) all.push_back(pending);
  for (const auto& pending : all) {
    if (pending->done) continue;
    if (pending->deadline <= now) {
      give_up(pending);
    } else if (pending->stale && pending->stale_at <= now) {
      finish(pending, pending->stale, true);
    } else if (pending->hedge_at <= now) {
      pending->hedge_at = pending->deadline;
      [[maybe_unused]] const bool another = ask_next(pending, now);  // the first may still answer
    }
  }
}

std::optional<TimePoint> Forwarder::next_time(TimePoint now) const {
  if (pending_.empty()) {
    const bool busy =
        std::ranges::any_of(servers_, [](const auto& s) { return s->upstream->busy(); });
    return busy ? std::optional(now + kTick) : std::nullopt;
  }
  return now + kTick;
}

std::vector<UpstreamState> Forwarder::states() const {
  std::vector<UpstreamState> result;
  for (const auto& server : servers_) {
    const auto rtt = std::chrono::duration_cast<std::chrono::microseconds>(server->smoothed_rtt);
    result.push_back(
        {server->address, server->failures < kUnhealthy, static_cast<std::uint32_t>(rtt.count())});
  }
  return result;
}

}  // namespace meshd::dns
