// Requests to the Arvados API over HTTPS, in a thread of the client's own.
//
// Use:       ask() from any thread. Each request is answered exactly once, in the client's
//            thread, by the function that came with it, which does nothing but hand the reply
//            on (post_to() makes one for a Mailbox). Those under way when the client ends
//            are answered then.
// Threads:   as above. They meet in a Mailbox.
// Owns:      a thread and its connections, which are kept open for the next request.
// Invariant: only GET, only to the configured host, only with a certificate that the configured
//            authorities vouch for; no redirect is followed, no proxy of the environment used.
//            A token stands in one header of one request, and never in a URL, a log or a text.
//            Bounded: requests under way, connections, bytes and time of each.
// Errors:    a Reply without a status says why; make() fails for options that cannot be right.
// Source:    libcurl 7.88, multi interface. RFC 9110, RFC 6750.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "arvados/access.h"
#include "arvados/answers.h"
#include "arvados/token.h"
#include "base/mailbox.h"
#include "base/result.h"

namespace meshd::arvados {

// A DNS name or an address (v6 in brackets), and maybe a port: nothing that could be more of a URL.
[[nodiscard]] bool is_api_host(std::string_view text);

// Verdicts for a page's many files come at once; past it callers are told that the API is away.
inline constexpr std::size_t kMaxUnderWay = 1'000;
// The API's own queue is 64 long by default, and is not ours alone.
inline constexpr long kMaxConnections = 8;
// Times a request is made again after its connection was lost, each wait twice as long.
inline constexpr int kMaxRetries = 2;
inline constexpr std::chrono::milliseconds kFirstRetry{100};

struct ClientOptions {
  std::string host{};     // "zzzzz.example.org", with ":port" where that is not 443
  std::string ca_file{};  // empty: the system's
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds timeout{20'000};  // of a request, its retries among it
};

class Client {
 public:
  using Done = std::move_only_function<void(Reply)>;

  [[nodiscard]] static Result<std::unique_ptr<Client>> make(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // False when too much is under way: `done` is not called.
  [[nodiscard]] bool ask(const Ask& ask, const Token& token, Done done);

 private:
  class Loop;
  explicit Client(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

struct Replied {
  std::uint64_t number = 0;
  Reply reply;
};
// `box` outlives the client, and has room for all that its owner has asked and not drained yet.
[[nodiscard]] inline Client::Done post_to(Mailbox<Replied>& box, std::uint64_t number) {
  return [&box, number](Reply reply) {
    [[maybe_unused]] const bool posted = box.post({number, std::move(reply)});
  };
}

}  // namespace meshd::arvados
