// One GET request that asks a container whether it is ready. A state machine over one
// non-blocking socket: the owner waits for events() on fd() or for the deadline, and
// calls back; nothing here blocks or waits.
//
// Threads: not thread-safe; the main loop.
// Owns:    the connection, which ends with the object.
// Errors:  as the outcome: refused, timed out, not HTTP. Whatever the container sends, at
//          most kMaxProbeBytes of it are read.
// Source:  RFC 9112 sections 3 and 4 (request and status line), RFC 9110 section 15.2 (1xx).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/ip.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace meshd {

// A service that needs longer than this to answer is not ready for clients either.
inline constexpr auto kProbeLimit = std::chrono::seconds(2);
// A status line and the headers of a few interim answers; the body is never wanted.
inline constexpr std::size_t kMaxProbeBytes = 8192;

// Finds the final status code in the bytes of an answer, however they are cut.
class StatusParser {
 public:
  // The status code (200-599), an error once it cannot be HTTP any more, or nothing yet.
  [[nodiscard]] std::optional<Result<int>> feed(std::string_view bytes);
  // The peer has closed: nothing more will come.
  [[nodiscard]] Result<int> finish() const;

 private:
  [[nodiscard]] std::optional<Result<int>> take_line(std::string_view line);

  std::string line_;         // begun, not ended
  std::size_t total_ = 0;    // bytes fed
  bool in_headers_ = false;  // of an interim (1xx) answer
};

class HttpProbe {
 public:
  // Begins to connect. `path` begins with '/' and is printable ASCII without spaces.
  [[nodiscard]] static Result<HttpProbe> start(const IpAddress& address, std::uint16_t port,
                                               std::string_view path, TimePoint now);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::uint32_t events() const;  // EPOLLIN or EPOLLOUT, to wait for
  [[nodiscard]] TimePoint deadline() const { return deadline_; }
  // To be called when fd() is ready or the deadline has come. The outcome, once: a status
  // code, or why there is none. The object is of no further use then.
  [[nodiscard]] std::optional<Result<int>> advance(TimePoint now);

 private:
  HttpProbe(UniqueFd fd, std::string target, std::string request, TimePoint deadline);
  [[nodiscard]] std::optional<Result<int>> check_connected();
  [[nodiscard]] std::optional<Result<int>> send_some();
  [[nodiscard]] std::optional<Result<int>> receive_some();
  [[nodiscard]] Result<int> failed(std::string_view step, int error) const;

  enum class Step { kConnect, kSend, kReceive };
  UniqueFd fd_;
  std::string target_;   // for messages: "10.213.0.5:8080/healthz"
  std::string request_;  // what is left to send
  TimePoint deadline_;
  Step step_ = Step::kConnect;
  StatusParser parser_;
};

}  // namespace meshd
