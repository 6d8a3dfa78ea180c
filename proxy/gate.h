// All that the endpoint's thread knows and does, but for HTTP: verdicts for requests that come and
// for websockets that are open, and the questions that they wait for.
//
// Threads:   one, whose loop waits on answers_fd() and relay_fd() and calls tick() every second.
//            Answers of the Asker may come from any thread, also after the Gate has gone.
// Invariant: closed unless decided otherwise: without a directory, an answer in time or room for
//            one more, nobody is let in. No token is said, counted or logged.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mailbox.h"
#include "base/published.h"
#include "proxy/asking.h"
#include "proxy/cache.h"
#include "proxy/conversation.h"
#include "proxy/doors.h"
#include "proxy/people_source.h"
#include "proxy/questions.h"

namespace meshd::proxy {

// One request that is being answered.
class Exchange {
 public:
  enum class At : std::uint8_t { kAuth, kAnswer };
  Exchange(const Site& site, const Told& told, At where, bool down)
      : conversation(site, told), at(where), is_down(down) {}
  virtual ~Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  // There is a reply now to one that had to wait.
  virtual void wake() = 0;

  Conversation conversation;
  const At at;
  const bool is_down;  // nginx let it in, and the container does not answer
  std::optional<Reply> reply;
};

struct EndpointHooks {  // called in the endpoint's thread, must not wait
  // A publication on demand is wanted. Said again every few seconds while people try.
  std::function<void(MakeOpening)> open;
  // About once a second: what somebody was let through to since, or has a websocket to.
  std::function<void(std::vector<policy::PublishKey>)> used;
};

struct EndpointCounts {
  // "allow", "redirect", or why not (reason_word()): what /auth said; of "does-not-answer",
  // /answer.
  std::map<std::string_view, std::uint64_t> verdicts;
  std::uint64_t cache_hits = 0, cache_misses = 0;
  std::uint64_t asked = 0, not_answered = 0;  // of the Asker
  std::uint64_t websockets_cut = 0;           // callers whose access was taken away
  // As it is now.
  std::uint64_t waiting = 0;      // requests, for an answer
  std::uint64_t websockets = 0;   // open connections
  std::uint64_t callers = 0;      // who have or just had one
  std::uint64_t connections = 0;  // of nginx
};

class Gate {
 public:
  struct Parts {
    const Published<const Directory>* directory = nullptr;
    Asker* asker = nullptr;  // null: the people answer
    PeopleSource people;
    std::unique_ptr<Relay> relay;
    CacheLimits cache;
    Duration ask_limit{};
    EndpointHooks hooks;
    // What an administrator may want to read, and what they should.
    std::function<void(std::string)> note, warn;
  };
  explicit Gate(Parts parts);

  // Afterwards it has a reply, or will be woken when it does; until then it stays where it is.
  void begin(Exchange& exchange, TimePoint now);
  void serve_answers(TimePoint now);
  void serve_relay(TimePoint now) { doors_.serve(now); }
  void tick(TimePoint now);
  // Nobody waits any more: who did is told that nobody can be asked.
  void close(TimePoint now);

  [[nodiscard]] int answers_fd() const { return inbox_->fd(); }
  [[nodiscard]] int relay_fd() const { return doors_.fd(); }
  [[nodiscard]] EndpointCounts counts() const;

 private:
  struct Answered {
    std::uint64_t number = 0;
    Answer answer;
  };
  using Waiting = Questions<Exchange>;
  // How often a publication on demand is asked for, and how many at a time.
  static constexpr auto kOpenAgain = std::chrono::seconds(3);
  static constexpr std::size_t kMaxOpenings = 1'024;
  static constexpr auto kSayAgain = std::chrono::minutes(1);

  [[nodiscard]] const Directory* directory();
  // What is open is looked at every second, which says nothing about how well the cache serves.
  enum class Count : bool { kNo, kYes };
  [[nodiscard]] std::optional<Answer> known(const Question& question, TimePoint now, Count count);
  [[nodiscard]] bool ask(const Question& question, Exchange* waiter, TimePoint now);
  void settle(Waiting::Entry entry, const Answer& answer, TimePoint now);

  // False: it waits.
  [[nodiscard]] bool advance(Exchange& exchange, TimePoint now);
  [[nodiscard]] Reply reply_to(Exchange& exchange, Step step, TimePoint now);
  [[nodiscard]] Reply let_in(const Exchange& exchange, const Allow& allow, TimePoint now);
  [[nodiscard]] Reply refusal(const Exchange& exchange, const Refuse& refuse, TimePoint now);
  void want_open(const MakeOpening& opening, TimePoint now);
  void note_refused(const Refuse& refuse, TimePoint now);
  void refresh_people();
  void ask_ahead(const Question& question, TimePoint now);
  [[nodiscard]] Step decide_again(Conversation& caller, TimePoint now);

  const Published<const Directory>& source_;
  std::shared_ptr<const Directory> directory_;
  std::uint64_t version_ = 0;
  Asker* const asker_;
  PeopleSource people_;
  AnswerCache cache_;
  Waiting questions_;
  // Shared with those who answer.
  const std::shared_ptr<Mailbox<Answered>> inbox_;
  Doors doors_;
  const EndpointHooks hooks_;
  const std::function<void(std::string)> note_, warn_;

  std::set<policy::PublishKey> used_;
  std::map<std::pair<std::string, std::uint16_t>, TimePoint> opening_;
  struct Said {
    TimePoint again{};
    std::uint64_t more = 0;
  };
  std::map<Reason, Said> said_;
  EndpointCounts counts_;
  bool closed_ = false;
};

}  // namespace meshd::proxy
