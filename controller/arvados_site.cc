#include "controller/arvados_site.h"

#include <utility>

namespace meshd::controller {

void ArvadosNames::take(const arvados::Site& site, TimePoint now, const Sink& sink) {
  for (const auto& [name, at] : site.names) {
    // Not the container: of one request the next has the name when it is declared.
    const proxy::Target target = proxy::RequestTarget{at.request, at.port};
    auto& known = names_[name];
    if (known.target != target && sink) sink(name, target);
    known = {target, std::nullopt};
  }
  for (auto known = names_.begin(); known != names_.end();) {
    const auto at = known++;
    if (site.names.contains(at->first)) continue;
    auto& gone_at = at->second.gone_at;
    if (!gone_at) gone_at = now;
    if (site.ended_names.contains(at->first) && now - *gone_at < kNameRemembered) continue;
    if (sink) sink(at->first, std::nullopt);
    names_.erase(at);
  }
}

Result<std::unique_ptr<ArvadosSite>> ArvadosSite::make(const ArvadosConfig& config,
                                                       Controller& controller,
                                                       ArvadosNames::Sink names) {
  Parts parts;
  parts.token = TRY(TokenFile::open(config.token_file));
  for (auto* client : {&parts.reading, &parts.asking}) {
    *client = TRY(arvados::Client::make({.host = config.api_host, .ca_file = config.ca_file}));
  }
  return std::unique_ptr<ArvadosSite>(
      new ArvadosSite(config, controller, std::move(names), std::move(parts)));
}

ArvadosSite::ArvadosSite(const ArvadosConfig& config, Controller& controller,
                         ArvadosNames::Sink names, Parts parts)
    : controller_(controller),
      sink_(std::move(names)),
      declarer_(controller),
      poller_({.pause = config.poll}, declarer_.known()),
      token_(std::move(parts.token)),
      asker_(*parts.asking, *token_),
      asking_(std::move(parts.asking)),
      reading_(std::move(parts.reading)) {
  controller_.tell_waits([this](const std::string& id) { want(id); });
  controller_.set_launch_report({.trouble = "the API has not been read yet"});
}

ArvadosSite::~ArvadosSite() { controller_.tell_waits({}); }

void ArvadosSite::serve(const Moment& now) {
  for (auto& replied : replies_.drain()) {
    poller_.take(replied.number, replied.reply, now.steady);
  }
  for (const auto& news : poller_.news()) take(news, now);
  ask(now.steady);
}

void ArvadosSite::want(const std::string& id) {
  const auto now = BootClock::now();
  // Too many wait already: the next reading of everything has it.
  if (poller_.want(id, now)) ask(now);
}

void ArvadosSite::ask(TimePoint now) {
  while (const auto question = poller_.next(now)) {
    token_->refresh();
    const auto posted = reading_->ask(question->ask, *token_->token(),
                                      arvados::post_to(replies_, question->number));
    if (!posted) poller_.take(question->number, {.trouble = "too much is under way"}, now);
  }
}

void ArvadosSite::take(const arvados::News& news, const Moment& now) {
  if (const auto* const listing = std::get_if<arvados::Listing>(&news)) {
    const auto site = arvados::site_of(*listing);
    declarer_.take(*listing, site, now);
    names_.take(site, now.steady, sink_);
    poller_.know(declarer_.known());
  } else if (const auto* const found = std::get_if<arvados::Found>(&news)) {
    declarer_.take(*found, now);
    for (const auto& id : found->unknown) controller_.say_unknown(id, now);
  } else if (const auto* const trouble = std::get_if<arvados::Trouble>(&news)) {
    declarer_.set_trouble(trouble->why, now);
  }
}

}  // namespace meshd::controller
