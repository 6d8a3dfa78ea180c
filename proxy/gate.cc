#include "proxy/gate.h"

#include <fmt/format.h>

namespace meshd::proxy {

Gate::Gate(Parts parts)
    : source_(*parts.directory),
      asker_(parts.asker),
      people_(std::move(parts.people)),
      cache_(parts.cache),
      questions_(parts.ask_limit),
      inbox_(std::make_shared<Mailbox<Answered>>(kMaxQuestionsUnderWay)),
      doors_(std::move(parts.relay), parts.cache.positive / 3),
      hooks_(std::move(parts.hooks)),
      note_(std::move(parts.note)),
      warn_(std::move(parts.warn)) {}

const Directory* Gate::directory() {
  if (const auto now = source_.version(); now != version_) {
    version_ = now;
    directory_ = source_.load();
  }
  return directory_.get();
}

// --- questions -----------------------------------------------------------------------

std::optional<Answer> Gate::known(const Question& question, TimePoint now, Count count) {
  const auto* const cached = cache_.find(question, now);
  if (count == Count::kYes) ++(cached != nullptr ? counts_.cache_hits : counts_.cache_misses);
  if (cached != nullptr) return *cached;
  if (asker_ != nullptr) return std::nullopt;
  const auto utc = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  auto found = answer(people_.people(), question, utc);
  cache_.put(question, found, now);
  return found;
}

// False: nobody can be asked.
bool Gate::ask(const Question& question, Exchange* waiter, TimePoint now) {
  if (questions_.join(question, waiter)) return true;
  if (asker_ == nullptr || closed_) return false;
  const auto number = questions_.add(question, waiter, now);
  if (!number) return false;
  ++counts_.asked;
  const bool taken = asker_->ask(question, [inbox = inbox_, number = *number](Answer answer) {
    // A box that is full holds answers that nobody asked for; whoever waits has an end anyway.
    [[maybe_unused]] const bool posted = inbox->post({number, std::move(answer)});
  });
  if (!taken) questions_.forget(*number);
  return taken;
}

void Gate::settle(Waiting::Entry entry, const Answer& answer, TimePoint now) {
  for (auto* exchange : entry.waiting) {
    exchange->conversation.answered(entry.question, answer);
    if (advance(*exchange, now)) exchange->wake();
  }
}

void Gate::serve_answers(TimePoint now) {
  for (auto& [number, answer] : inbox_->drain()) {
    auto entry = questions_.take(number);
    if (!entry) continue;
    // What was good when they were asked may have been taken away since; it lives from then.
    const bool good = answer.kind == Answer::Kind::kGood;
    if (!entry->late) cache_.put(entry->question, answer, good ? entry->asked : now);
    if (answer.kind == Answer::Kind::kUnavailable) ++counts_.not_answered;
    settle(*std::move(entry), answer, now);
  }
}

void Gate::close(TimePoint now) {
  closed_ = true;
  while (auto entry = questions_.take_overdue(TimePoint::max())) {
    settle(*std::move(entry), Answer(), now);
  }
}

// --- requests ------------------------------------------------------------------------

void Gate::begin(Exchange& exchange, TimePoint now) {
  [[maybe_unused]] const bool done = advance(exchange, now);
}

bool Gate::advance(Exchange& exchange, TimePoint now) {
  auto step = exchange.conversation.step(
      directory(), [&](const Question& question) { return known(question, now, Count::kYes); });
  if (const auto* question = std::get_if<Ask>(&step)) {
    if (ask(question->question, &exchange, now)) return false;
    step = Refuse{Reason::kCannotAsk, {}, {}};
  }
  exchange.reply = reply_to(exchange, std::move(step), now);
  return true;
}

Reply Gate::reply_to(Exchange& exchange, Step step, TimePoint now) {
  const bool auth = exchange.at == Exchange::At::kAuth;
  if (const auto* allow = std::get_if<Allow>(&step)) {
    if (auth) return let_in(exchange, *allow, now);
    step = exchange.conversation.after_allow(*allow, exchange.is_down);
  }
  if (const auto* make = std::get_if<MakeOpening>(&step)) {
    want_open(*make, now);
    step = Refuse{Reason::kBeingOpened, make->user, make->id};
  }
  if (const auto* redirect = std::get_if<Redirect>(&step)) {
    if (!auth) return redirect_reply(*redirect);
    ++counts_.verdicts["redirect"];
    return auth_reply(*redirect);
  }
  const auto* refuse = std::get_if<Refuse>(&step);
  return refusal(exchange, refuse == nullptr ? Refuse{Reason::kCannotAsk, {}, {}} : *refuse, now);
}

Reply Gate::let_in(const Exchange& exchange, const Allow& allow, TimePoint now) {
  auto upstream = allow.upstream;
  if (exchange.conversation.upgrade()) {
    auto path = doors_.open(exchange.conversation, allow, now);
    if (!path) {
      warn_("websockets: " + path.error().what);
      return refusal(exchange, {Reason::kNotReady, allow.user, allow.id}, now);
    }
    upstream = *std::move(path);
  }
  ++counts_.verdicts["allow"];
  used_.insert({allow.id, Proto::kTcp, allow.port});
  return auth_reply(allow, upstream);
}

Reply Gate::refusal(const Exchange& exchange, const Refuse& refuse, TimePoint now) {
  const bool auth = exchange.at == Exchange::At::kAuth;
  // What /answer repeats has been counted.
  if (auth || refuse.reason == Reason::kDoesNotAnswer) {
    ++counts_.verdicts[reason_word(refuse.reason)];
    note_refused(refuse, now);
  }
  return auth ? auth_reply(refuse) : exchange.conversation.page(refuse);
}

void Gate::want_open(const MakeOpening& opening, TimePoint now) {
  const auto key = std::pair(opening.id, opening.port);
  if (opening_.contains(key) || opening_.size() >= kMaxOpenings) return;
  opening_.emplace(key, now);
  if (hooks_.open) hooks_.open(opening);
}

// The first of its kind, and how many there were a minute later.
void Gate::note_refused(const Refuse& refuse, TimePoint now) {
  auto& said = said_[refuse.reason];
  if (now < said.again) {
    ++said.more;
    return;
  }
  std::string text = fmt::format("refused: {}", reason_word(refuse.reason));
  if (!refuse.id.empty()) text += fmt::format(", {}", refuse.id);
  if (!refuse.user.name.empty()) text += fmt::format(", to {}", refuse.user.name);
  if (said.more != 0) text += fmt::format(" ({} more since the last such line)", said.more);
  said = {now + kSayAgain, 0};
  note_(std::move(text));
}

// --- every second --------------------------------------------------------------------

void Gate::refresh_people() {
  const auto changed = people_.refresh();
  if (!changed) {
    warn_(changed.error().what + "; those who were there before stay");
  } else if (*changed) {
    cache_.clear();
    note_(fmt::format("the token file has {} tokens now", people_.people().size()));
  }
}

void Gate::ask_ahead(const Question& question, TimePoint now) {
  if (asker_ == nullptr) return;  // they have been asked just now
  [[maybe_unused]] const bool asked = ask(question, nullptr, now);
}

Step Gate::decide_again(Conversation& caller, TimePoint now) {
  auto step = caller.step(directory(), [&](const Question& question) {
    // What of Authorization it may see, it has seen.
    if (question.what == Question::What::kWho) return std::optional(Answer());
    return known(question, now, Count::kNo);
  });
  if (const auto* missing = std::get_if<Ask>(&step)) ask_ahead(missing->question, now);
  return step;
}

void Gate::tick(TimePoint now) {
  if (asker_ == nullptr) refresh_people();
  while (auto entry = questions_.take_overdue(now)) {
    ++counts_.not_answered;
    settle(*std::move(entry), Answer(), now);
  }
  const auto decide = [&](Conversation& caller) { return decide_again(caller, now); };
  const auto refresh = [&](const Question& question) { ask_ahead(question, now); };
  doors_.sweep(now, decide, refresh, used_);
  std::erase_if(opening_, [&](const auto& entry) { return now - entry.second >= kOpenAgain; });
  if (!used_.empty()) {
    if (hooks_.used) hooks_.used({used_.begin(), used_.end()});
    used_.clear();
  }
}

EndpointCounts Gate::counts() const {
  auto counts = counts_;
  counts.waiting = questions_.waiting();
  counts.websockets = doors_.connections();
  counts.callers = doors_.callers();
  counts.websockets_cut = doors_.cut();
  return counts;
}

}  // namespace meshd::proxy
