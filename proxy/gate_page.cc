// What Gate does for the page, and for those who come from it.
#include <utility>

#include "proxy/gate.h"

namespace meshd::proxy {

// Null as well when it is so old that it says nothing of now.
std::shared_ptr<const Overview> Gate::overview(TimePoint now) {
  auto newest = overviews_ == nullptr ? nullptr : overviews_->load();
  return newest == nullptr || now - newest->made_at > kOverviewFresh ? nullptr : newest;
}

bool Gate::advance_page(Exchange& exchange, TimePoint now) {
  auto& conversation = exchange.conversation;
  const auto* const request = conversation.page_request();
  if (request == nullptr) {
    const Refuse elsewhere{Reason::kMisdirected, {}, {}};
    exchange.reply = conversation.page(conversation.problem().value_or(elsewhere));
    return true;
  }
  const auto shown = overview(now);
  auto step = page_step(names_, *request, shown.get(), std::nullopt);
  if (const auto* asked = std::get_if<Ask>(&step)) {
    auto who = conversation.told(asked->question);
    if (!who) who = known(asked->question, now, Count::kYes);
    if (!who && ask(asked->question, &exchange, now)) return false;
    step = page_step(names_, *request, shown.get(), who.value_or(Answer()));
  }
  exchange.reply = page_reply(exchange, std::move(step), now);
  return true;
}

Reply Gate::page_reply(const Exchange& exchange, PageStep step, TimePoint now) {
  ++counts_.verdicts["page"];
  if (auto* said = std::get_if<PageReply>(&step)) {
    if (said->looked && hooks_.looked && now - looked_at_ >= kLookedAgain) {
      looked_at_ = now;
      hooks_.looked();
    }
    return std::move(said->reply);
  }
  if (auto* on = std::get_if<GoOn>(&step)) {
    const auto pass = passes_.issue(std::move(on->token), target_text(on->target), now);
    if (pass) return page_redirect(on->url, {pass_cookie(names_, *pass, kPassLife.count())});
    warn_("passes: " + pass.error().what);
  }
  return exchange.conversation.page({Reason::kCannotAsk, {}, {}});
}

// Asked twice, as everything: a pass is spent by the answer that carries the cookie.
Reply Gate::enter(const Exchange& exchange, TimePoint now) {
  const auto& conversation = exchange.conversation;
  if (exchange.at == Exchange::At::kAuth) {
    ++counts_.verdicts["redirect"];
    return auth_reply(conversation.entered(std::nullopt));
  }
  const auto token = passes_.redeem(conversation.pass(), target_text(conversation.target()), now);
  auto redirect = conversation.entered(token);
  if (!conversation.pass().empty()) redirect.set_cookies.push_back(pass_cookie(names_, "", 0));
  return redirect_reply(redirect);
}

}  // namespace meshd::proxy
