// The worker's connections.
#include <sys/epoll.h>

#include <cerrno>
#include <map>
#include <tuple>

#include "dns/worker.h"

namespace meshd::dns {

void Server::Worker::accept_tcp(int fd) {
  for (int i = 0; i < kBatch; ++i) {
    SocketAddress from;
    UniqueFd accepted(accept4(fd, from.get(), &from.size_, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!accepted) return;
    const auto client = from.address();
    const bool known =
        snapshot_ && (snapshot_->view(client) != nullptr || snapshot_->is_plain_client(client));
    if (!known || !make_room(client)) {
      stats_.dropped.fetch_add(1, std::memory_order_relaxed);
      continue;  // closed: the client sees it at once
    }
    const int number = accepted.get();
    auto& connection = connections_[number];
    connection.fd = std::move(accepted);
    connection.serial = next_serial_++;
    connection.client = client;
    connection.used_at = now_;
    connection.idle_at = now_ + kTcpIdle;
    watch(number, Kind::kConnection, EPOLLIN);
  }
}

// For one more of this client. When all places are taken, the client that holds the most loses
// the one it has used least lately, so that a few cannot keep everybody out.
bool Server::Worker::make_room(const IpAddress& client) {
  std::map<IpAddress, std::size_t> held;
  for (const auto& [fd, connection] : connections_) ++held[connection.client];
  if (held[client] >= kMaxTcpPerClient) return false;
  if (connections_.size() < kMaxTcp) return true;
  const auto rank = [&](const auto& entry) {
    const auto& connection = entry.second;
    // The most held first; among equals one's own; then what nothing is under way on.
    return std::tuple(held[connection.client], connection.client == client, !connection.busy(),
                      now_ - connection.used_at);
  };
  const auto victim = std::ranges::max_element(connections_, {}, rank);
  close_connection(victim->first);
  return true;
}

void Server::Worker::serve_connection(int fd, std::uint32_t events) {
  const auto found = connections_.find(fd);
  if (found == connections_.end()) return;
  auto& connection = found->second;
  // Gone in both directions: nobody is left to read an answer.
  bool alive = !connection.finished || (events & (EPOLLHUP | EPOLLERR)) == 0;
  if (alive && !connection.finished && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    alive = read_connection(connection);
  }
  if (alive && !connection.out.empty()) alive = write_connection(connection);
  // What was left lying when too many answers waited.
  if (alive && !connection.in.empty()) alive = take_messages(connection);
  if (!alive) return close_connection(fd);
  settle(connection);
}

// Watches for what can be done next; ends a connection that has nothing more to do.
void Server::Worker::settle(Connection& connection) {
  const bool paused = connection.out.size() >= kTcpPause;
  if (connection.finished && !connection.busy() && connection.in.empty()) {
    connection.idle_at = now_;  // close_idle() ends it
  }
  const std::uint32_t events =
      (connection.finished || paused ? 0U : EPOLLIN) | (connection.out.empty() ? 0U : EPOLLOUT);
  // Without any event an end of both directions is still told.
  epoll_event event{};
  event.events = events;
  event.data.u64 = std::uint64_t{static_cast<std::uint32_t>(Kind::kConnection)} << 32 |
                   static_cast<std::uint32_t>(connection.fd.get());
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.fd.get(), &event);
}

bool Server::Worker::read_connection(Connection& connection) {
  std::array<std::uint8_t, 4096> chunk{};
  const auto got = recv(connection.fd.get(), chunk.data(), chunk.size(), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) {  // no more queries, but the client may still wait for answers (RFC 7766, 6.2.4)
    connection.finished = true;
    return take_messages(connection);
  }
  connection.in.insert(connection.in.end(), chunk.begin(), chunk.begin() + got);
  return take_messages(connection);
}

bool Server::Worker::take_messages(Connection& connection) {
  auto& in = connection.in;
  std::size_t at = 0;
  bool whole_left = false;
  while (in.size() - at >= 2) {
    const std::size_t length = static_cast<std::size_t>(in[at]) << 8 | in[at + 1];
    if (length > kMaxQuery) return false;
    if (in.size() - at - 2 < length) break;
    // A client that sends without reading would make us keep its answers.
    whole_left = connection.out.size() >= kTcpPause;
    if (whole_left) break;
    stats_.queries.fetch_add(1, std::memory_order_relaxed);
    answer_tcp(connection, Bytes(in).subspan(at + 2, length));
    at += 2 + length;
  }
  in.erase(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(at));
  if (at > 0) {
    connection.used_at = now_;
    // Not when an answer found no place: that connection ends.
    if (connection.idle_at > now_) connection.idle_at = now_ + kTcpIdle;
  }
  if (connection.finished && !whole_left) in.clear();  // the rest will not come
  // Part of a message must be followed by the rest soon, wherever it began.
  if (in.empty() || whole_left || connection.finished) {
    connection.partial_at.reset();
  } else if (at > 0 || !connection.partial_at) {
    connection.partial_at = now_ + kTcpPartial;
  }
  return true;
}

void Server::Worker::answer_tcp(Connection& connection, Bytes message) {
  if (!snapshot_) return;
  const auto outcome = answer(*snapshot_, connection.client, message, false, tcp_reply_, scratch_);
  if (outcome.action == Action::kDrop) return;
  if (too_often(outcome, connection.client)) {
    return refuse_tcp(connection, message, "you ask more often than this resolver allows");
  }
  if (!outcome.refused.empty()) report(outcome, connection.client);
  if (outcome.action == Action::kReply) {
    return queue_tcp(connection, Bytes(tcp_reply_).first(outcome.length));
  }
  const auto length = answer_foreign(message, kMaxMessage, tcp_reply_);
  if (length == 0) return forward_tcp(connection, message);
  queue_tcp(connection, Bytes(tcp_reply_).first(length));
}

void Server::Worker::forward_tcp(Connection& connection, Bytes message) {
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
    auto& waited = found->second;
    --waited.waiting;
    queue_tcp(waited, reply);
    // Not closed here: it may be the connection that is being read.
    if (!write_connection(waited)) waited.idle_at = now_;
    settle(waited);
  };
  ++connection.waiting;
  if (forwarder_.ask(std::move(question), snapshot_->settings().filtered, now_)) return;
  --connection.waiting;
  stats_.dropped.fetch_add(1, std::memory_order_relaxed);
  refuse_tcp(connection, message, "too many questions wait for upstream resolvers");
}

// A datagram may get lost and its client asks again; on a connection it would wait for ever.
void Server::Worker::refuse_tcp(Connection& connection, Bytes message, std::string_view why) {
  if (scratch_.query.question_end <= 12) return;  // it was unreadable
  const auto length =
      empty_reply(scratch_.query, message, Rcode::kServFail, ede::kOther, why, false, tcp_reply_);
  queue_tcp(connection, Bytes(tcp_reply_).first(length));
}

void Server::Worker::queue_tcp(Connection& connection, Bytes message) {
  auto& out = connection.out;
  if (out.size() + message.size() + 2 > kMaxTcpQueued && !write_connection(connection)) out.clear();
  if (out.size() + message.size() + 2 > kMaxTcpQueued) {
    connection.idle_at = now_;  // ends it, once nobody works on it any more
    return;
  }
  out.push_back(static_cast<std::uint8_t>(message.size() >> 8));
  out.push_back(static_cast<std::uint8_t>(message.size()));
  out.insert(out.end(), message.begin(), message.end());
  count_answer(message);
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
    auto& connection = current->second;
    if (connection.ends_at() > now) continue;
    if (connection.partial_at && connection.idle_at > now && connection.busy()) {
      // The rest of that message did not come; what was asked before it is answered still.
      connection.finished = true;
      connection.partial_at.reset();
      connection.in.clear();
      settle(connection);
    } else {
      close_connection(current->first);
    }
  }
}

}  // namespace meshd::dns
