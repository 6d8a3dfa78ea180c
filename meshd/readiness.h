// When is a container ready? Judged from what the kernel lists as its TCP listeners (or
// from an HTTP probe), never from a packet of ours on its ports.
//
// The first half is pure. NetnsFinder and read_listeners() are the thin shell: a container's
// namespace is opened for each look and closed again, so that watching never keeps a dead
// container's namespace, and with it its link, alive.
//
// Threads: the main loop only.
// Source:  sock_diag(7); a look takes 45 us and some 100 us for the thread that enters the
//          namespace (kernel 6.18, measured).
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "netlink/netns.h"
#include "netlink/sock_diag.h"
#include "policy/types.h"

namespace meshd {

// Single TCP ports that must listen before a workload with ready: LISTENING is READY.
[[nodiscard]] std::vector<std::uint16_t> ports_to_watch(const policy::Declaration& declaration);

struct Listening {
  std::map<std::uint16_t, policy::FamilyReady> ready;
  std::vector<std::string> problems;  // "5432/tcp listens on 127.0.0.1 only"
};
[[nodiscard]] Listening judge(const policy::Declaration& declaration,
                              const policy::Attachment& attachment,
                              const std::vector<netlink::Listener>& listeners);

// One look by HTTP: a probe for each family, which end one by one.
class HttpLook {
 public:
  void begin() { ++under_way_; }
  // A probe has ended; without a problem the server was there. What is to be told now: ready
  // at once, problems only when the last has ended and no family is ready.
  [[nodiscard]] std::optional<Listening> end(Family family, std::uint16_t port,
                                             std::string problem);
  [[nodiscard]] bool over() const { return under_way_ == 0; }

 private:
  int under_way_ = 0;
  bool ready_ = false;
  std::vector<std::string> problems_;
};

// Whether what has been seen makes it READY.
[[nodiscard]] bool is_ready(const policy::Workload& workload);
// Whether another look could still change anything: a port without a family it could have.
[[nodiscard]] bool worth_watching(const policy::Workload& workload);

// How long after the previous look the next one is due. Quick while somebody may be
// waiting, slow when only a further family could appear.
inline constexpr auto kLookFirst = std::chrono::milliseconds(5);
inline constexpr auto kLookLast = std::chrono::milliseconds(500);
inline constexpr auto kLookSettling = std::chrono::milliseconds(250);
inline constexpr auto kSettling = std::chrono::seconds(3);
inline constexpr auto kLookSlow = std::chrono::seconds(30);
[[nodiscard]] Duration next_look(bool ready, Duration since_ready, Duration previous);

// Opens a container's namespace again by inode: through the path it was attached by, or
// through a process that lives in it.
class NetnsFinder {
 public:
  // A walk over /proc costs some milliseconds on a busy node: not more often than this,
  // for all containers together.
  static constexpr auto kScanInterval = std::chrono::milliseconds(100);

  [[nodiscard]] Result<netlink::Netns> open(const policy::Attachment& attachment, TimePoint now);

 private:
  void scan();
  std::map<policy::Netns, int> pids_;
  TimePoint scanned_at_{};
};

[[nodiscard]] Result<std::vector<netlink::Listener>> read_listeners(const netlink::Netns& netns);

}  // namespace meshd
