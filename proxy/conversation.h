// One request as nginx tells it, from its head to what nginx is to do with it.
//
// Threads:   one. Pure: what is not known is a step that says what to ask.
// Invariant: what cannot be read is refused, and what is not Allow is never answered as one.
//            Terminates: kMaxQuestions are asked for one request, whatever the directory does.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/pages.h"
#include "proxy/relay.h"
#include "proxy/verdict.h"

namespace meshd::proxy {

// Two at a time (proxy/verdict.h), and once more where the directory changed meanwhile.
inline constexpr std::size_t kMaxQuestions = 4;

// Views of what the caller has.
struct Told {
  RequestHead head;
  std::string_view line_host;
  bool twice = false;  // one of nginx's headers came more than once
};

class Conversation {
 public:
  Conversation(const Site& site, const Told& told);

  // What is known without waiting.
  using Lookup = std::function<std::optional<Answer>(const Question&)>;
  // With the directory as it is now (null: nobody has made one). An Ask is to be answered by
  // answered(), and then decided again.
  [[nodiscard]] Step step(const Directory* directory, const Lookup& lookup);
  void answered(const Question& question, Answer answer) {
    told_.emplace_back(question, std::move(answer));
  }

  // What may go on when this was allowed and a connection stays open: bound to this very workload,
  // for which another replica is no substitute. Without what was answered: it is asked again.
  [[nodiscard]] Conversation of_instance(const Allow& allow) const;
  // Hexadecimal digits that stand for the caller and the workload's port.
  [[nodiscard]] std::string relay_key(const Allow& allow) const;
  // The last one about their level; absent: nobody has to be asked.
  [[nodiscard]] const std::optional<Question>& level_question() const { return level_question_; }

  [[nodiscard]] bool upgrade() const { return request_.upgrade; }

  // What /answer says: the page, or where to go.
  [[nodiscard]] Reply page(const Refuse& refuse) const;
  // Of a request that /auth let in or would now: its container does not answer (`down`), or what
  // kept it out has changed since.
  [[nodiscard]] Step after_allow(const Allow& allow, bool down) const;

 private:
  std::optional<Refuse> problem_;
  std::string detail_;  // of the problem
  std::string host_;
  bool html_ = false, safe_ = false;
  Target target_;
  Request request_;
  std::optional<Question> level_question_;
  std::vector<std::pair<Question, Answer>> told_;
};

// What /auth says. `upstream`: as proxy_pass takes it behind "http://".
[[nodiscard]] Reply auth_reply(const Allow& allow, std::string_view upstream);
[[nodiscard]] Reply auth_reply(const Redirect& redirect);
[[nodiscard]] Reply auth_reply(const Refuse& refuse);

// Of Allow::upstream.
[[nodiscard]] std::optional<Upstream> parse_upstream(std::string_view text);

// May a connection go on that was let in with this upstream? kUnsure: an answer is missing.
enum class Fate : std::uint8_t { kGoesOn, kUnsure, kCut };
[[nodiscard]] Fate fate_of(const Step& now, std::string_view upstream);

}  // namespace meshd::proxy
