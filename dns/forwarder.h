// Foreign names: answers from the cache, joins equal questions, and asks the upstreams: the
// best one first, a second one when that is slow, until somebody answers or the time a
// client waits is over.
//
// Threads:   one owner (a worker); time comes in as an argument.
// Invariant: every question taken is answered once: by a reply, by a stale one, or by
//            SERVFAIL with the reason, within kForwardBudget.
// Source:    RFC 5452, 8767; musl and glibc give up after 5 s (measured).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "dns/cache.h"
#include "dns/upstream.h"

namespace meshd::dns {

struct UpstreamState {
  UpstreamAddress address;
  bool healthy = true;
  std::uint32_t rtt_us = 0;
};

class Forwarder {
 public:
  // The finished message for one client.
  using Send = std::function<void(Bytes message)>;
  using MakeUpstream =
      std::function<Result<std::unique_ptr<Upstream>>(const UpstreamAddress&, Upstream::Watch)>;

  Forwarder(std::size_t cache_bytes, Upstream::Watch watch, MakeUpstream make = Upstream::make);
  ~Forwarder();

  // Replaces all upstreams; questions under way end with a failure of their server and go
  // on with the new ones. The cache stays.
  void set_upstreams(const std::vector<UpstreamAddress>& addresses);

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

 private:
  struct Server;
  struct Pending;

  void start(const std::shared_ptr<Pending>& pending, TimePoint now);
  bool ask_next(const std::shared_ptr<Pending>& pending, TimePoint now);
  void on_reply(const std::weak_ptr<Pending>& weak, const std::weak_ptr<Server>& server, Bytes sent,
                Bytes reply, TimePoint asked_at);
  void finish(const std::shared_ptr<Pending>& pending, std::shared_ptr<const UpstreamReply> reply,
              bool stale);
  void give_up(const std::shared_ptr<Pending>& pending);
  void answer_one(const Question& question, const UpstreamReply& reply, std::uint32_t age,
                  bool stale);
  [[nodiscard]] std::shared_ptr<Server> best(const Pending& pending) const;
  void forget(const std::shared_ptr<Pending>& pending);

  Cache cache_;
  const Upstream::Watch watch_;
  const MakeUpstream make_;
  std::vector<std::shared_ptr<Server>> servers_;
  std::unordered_map<std::string, std::shared_ptr<Pending>> pending_;
  std::unordered_map<IpAddress, std::size_t> per_client_;
  std::size_t waiting_ = 0;
  TimePoint now_{};
  std::vector<std::uint8_t> buffer_;
};

}  // namespace meshd::dns
