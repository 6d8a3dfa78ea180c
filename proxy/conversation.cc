#include "proxy/conversation.h"

#include <fmt/format.h>

#include <algorithm>

#include "pki/secret.h"
#include "proxy/nginx_config.h"

namespace meshd::proxy {
namespace {

constexpr std::size_t kMaxShownHost = 260;  // of a page; longer ones are no names
// Of a digest: cannot be tried through, and a socket's path has but 107 bytes.
constexpr std::size_t kKeyBytes = 20;

Reason reason_of(const HostProblem& problem) {
  if (problem.status == 404) return Reason::kNoSuchName;
  return problem.status == 421 ? Reason::kMisdirected : Reason::kOddRequest;
}

void add(Reply& reply, std::string_view name, std::string_view value) {
  if (!value.empty()) reply.headers.emplace_back(name, value);
}

Reply not_let_in(int status) {
  Reply reply;
  reply.status = 403;  // whatever it is: nginx knows this one and 401
  add(reply, kStatusHeader, fmt::to_string(status));
  return reply;
}

}  // namespace

Conversation::Conversation(const Site& site, const Told& told)
    : host_(told.head.host.substr(0, kMaxShownHost)),
      html_(wants_html(told.head.accept)),
      safe_(told.head.method == "GET" || told.head.method == "HEAD") {
  const auto odd = [this](Reason reason, std::string_view why) {
    problem_ = Refuse{reason, {}, {}};
    detail_ = why;
  };
  auto target = parse_target(site, told.head.host, told.line_host);
  if (told.twice) {
    odd(Reason::kOddRequest, "a header came twice");
  } else if (!target) {
    odd(reason_of(target.error()), target.error().why);
  } else if (auto request = parse_request(told.head, container_cookie(*target)); !request) {
    odd(Reason::kOddRequest, request.error().what);
  } else {
    target_ = *std::move(target);
    request_ = *std::move(request);
  }
}

Step Conversation::step(const Directory* directory, const Lookup& lookup) {
  if (problem_) return *problem_;
  if (directory == nullptr) return Refuse{Reason::kCannotAsk, {}, {}};
  Known known;
  for (;;) {
    auto step = decide(*directory, target_, request_, known);
    const auto* ask = std::get_if<Ask>(&step);
    if (ask == nullptr) return step;
    const auto& question = ask->question;
    if (question.what == Question::What::kLevel) level_question_ = question;
    std::optional<Answer> answer;
    const auto told = std::ranges::find(told_, question, &std::pair<Question, Answer>::first);
    if (told != told_.end()) answer = told->second;
    if (!answer) answer = lookup(question);
    if (!answer) {
      if (told_.size() < kMaxQuestions) return step;
      return Refuse{Reason::kCannotAsk, {}, {}};
    }
    known.take(question, *std::move(answer));
  }
}

Conversation Conversation::of_instance(const Allow& allow) const {
  auto result = *this;
  result.target_ = InstanceTarget{allow.id, allow.port};
  result.told_.clear();
  // Decides nothing, and is long.
  result.request_.cookie.clear();
  result.request_.authorization.clear();
  result.request_.other_cookies.clear();
  result.request_.uri = "/";
  return result;
}

std::string Conversation::relay_key(const Allow& allow) const {
  const auto& token = request_.cookie_token.empty() ? request_.bearer : request_.cookie_token;
  // A client's address too, since an allow_from is about that.
  const auto client = request_.client ? request_.client->to_string() : std::string();
  std::string text;
  // None of them can hold a line's end.
  for (const auto& part :
       {token, target_text(target_), allow.id, fmt::to_string(allow.port), client}) {
    text.append(part) += '\n';
  }
  const auto digest = pki::sha256(text);
  return pki::to_hex(std::span(digest).first<kKeyBytes>());
}

Reply Conversation::page(const Refuse& refuse) const {
  return refusal_reply(refuse, {host_, detail_, html_, safe_});
}

Step Conversation::after_allow(const Allow& allow, bool down) const {
  if (down) return Refuse{Reason::kDoesNotAnswer, allow.user, allow.id};
  // The browser comes again, and is let in.
  if (safe_ && !request_.upgrade) return Redirect{request_.uri, {}, false};
  return Refuse{Reason::kNotReady, allow.user, allow.id};
}

Reply auth_reply(const Allow& allow, std::string_view upstream) {
  Reply reply;
  reply.status = 200;
  add(reply, kUpstreamHeader, upstream);
  add(reply, kUserHeader, allow.user.name);
  add(reply, kArvadosUserHeader, allow.user.uuid);
  add(reply, kCookieHeader, allow.cookie);
  add(reply, kAuthorizationHeader, allow.authorization);
  add(reply, kSetCookieHeader, allow.set_cookie);
  return reply;
}

Reply auth_reply(const Redirect& redirect) {
  auto reply = not_let_in(303);
  add(reply, kLocationHeader, redirect.location);
  // nginx takes one from here; all of them come from /answer.
  if (!redirect.set_cookies.empty()) add(reply, kSetCookieHeader, redirect.set_cookies.front());
  return reply;
}

Reply auth_reply(const Refuse& refuse) {
  auto reply = not_let_in(status_of(refuse.reason));
  add(reply, kTextHeader, refusal_text(refuse.reason));
  return reply;
}

std::optional<Upstream> parse_upstream(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  auto host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const auto address = IpAddress::parse(host);
  const auto port = parse_port(text.substr(colon + 1));
  if (!address || !port) return std::nullopt;
  return Upstream{*address, *port};
}

Fate fate_of(const Step& now, std::string_view upstream) {
  if (std::holds_alternative<Ask>(now)) return Fate::kUnsure;
  if (const auto* allow = std::get_if<Allow>(&now)) {
    return allow->upstream == upstream ? Fate::kGoesOn : Fate::kCut;
  }
  // Both are said to somebody who may: what drains finishes what is under way, and who does not
  // listen for a moment has not left whom they speak with.
  const auto* refuse = std::get_if<Refuse>(&now);
  const bool stays = refuse != nullptr &&
                     (refuse->reason == Reason::kEnding || refuse->reason == Reason::kNotReady);
  return stays ? Fate::kGoesOn : Fate::kCut;
}

}  // namespace meshd::proxy
