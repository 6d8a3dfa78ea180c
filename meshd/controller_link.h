// The node's end of the session with a controller: who the node is (joining, renewing), which
// controller it speaks with, and that it comes back to one for as long as the daemon runs.
//
// Threads:   the loop's only. gRPC's threads post what happened; on_readable() runs it.
// Owns:      the files of an identity that was got by joining, the stream and the calls.
// Invariant: one session at a time. Messages arrive in order, and the next is read when the
//            handler of the one before has returned. ControllerEvents is called from
//            on_readable() and on_timer() only: never within send(), end_session() or stop().
//            The node leaves a cluster for the ticket's when that has another name, or when its
//            authority vouches for the ticket only and no session comes about; never before a
//            controller has let it in there, nor against ControllerEvents::may_move().
// Errors:    none is final: what stands in the way is told as a problem and tried again.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "meshd/config.h"
#include "pki/files.h"
#include "proto/controller.pb.h"

namespace meshd {

// What the daemon does with a session. Of gRPC nothing is seen here.
class ControllerEvents {
 public:
  virtual ~ControllerEvents() = default;
  // An attempt begins: what the node would say first. Asked for again with each.
  [[nodiscard]] virtual mesh::v1::Hello hello() = 0;
  // A controller has answered Hello; its first message follows. From here on send() works.
  virtual void connected(const std::string& address) = 0;
  // Everything but Farewell, which becomes disconnected().
  virtual void message(const mesh::v1::ToNode& message) = 0;
  // Once after each connected(). What was sent before may have arrived or not.
  virtual void disconnected(const std::string& why) = 0;
  // Whether the node may leave its cluster for that of the ticket; if not, why.
  [[nodiscard]] virtual Status may_move() = 0;
  // All that is wrong now, for `status`; empty: nothing. Called when it changes.
  virtual void problem(const std::string& text) = 0;
};

// How long is waited for what.
struct LinkTimes {
  // Between attempts: by half longer with each failure, up to half of it less by chance. So slow
  // a growth tries every 2 s still after an outage of 15 s.
  Duration pause = std::chrono::milliseconds(200);
  Duration longest_pause = std::chrono::seconds(10);
  // A session that has lived so long lets the pauses begin anew.
  Duration settled = std::chrono::seconds(30);
  // For connecting, TLS included, or twice the last pause if that is more: packets of an attempt
  // that began while the network was away are sent again too seldom, and controllers whom all
  // nodes come to at once need longer.
  Duration connect = std::chrono::seconds(2);
  // For the first answer on a stream that is open, and for a call.
  Duration answer = std::chrono::seconds(10);
  // After a refusal to join, growing likewise: somebody has to do something about it.
  Duration refused_pause = std::chrono::seconds(10);
  Duration longest_refused_pause = std::chrono::minutes(5);
};

struct LinkOptions {
  std::string node;  // its name, which its certificate is for
  ControllerSettings controller;
  pki::IdentityFiles files;  // read; written too when the node has joined with a ticket
  LinkTimes times = {};
};
// Where `config` has a controller.
[[nodiscard]] LinkOptions link_options(const Config& config);

class ControllerLink {
 public:
  // What waits to be sent; beyond it the session ends. More than any node says while a
  // controller is slow, and one report of 10,000 containers.
  static constexpr std::size_t kMaxUnsent = 1024;
  static constexpr std::size_t kMaxUnsentBytes = std::size_t{32} << 20;

  virtual ~ControllerLink() = default;
  // Does nothing before the first on_timer(), which is due at once. pki::require_tls13() has
  // been called by main(). `events` outlives the link or its stop().
  [[nodiscard]] static std::unique_ptr<ControllerLink> make(LinkOptions options,
                                                            ControllerEvents& events);

  // The loop's: readable when something has arrived; a timer that may change with every call.
  [[nodiscard]] virtual int fd() const = 0;
  virtual void on_readable(TimePoint now) = 0;
  [[nodiscard]] virtual std::optional<TimePoint> next_timer() const = 0;
  virtual void on_timer(TimePoint now) = 0;

  // Without a session, and once it has begun to end, the message is dropped.
  virtual void send(mesh::v1::FromNode message) = 0;
  // disconnected(why) follows, and a new session not before `pause`.
  virtual void end_session(std::string_view why, Duration pause = {}) = 0;
  // Ends everything; no event follows. Waits for gRPC to let go, which takes milliseconds, and
  // at most kStopLimit. Harmless when repeated; the destructor does it too.
  static constexpr auto kStopLimit = std::chrono::seconds(2);
  virtual void stop() = 0;
};

}  // namespace meshd
