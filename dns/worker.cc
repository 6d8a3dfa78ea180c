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
                       ServerStats& stats, std::size_t cache_bytes)
    : snapshots_(snapshots),
      refusals_(refusals),
      stats_(stats),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      forwarder_(cache_bytes,
                 [this](int fd, bool readable, bool writable) {
                   watch(fd, Kind::kUpstream,
                         (readable ? EPOLLIN : 0U) | (writable ? EPOLLOUT : 0U));
                 }),
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

void Server::Worker::start(std::vector<UpstreamAddress> upstreams) {
  forwarder_.set_upstreams(upstreams);
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
    if (forwarder_.next_time(now_)) {
      forwarder_.on_time(now_);
      publish_states();
    }
    close_idle(now_);
  }
}

int Server::Worker::wait_time(TimePoint now) {
  Duration wait = std::chrono::hours(1);
  if (const auto next = forwarder_.next_time(now)) wait = std::min(wait, *next - now);
  for (const auto& [fd, connection] : connections_) {
    wait = std::min(wait, connection.idle_at - now);
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
      forwarder_.set_upstreams(command.upstreams);
      publish_states();
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
  if (!outcome.refused.empty()) report(outcome, client);
  if (outcome.action == Action::kForward) return forward_udp(fd, from, message);
  if (outcome.action == Action::kDrop) {
    stats_.dropped.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  out_vectors_[out_count_] = {reply.data(), outcome.length};
  out_messages_[out_count_].msg_hdr.msg_name = from_[slot].get();
  out_messages_[out_count_].msg_hdr.msg_namelen = from_[slot].size();
  ++out_count_;
}

void Server::Worker::flush_udp(int fd) {
  unsigned sent = 0;
  while (sent < out_count_) {
    const int count = sendmmsg(fd, out_messages_.data() + sent, out_count_ - sent, MSG_DONTWAIT);
    // One that cannot be sent (its client is gone) must not hold up the rest.
    sent += count > 0 ? static_cast<unsigned>(count) : 1U;
    if (count > 0) {
      stats_.answered.fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
    }
  }
  out_count_ = 0;
}

void Server::Worker::forward_udp(int fd, const SocketAddress& from, Bytes message) {
  stats_.forwarded.fetch_add(1, std::memory_order_relaxed);
  Forwarder::Question question;
  question.client = from.address();
  question.query = scratch_.query;
  question.message.assign(message.begin(), message.end());
  question.limit = std::clamp<std::size_t>(scratch_.query.payload, kMinUdpPayload, kMaxUdpPayload);
  question.send = [fd, from](Bytes reply) {
    sendto(fd, reply.data(), reply.size(), MSG_DONTWAIT, from.get(), from.size());
  };
  if (!forwarder_.ask(std::move(question), snapshot_->settings().filtered, now_)) {
    stats_.dropped.fetch_add(1, std::memory_order_relaxed);
  }
}

// --- connections ---------------------------------------------------------------------

void Server::Worker::accept_tcp(int fd) {
  for (int i = 0; i < kBatch; ++i) {
    SocketAddress from;
    UniqueFd accepted(accept4(fd, from.get(), &from.size_, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!accepted) return;
    const auto client = from.address();
    const auto same = std::ranges::count_if(
        connections_, [&](const auto& entry) { return entry.second.client == client; });
    const bool known =
        snapshot_ && (snapshot_->view(client) != nullptr || snapshot_->is_plain_client(client));
    if (!known || connections_.size() >= kMaxTcp ||
        static_cast<std::size_t>(same) >= kMaxTcpPerClient) {
      stats_.dropped.fetch_add(1, std::memory_order_relaxed);
      continue;  // closed: the client sees it at once
    }
    const int number = accepted.get();
    auto& connection = connections_[number];
    connection.fd = std::move(accepted);
    connection.serial = next_serial_++;
    connection.client = client;
    connection.idle_at = now_ + kTcpIdle;
    watch(number, Kind::kConnection, EPOLLIN);
  }
}

void Server::Worker::serve_connection(int fd, std::uint32_t events) {
  const auto found = connections_.find(fd);
  if (found == connections_.end()) return;
  auto& connection = found->second;
  bool alive = true;
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) alive = read_connection(connection);
  if (alive && !connection.out.empty()) alive = write_connection(connection);
  if (!alive) return close_connection(fd);
  watch(fd, Kind::kConnection, connection.out.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

bool Server::Worker::read_connection(Connection& connection) {
  std::array<std::uint8_t, 4096> chunk{};
  const auto got = recv(connection.fd.get(), chunk.data(), chunk.size(), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  // A client that sends without reading would make us keep its answers.
  if (connection.out.size() > 4 * kMaxMessage) return false;
  auto& in = connection.in;
  in.insert(in.end(), chunk.begin(), chunk.begin() + got);
  std::size_t at = 0;
  while (in.size() - at >= 2) {
    const std::size_t length = static_cast<std::size_t>(in[at]) << 8 | in[at + 1];
    if (length > kMaxQuery) return false;
    if (in.size() - at - 2 < length) break;
    stats_.queries.fetch_add(1, std::memory_order_relaxed);
    answer_tcp(connection, Bytes(in).subspan(at + 2, length));
    at += 2 + length;
  }
  in.erase(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(at));
  if (at > 0) connection.idle_at = now_ + kTcpIdle;
  // Half a message must be followed by the rest soon.
  if (at == 0 && !in.empty()) connection.idle_at = std::min(connection.idle_at, now_ + kTcpPartial);
  return true;
}

void Server::Worker::answer_tcp(Connection& connection, Bytes message) {
  if (!snapshot_) return;
  const auto outcome = answer(*snapshot_, connection.client, message, false, tcp_reply_, scratch_);
  if (!outcome.refused.empty()) report(outcome, connection.client);
  if (outcome.action == Action::kReply) {
    return queue_tcp(connection, Bytes(tcp_reply_).first(outcome.length));
  }
  if (outcome.action == Action::kDrop) return;
  stats_.forwarded.fetch_add(1, std::memory_order_relaxed);
  Forwarder::Question question;
  question.client = connection.client;
  question.query = scratch_.query;
  question.message.assign(message.begin(), message.end());
  question.limit = kMaxMessage;
  // The connection may be gone, and its number somebody else's, when the answer comes.
  const int fd = connection.fd.get();
  question.send = [this, fd, serial = connection.serial](Bytes reply) {
    const auto found = connections_.find(fd);
    if (found == connections_.end() || found->second.serial != serial) return;
    queue_tcp(found->second, reply);
    if (write_connection(found->second)) {
      watch(fd, Kind::kConnection, found->second.out.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
    }
  };
  if (!forwarder_.ask(std::move(question), snapshot_->settings().filtered, now_)) {
    stats_.dropped.fetch_add(1, std::memory_order_relaxed);
  }
}

void Server::Worker::queue_tcp(Connection& connection, Bytes message) {
  connection.out.push_back(static_cast<std::uint8_t>(message.size() >> 8));
  connection.out.push_back(static_cast<std::uint8_t>(message.size()));
  connection.out.insert(connection.out.end(), message.begin(), message.end());
  stats_.answered.fetch_add(1, std::memory_order_relaxed);
}

bool Server::Worker::write_connection(Connection& connection) {
  auto& out = connection.out;
  const auto sent = send(connection.fd.get(), out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN || errno == EINTR;
  out.erase(out.begin(), out.begin() + sent);
  return true;
}

void Server::Worker::close_connection(int fd) {
  watch(fd, Kind::kConnection, 0);
  connections_.erase(fd);
}

void Server::Worker::close_idle(TimePoint now) {
  for (auto entry = connections_.begin(); entry != connections_.end();) {
    const auto current = entry++;
    if (current->second.idle_at <= now) close_connection(current->first);
  }
}

}  // namespace meshd::dns
