// The way of websockets: nginx asks for a verdict once, when a connection begins, and then only
// carries bytes. So an allowed upgrade is sent through a pipe of ours, with a Unix socket for each
// caller and target, and access that is taken away ends exactly that caller's connections.
//
// Threads:   not thread-safe; one owner, whose loop waits on fd() and calls serve().
// Owns:      the listening sockets and their files, both ends of every connection.
// Invariant: bytes are passed on as they are and never looked at. A side that does not read is not
//            read for: at most kTurnBytes wait in each direction. After cut() nothing more passes.
// Errors:    kExhausted at a limit, kSystem when a socket cannot be made. An upstream that does not
//            answer ends its connection, which nginx tells as 502.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd::proxy {

// Read in one turn, so that one busy connection does not hold up the others.
inline constexpr std::size_t kTurnBytes = 64 * 1024;
// A connection is two descriptors, a door one; a hub of some hundred users has a few thousand.
struct RelayLimits {
  std::size_t connections = 8192, doors = 4096;
};
inline constexpr auto kConnectLimit = std::chrono::seconds(3);
// Whose client has gone altogether, while the container keeps its end: so long it is given for
// what was sent to it.
inline constexpr auto kLeftAloneLimit = std::chrono::seconds(10);
// A door that nobody has used for so long is taken away; the next verdict makes it anew.
inline constexpr auto kDoorLife = std::chrono::seconds(30);

struct Upstream {
  IpAddress address;
  std::uint16_t port = 0;
  bool operator==(const Upstream&) const = default;
};

class Relay {
 public:
  // Sockets are made in `dir`, which is made with mode 0750 and given to `group` (-1: left as it
  // is): nginx's workers connect as members of it. Sockets left there by an earlier process go.
  [[nodiscard]] static Result<std::unique_ptr<Relay>> make(const std::string& dir, gid_t group,
                                                           const RelayLimits& limits = {});
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // The socket's path for this caller and target; `key` is a name of hexadecimal digits that
  // stands for both. Another upstream than before: what goes to the old one is cut.
  [[nodiscard]] Result<std::string> open(const std::string& key, const Upstream& upstream,
                                         TimePoint now);
  // Harmless when there is none.
  void cut(const std::string& key);

  [[nodiscard]] int fd() const { return epoll_.get(); }
  void serve(TimePoint now);
  // Connects that take too long, containers that keep an end to which nobody is, and doors that
  // nobody uses, end. To be called every second.
  void sweep(TimePoint now);

  // Doors with a connection: whose access is to be looked at again.
  [[nodiscard]] std::vector<std::string> busy() const;
  [[nodiscard]] std::size_t connections() const { return connections_; }

 private:
  struct Door;
  struct Pipe;
  // What a descriptor of the epoll set belongs to.
  struct Source {
    Door* door = nullptr;
    Pipe* pipe = nullptr;  // null: the door's listening socket
    bool outer = false;    // nginx's side
  };
  struct Side {
    UniqueFd fd;
    Source source;
    std::vector<std::uint8_t> unsent;  // read from the other side
    bool ended = false;                // nothing more comes from it
    bool shut = false;                 // nothing more is sent to it
    bool hung_up = false;              // it is waited for no more; what it sent is still read
    std::uint32_t waits_for = 0;       // of epoll
  };
  struct Pipe {
    Side outer, inner;
    bool connected = false;
    TimePoint connect_by{};
    std::optional<TimePoint> end_by;  // its client has gone
    std::list<std::unique_ptr<Pipe>>::iterator self;
  };
  struct Door {
    std::string key, path;
    Upstream upstream;
    UniqueFd listener;
    Source source;
    TimePoint used{};
    bool paused = false;  // until the next sweep: nothing could be accepted
    std::list<std::unique_ptr<Pipe>> pipes;
  };

  Relay(std::string dir, UniqueFd epoll, const RelayLimits& limits)
      : dir_(std::move(dir)), epoll_(std::move(epoll)), limits_(limits) {}
  [[nodiscard]] Status listen(Door& door) const;
  void accept(Door& door, TimePoint now);
  void pause(Door& door, bool paused) const;
  [[nodiscard]] bool connect(Door& door, Pipe& pipe);
  // False: the pipe has come to its end.
  [[nodiscard]] bool serve(Pipe& pipe, bool outer, std::uint32_t events);
  [[nodiscard]] bool move(Side& from, Side& to);
  [[nodiscard]] bool move_rest(Side& from, Side& to);
  void wait_for(Side& side, std::uint32_t events) const;
  void hang_up(Side& side) const;
  void end(Door& door, Pipe& pipe);
  void end_all(Door& door);
  void remove(std::map<std::string, std::unique_ptr<Door>>::iterator door);

  const std::string dir_;
  const UniqueFd epoll_;
  const RelayLimits limits_;
  std::map<std::string, std::unique_ptr<Door>> doors_;  // by key
  std::size_t connections_ = 0;
  std::vector<std::uint8_t> buffer_ = std::vector<std::uint8_t>(kTurnBytes);
  // Ended while events of the same turn may still name them.
  std::list<std::unique_ptr<Pipe>> ended_;
  std::vector<std::unique_ptr<Door>> removed_;
};

}  // namespace meshd::proxy
