// Talking over real sockets between namespaces: one question, a conversation that goes on, a
// server that echoes, and datagrams that no honest stack would send.
//
// Threads: a server's thread ends with the server.
// Owns:    descriptors, closed with their owners.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <vector>

#include "base/ip.h"
#include "base/unique_fd.h"
#include "netlink/netns.h"

namespace meshd::test {

// What became of an attempt to talk.
enum class Talk : std::uint8_t {
  kAnswered,
  kRefused,  // at once: reset, or port unreachable
  kSilent,   // no word within the limit
  kOther,    // another error, such as no route
};
std::ostream& operator<<(std::ostream& out, Talk talk);

// An answer or a refusal comes at once; on a loaded machine "at once" may be long.
inline constexpr std::chrono::milliseconds kPatience{5'000};
// For where silence is expected: it takes the whole time.
inline constexpr std::chrono::milliseconds kSilence{300};

// Sends a few bytes from inside `netns` and waits for an echo.
[[nodiscard]] Talk talk(const netlink::Netns& netns, Proto proto, const IpAddress& to,
                        std::uint16_t port, const std::optional<IpAddress>& from = std::nullopt,
                        std::chrono::milliseconds limit = kPatience);

// The same from the caller's own namespace, which takes no privilege.
[[nodiscard]] Talk talk_here(Proto proto, const IpAddress& to, std::uint16_t port);

// One echo request. Where the node answers with an error, that is kRefused.
[[nodiscard]] Talk ping(const netlink::Netns& netns, const IpAddress& to,
                        std::chrono::milliseconds limit = kPatience);

// A connection (or a UDP socket with a peer) that stays open between questions.
class Conversation {
 public:
  Conversation(const netlink::Netns& netns, Proto proto, const IpAddress& to, std::uint16_t port);
  [[nodiscard]] Talk ask();

 private:
  UniqueFd fd_;
  Talk opened_;
};

// Echoes what comes, by TCP and UDP, until it is gone. Notes who asked last.
class EchoServer {
 public:
  EchoServer(const netlink::Netns& netns, const IpAddress& address, std::uint16_t port);
  ~EchoServer();
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;
  [[nodiscard]] IpAddress last_peer() const;
  [[nodiscard]] std::uint64_t questions() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A UDP datagram as a frame of our own making.
struct RawDatagram {
  Mac from_mac;
  IpAddress from, to;
  std::uint16_t port = 0;
  std::uint16_t source_port = 40'000;
};
// The IP packet of it.
[[nodiscard]] std::vector<std::uint8_t> raw_packet(const RawDatagram& datagram);
// Sends them out of eth0 of `netns`, whatever anybody thinks of their addresses.
void send_raw(const netlink::Netns& netns, std::span<const RawDatagram> datagrams);
inline void send_raw(const netlink::Netns& netns, const RawDatagram& datagram) {
  send_raw(netns, {&datagram, 1});
}

}  // namespace meshd::test
