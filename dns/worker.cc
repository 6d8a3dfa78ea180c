#include "dns/worker.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>

namespace meshd::dns {
namespace {

std::uint64_t tag_of(std::uint32_t kind, int fd) {
  return std::uint64_t{kind} << 32 | static_cast<std::uint32_t>(fd);
}

// Clients whose reports are limited, at most; then the limits start anew.
constexpr std::size_t kMaxBuckets = 16'384;

}  // namespace

Server::Worker::Worker(const Published<Snapshot>& snapshots, Mailbox<Refusal>& refusals,
                       ServerStats& stats, std::shared_ptr<LoopWatch> loops,
                       const ServerOptions& options)
    : snapshots_(snapshots),
      refusals_(refusals),
      stats_(stats),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      forwarder_(
          options.cache_bytes,
          [this](int fd, bool readable, bool writable) {
            watch(fd, Kind::kUpstream, (readable ? EPOLLIN : 0U) | (writable ? EPOLLOUT : 0U));
          },
          Upstream::make, std::move(loops)),
      plain_rate_(options.plain_rate, kPlainBurstSeconds),
      in_(kBatch),
      out_(kBatch),
      tcp_reply_(kMaxMessage) {
  for (std::size_t i = 0; i < kBatch; ++i) {
    in_vectors_[i] = {in_[i].data(), in_[i].size()};
    in_messages_[i].msg_hdr.msg_name = from_[i].get();
    in_messages_[i].msg_hdr.msg_iov = &in_vectors_[i];
    in_messages_[i].msg_hdr.msg_iovlen = 1;
    out_messages_[i].msg_hdr.msg_iov = &out_vectors_[i];
    out_messages_[i].msg_hdr.msg_iovlen = 1;
  }
  watch(commands_.fd(), Kind::kCommands, EPOLLIN);
}

Server::Worker::~Worker() {
  if (!thread_.joinable()) return;
  // The box holds 64 and the worker empties it whole: it takes this one sooner or later.
  while (!commands_.post({{}, true})) std::this_thread::yield();
  thread_.join();
}

Status Server::Worker::add(const Listener& listener) {
  UniqueFd copy(fcntl(listener.fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail_errno("duplicate " + listener.name(), errno);
  watch(copy.get(), listener.udp ? Kind::kUdp : Kind::kTcp, EPOLLIN);
  sockets_.push_back(std::move(copy));
  return {};
}

void Server::Worker::start(const std::vector<UpstreamAddress>& upstreams,
                           std::vector<UpstreamAddress> own) {
  forwarder_.set_own(std::move(own));
  forwarder_.set_upstreams(upstreams, BootClock::now());
  publish_states();
  thread_ = std::thread([this] { run(); });
}

void Server::Worker::set_upstreams(std::vector<UpstreamAddress> upstreams) {
  while (!commands_.post({upstreams, false})) std::this_thread::yield();
}

std::vector<UpstreamState> Server::Worker::states() const {
  const auto states = states_.load();
  return states ? *states : std::vector<UpstreamState>();
}

void Server::Worker::publish_states() {
  published_changes_ = forwarder_.changes();
  states_.store(std::make_shared<const std::vector<UpstreamState>>(forwarder_.states()));
}

// Adds, changes or ends the watch of one descriptor.
void Server::Worker::watch(int fd, Kind kind, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag_of(static_cast<std::uint32_t>(kind), fd);
  if (events == 0) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  } else if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }
}

void Server::Worker::refresh_snapshot() {
  const auto version = snapshots_.version();
  if (version == snapshot_version_) return;
  snapshot_version_ = version;
  snapshot_ = snapshots_.load();
}

void Server::Worker::run() {
  std::array<epoll_event, 64> events{};
  while (!stopping_) {
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                 wait_time(BootClock::now()));
    now_ = BootClock::now();
    refresh_snapshot();
    for (int i = 0; i < count; ++i) {
      const auto& event = events[static_cast<std::size_t>(i)];
      dispatch(event.data.u64, event.events);
    }
    if (const auto due = forwarder_.next_time(now_); due && *due <= now_) {
      forwarder_.on_time(now_);
      publish_states();
    } else if (forwarder_.changes() != published_changes_) {
      publish_states();
    }
    close_idle(now_);
  }
}

int Server::Worker::wait_time(TimePoint now) {
  Duration wait = std::chrono::hours(1);
  if (const auto next = forwarder_.next_time(now)) wait = std::min(wait, *next - now);
  for (const auto& [fd, connection] : connections_) {
    wait = std::min(wait, connection.ends_at() - now);
  }
  return static_cast<int>(
      std::max<std::int64_t>(std::chrono::ceil<std::chrono::milliseconds>(wait).count(), 0));
}

void Server::Worker::dispatch(std::uint64_t tag, std::uint32_t events) {
  const int fd = static_cast<int>(tag & 0xffffffffU);
  switch (static_cast<Kind>(tag >> 32)) {
    case Kind::kCommands:
      return take_commands();
    case Kind::kUdp:
      return serve_udp(fd);
    case Kind::kTcp:
      return accept_tcp(fd);
    case Kind::kConnection:
      return serve_connection(fd, events);
    case Kind::kUpstream:
      return forwarder_.on_event(fd, (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0,
                                 (events & EPOLLOUT) != 0, now_);
  }
}

void Server::Worker::take_commands() {
  for (auto& command : commands_.drain()) {
    if (command.stop) {
      stopping_ = true;
    } else {
      forwarder_.set_upstreams(command.upstreams, now_);
    }
  }
}

// A line for the person, not one per query of a program in a loop.
void Server::Worker::report(const Outcome& outcome, const IpAddress& client) {
  stats_.refused.fetch_add(1, std::memory_order_relaxed);
  if (buckets_.size() >= kMaxBuckets) buckets_.clear();
  auto& bucket = buckets_[client];
  const std::chrono::duration<double> passed = now_ - bucket.at;
  bucket.tokens = std::min(kReportsPerSecond, bucket.tokens + passed.count() * kReportsPerSecond);
  bucket.at = now_;
  const auto* view = snapshot_->view(client);
  if (bucket.tokens < 1 || view == nullptr) {
    stats_.unreported.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  bucket.tokens -= 1;
  if (!refusals_.post(
          {view->client, to_text(scratch_.query.lower), std::string(outcome.refused)})) {
    stats_.unreported.fetch_add(1, std::memory_order_relaxed);
  }
}

// --- datagrams -----------------------------------------------------------------------

void Server::Worker::serve_udp(int fd) {
  if (!snapshot_) return;  // nothing is published yet: let the clients ask again
  // A few batches, then the others' turn.
  for (int round = 0; round < 8; ++round) {
    for (auto& message : in_messages_) {
      message.msg_hdr.msg_namelen = sizeof(sockaddr_storage);
    }
    const int count = recvmmsg(fd, in_messages_.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (count <= 0) return;
    stats_.queries.fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      from_[i].size_ = in_messages_[i].msg_hdr.msg_namelen;
      const Bytes message(in_[i].data(), in_messages_[i].msg_len);
      answer_udp(fd, from_[i], message, i);
    }
    flush_udp(fd);
    if (count < kBatch) return;
  }
}

void Server::Worker::answer_udp(int fd, const SocketAddress& from, Bytes message,
                                std::size_t slot) {
  const auto client = from.address();
  auto& reply = out_[out_count_];
  const auto outcome = answer(*snapshot_, client, message, true, reply, scratch_);
  if (outcome.action == Action::kDrop || too_often(outcome, client)) {
    stats_.dropped.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  if (!outcome.refused.empty()) report(outcome, client);
  auto length = outcome.length;
  if (outcome.action == Action::kForward) {
    const auto limit =
        std::clamp<std::size_t>(scratch_.query.payload, kMinUdpPayload, kMaxUdpPayload);
    length = answer_foreign(message, limit, reply);
    if (length == 0) return forward_udp(fd, from, message);
  }
  out_vectors_[out_count_] = {reply.data(), length};
  out_messages_[out_count_].msg_hdr.msg_name = from_[slot].get();
  out_messages_[out_count_].msg_hdr.msg_namelen = from_[slot].size();
  ++out_count_;
}

std::size_t Server::Worker::answer_foreign(Bytes message, std::size_t limit,
                                           std::span<std::uint8_t> reply) {
  stats_.forwarded.fetch_add(1, std::memory_order_relaxed);
  const auto& query = scratch_.query;
  if (forwarder_.is_own_probe(query)) {
    return empty_reply(query, message, Rcode::kServFail, ede::kNetworkError,
                       "an upstream resolver leads back to this one", false, reply);
  }
  return forwarder_.from_cache(query, message, limit, snapshot_->settings().filtered, now_, reply);
}

void Server::Worker::flush_udp(int fd) {
  unsigned sent = 0;
  std::array<std::uint64_t, 16> rcodes{};  // counted here first: one addition for a batch
  while (sent < out_count_) {
    const int count = sendmmsg(fd, out_messages_.data() + sent, out_count_ - sent, MSG_DONTWAIT);
    // One that cannot be sent (its client is gone) must not hold up the rest.
    sent += count > 0 ? static_cast<unsigned>(count) : 1U;
    for (auto i = sent - static_cast<unsigned>(std::max(count, 0)); count > 0 && i < sent; ++i) {
      const auto* const reply = static_cast<const std::uint8_t*>(out_vectors_[i].iov_base);
      ++rcodes.at(rcode_of({reply, out_vectors_[i].iov_len}));
    }
    if (count > 0) {
      stats_.answered.fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
    }
  }
  out_count_ = 0;
  for (std::size_t rcode = 0; rcode < rcodes.size(); ++rcode) {
    if (rcodes.at(rcode) == 0) continue;
    stats_.answers.at(rcode).fetch_add(rcodes.at(rcode), std::memory_order_relaxed);
  }
}

void Server::Worker::forward_udp(int fd, const SocketAddress& from, Bytes message) {
  Forwarder::Question question;
  question.client = from.address();
  question.query = scratch_.query;
  question.message.assign(message.begin(), message.end());
  question.limit = std::clamp<std::size_t>(scratch_.query.payload, kMinUdpPayload, kMaxUdpPayload);
  question.send = [this, fd, from](Bytes reply) {
    count_answer(reply);
    sendto(fd, reply.data(), reply.size(), MSG_DONTWAIT, from.get(), from.size());
  };
  if (!forwarder_.ask(std::move(question), snapshot_->settings().filtered, now_)) {
    stats_.dropped.fetch_add(1, std::memory_order_relaxed);
  }
}

}  // namespace meshd::dns
