// Foreign names: answers from the cache, joins equal questions, and asks the upstreams: the
// best one first, a second one when that is slow, until somebody answers or the time a
// client waits is over. A server that fails is asked last, and now and then beside another one,
// so that its return is seen; one that leads back to us is not asked.
//
// Threads:   one owner (a worker); time comes in as an argument.
// Invariant: every question taken is answered once: by a reply, by a stale one, or by
//            SERVFAIL with the reason, within kForwardBudget.
// Source:    RFC 2308 section 7, 5452, 8767, 9520; musl and glibc give up after 5 s (measured).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "dns/cache.h"
#include "dns/loop_watch.h"
#include "dns/upstream.h"

namespace meshd::dns {

struct UpstreamState {
  UpstreamAddress address;
  bool healthy = true;
  std::uint32_t rtt_us = 0;
  bool leads_back = false;  // to this resolver: it is not asked
};

class Forwarder {
 public:
  // The finished message for one client.
  using Send = std::function<void(Bytes message)>;
  using MakeUpstream =
      std::function<Result<std::unique_ptr<Upstream>>(const UpstreamAddress&, Upstream::Watch)>;

  Forwarder(std::size_t cache_bytes, Upstream::Watch watch, MakeUpstream make = Upstream::make,
            std::shared_ptr<LoopWatch> loops = std::make_shared<LoopWatch>());
  ~Forwarder();

  // Where we answer ourselves: upstreams there are not asked.
  void set_own(std::vector<UpstreamAddress> own) { own_ = std::move(own); }
  // Replaces all upstreams; questions under way end with a failure of their server and go
  // on with the new ones. The cache stays, for when these fail.
  void set_upstreams(const std::vector<UpstreamAddress>& addresses, TimePoint now);
  // A question by which we asked whether an upstream leads here.
  [[nodiscard]] bool is_own_probe(const Query& query) { return loops_->saw(query); }

  // The size of the answer in `out`; 0: it has to be asked for. Allocates nothing but
  // for asking ahead of time.
  [[nodiscard]] std::size_t from_cache(const Query& query, Bytes message, std::size_t limit,
                                       const std::vector<Prefix>& filtered, TimePoint now,
                                       std::span<std::uint8_t> out);

  struct Question {
    IpAddress client;
    Query query;
    std::vector<std::uint8_t> message;  // as the client sent it
    std::size_t limit = 512;            // of the answer's size
    Send send;
  };
  // False: this client, or all together, wait for too many already; nothing was taken.
  [[nodiscard]] bool ask(Question question, const std::vector<Prefix>& filtered, TimePoint now);

  void on_event(int fd, bool readable, bool writable, TimePoint now);
  void on_time(TimePoint now);
  // When on_time() wants to be called.
  [[nodiscard]] std::optional<TimePoint> next_time(TimePoint now) const;
  [[nodiscard]] std::vector<UpstreamState> states() const;
  // Rises when a server came, went, failed for good, or was found to work or to lead back.
  [[nodiscard]] std::uint64_t changes() const { return changes_; }

 private:
  struct Server;
  struct Pending;

  std::shared_ptr<Server> make_server(const UpstreamAddress& address);
  void look_for_loop(const std::shared_ptr<Server>& server);
  std::shared_ptr<Pending> start(std::string key, const Query& query,
                                 const std::vector<Prefix>& filtered, TimePoint now);
  void ask_again(Cache::Entry& entry, const Query& query, const std::vector<Prefix>& filtered,
                 TimePoint now);
  bool ask_next(const std::shared_ptr<Pending>& pending, TimePoint now);
  void try_failed_ones(const std::shared_ptr<Pending>& pending, TimePoint now);
  void ask_server(const std::shared_ptr<Pending>& pending, const std::shared_ptr<Server>& server,
                  TimePoint now);
  void on_reply(const std::weak_ptr<Pending>& weak, const std::weak_ptr<Server>& server, Bytes sent,
                Bytes reply, Upstream::Failure failure, TimePoint asked_at);
  void count_failure(Server& server);
  void finish(const std::shared_ptr<Pending>& pending, const UpstreamReply& reply);
  void answer_stale(const std::shared_ptr<Pending>& pending);
  void give_up(const std::shared_ptr<Pending>& pending);
  [[nodiscard]] std::string_view why_none(const Pending& pending) const;
  [[nodiscard]] std::shared_ptr<Server> best(const Pending& pending) const;
  void let_go(Pending& pending);
  void forget(const std::shared_ptr<Pending>& pending);

  Cache cache_;
  const Upstream::Watch watch_;
  const MakeUpstream make_;
  const std::shared_ptr<LoopWatch> loops_;
  std::vector<UpstreamAddress> own_;
  std::vector<std::shared_ptr<Server>> servers_;
  std::unordered_map<std::string, std::shared_ptr<Pending>> pending_;
  std::unordered_map<IpAddress, std::size_t> per_client_;
  std::size_t waiting_ = 0;
  std::uint64_t changes_ = 0;
  TimePoint now_{}, tick_at_{};
  std::string key_;  // memory that is used again
  std::vector<std::uint8_t> buffer_;
};

}  // namespace meshd::dns
