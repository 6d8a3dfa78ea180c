#include "proxy/pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace meshd::proxy {
namespace {

struct Words {
  Reason reason;
  std::string_view title, text;
  std::int64_t retry_s = 0;  // 0: trying again changes nothing
};
constexpr Words kWords[] = {
    {Reason::kOddRequest, "This request makes no sense here",
     "It is not written the way browsers write requests, and was not passed on."},
    {Reason::kSignIn, "Please sign in",
     "This service is for people it is shared with. Open it by a link that signs you in, or enter "
     "a token."},
    {Reason::kBadToken, "Please sign in again",
     "Your sign-in is not valid here any more, or never was. Open the service by a link that signs "
     "you in, or enter another token."},
    {Reason::kNotYours, "This is not shared with you",
     "You may know of this service but not open it. Its owner can share it with you."},
    {Reason::kNotFromHere, "Not from where you are",
     "This service is open to certain networks alone, and yours is not among them."},
    {Reason::kForeignPage, "A page of another site asked for this",
     "What changes something here is taken from pages of this service alone. Open it directly."},
    {Reason::kNoSuchName, "There is no such service",
     "Nothing is known by this name, or it is not shared with you."},
    {Reason::kNotReadable, "There is no such service",
     "Nothing is known by this name, or it is not shared with you."},
    {Reason::kNoSuchPort, "Nothing to open here",
     "There is a service of this name, but it has nothing for browsers on this port."},
    {Reason::kEnded, "This service has ended",
     "It ran here and is over. If it is started again under the same name, this address will lead "
     "to it."},
    {Reason::kEnding, "This service is about to end",
     "It finishes what is under way and takes on nothing new."},
    {Reason::kUnassigned, "Nobody is at this port",
     "No service has this port at present. One that had it may have ended."},
    {Reason::kChanged, "Another container is here now",
     "It took the place of the one that you were speaking with and knows nothing of it. Load the "
     "service again, then repeat what you did."},
    {Reason::kMisdirected, "Not an address of this site",
     "No service here is called by this name. Look at the address again."},
    {Reason::kDoesNotAnswer, "The service does not answer",
     "It runs, but did not answer as a web server does. It may be busy, or about to fail; its log "
     "can tell."},
    {Reason::kNotStarted, "Not started yet",
     "The service is waiting for a place to run. This page tries again by itself.", 5},
    {Reason::kNotReady, "Not ready yet",
     "The service is starting. This page tries again by itself.", 2},
    {Reason::kBeingOpened, "One moment",
     "This port is being opened for you. This page tries again by itself.", 1},
    {Reason::kTooManyOpen, "Too many ports are open",
     "As many ports of this container as are opened without being published are in use. One that "
     "nobody uses closes by itself after some minutes; then load this page again."},
    {Reason::kCannotAsk, "Cannot ask who you are",
     "Whoever knows what you may open does not answer at present. This page tries again by itself.",
     5},
};

const Words& words_of(Reason reason) { return *std::ranges::find(kWords, reason, &Words::reason); }

// A card in the middle, in the colours that the reader has chosen.
constexpr std::string_view kStyle =
    ":root{color-scheme:light dark;--ground:#f5f6f8;--card:#fff;--ink:#1c2330;--soft:#5a6475;"
    "--line:#d5dae3;--accent:#1f5fbf}"
    "@media(prefers-color-scheme:dark){:root{--ground:#12151b;--card:#1b2029;--ink:#e7eaf0;"
    "--soft:#a3adbd;--line:#343c4a;--accent:#8ab4ff}}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--ground);"
    "color:var(--ink);font:1rem/1.5 system-ui,sans-serif}"
    "main{box-sizing:border-box;width:min(34rem,92vw);margin:1rem;padding:1.75rem 2rem;"
    "background:var(--card);border:1px solid var(--line);border-radius:.75rem}"
    "h1{margin:0 0 .5rem;font-size:1.35rem;line-height:1.25}p{margin:.5rem 0}"
    ".soft{color:var(--soft);font-size:.875rem;overflow-wrap:anywhere}a{color:var(--accent)}"
    ":focus-visible{outline:3px solid var(--accent);outline-offset:2px}";
constexpr std::string_view kFormStyle =
    "form{display:flex;gap:.5rem;margin:1rem 0;flex-wrap:wrap}label{flex-basis:100%}"
    "input{flex:1 1 12rem;padding:.5rem .6rem;border:1px solid var(--line);border-radius:.4rem;"
    "background:var(--ground);color:var(--ink);font:inherit}"
    "button{padding:.5rem 1rem;border:0;border-radius:.4rem;background:var(--accent);"
    "color:var(--card);font:inherit;cursor:pointer}";

// The token goes the way of a link's: into the address, and from there into a cookie at once.
constexpr std::string_view kSignInForm =
    "<form method=\"get\"><label for=\"token\">Token</label>"
    "<input id=\"token\" name=\"api_token\" type=\"password\" autocomplete=\"off\" required>"
    "<button>Sign in</button></form>";

bool signs_in(Reason reason) { return reason == Reason::kSignIn || reason == Reason::kBadToken; }

// Who is not to know that there is such a service sees what all see.
bool tells_nothing(Reason reason) {
  return reason == Reason::kNoSuchName || reason == Reason::kNotReadable;
}

std::string html_page(const Words& words, const Refuse& refuse, const Looking& looking) {
  std::string head, body;
  if (words.retry_s != 0 && looking.safe) {
    head = fmt::format("<meta http-equiv=\"refresh\" content=\"{}\">", words.retry_s);
  }
  if (!looking.detail.empty()) {
    body += fmt::format("<p>In particular: {}.</p>", escape_html(looking.detail));
  }
  if (signs_in(refuse.reason)) body += kSignInForm;
  if (!refuse.user.name.empty() && !tells_nothing(refuse.reason)) {
    body += fmt::format(
        "<p class=\"soft\">You are signed in as {}. <a href=\"?api_token=\">Sign out</a></p>",
        escape_html(refuse.user.name));
  }
  // What a name can be at most; a longer Host is none.
  constexpr std::size_t kShown = 260;
  return fmt::format(
      "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<meta name=\"referrer\" "
      "content=\"no-referrer\">{}<title>{}</title><style>{}{}</style></head>"
      "<body><main><h1>{}</h1><p>{}</p>{}<p class=\"soft\">{} {}</p></main></body></html>\n",
      head, words.title, kStyle, signs_in(refuse.reason) ? kFormStyle : "", words.title, words.text,
      body, status_of(refuse.reason), escape_html(looking.host.substr(0, kShown)));
}

// "This page" means something to its reader alone.
std::string_view sentence_for_programs(const Words& words) {
  constexpr std::string_view kOfPages = " This page tries again by itself.";
  return words.text.ends_with(kOfPages) ? words.text.substr(0, words.text.size() - kOfPages.size())
                                        : words.text;
}

std::string json_errors(const Words& words, const Looking& looking) {
  auto text = fmt::format("{}: {}", words.title, sentence_for_programs(words));
  if (!looking.detail.empty()) text += fmt::format(" In particular: {}.", looking.detail);
  return fmt::format("{{\"errors\":[{}]}}\n", json_string(text));
}

void add_common_headers(Reply& reply) {
  reply.headers.emplace_back("Cache-Control", "no-store");
  reply.headers.emplace_back("Referrer-Policy", "no-referrer");
  reply.headers.emplace_back("X-Content-Type-Options", "nosniff");
}

}  // namespace

Reply refusal_reply(const Refuse& refuse, const Looking& looking) {
  const auto& words = words_of(refuse.reason);
  Reply reply;
  reply.status = status_of(refuse.reason);
  add_common_headers(reply);
  if (looking.html) {
    reply.headers.emplace_back("Content-Type", "text/html; charset=utf-8");
    reply.headers.emplace_back("Content-Security-Policy",
                               "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
                               "frame-ancestors 'none'; base-uri 'none'");
    reply.body = html_page(words, refuse, looking);
  } else {
    reply.headers.emplace_back("Content-Type", "application/json");
    reply.body = json_errors(words, looking);
  }
  if (words.retry_s != 0) reply.headers.emplace_back("Retry-After", fmt::to_string(words.retry_s));
  // RFC 9110 section 15.5.2 wants it; browsers show no dialog for a scheme that they do not know.
  if (reply.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

Reply redirect_reply(const Redirect& redirect) {
  Reply reply;
  reply.status = 303;
  add_common_headers(reply);
  reply.headers.emplace_back("Location", redirect.location);
  for (const auto& cookie : redirect.set_cookies) reply.headers.emplace_back("Set-Cookie", cookie);
  // Not "cookies": that would end the sign-in at every name of the zone.
  if (redirect.clear_site_data) {
    reply.headers.emplace_back("Clear-Site-Data", "\"cache\", \"storage\"");
  }
  // For whoever follows nothing by itself (RFC 9110 section 15.4.4).
  reply.headers.emplace_back("Content-Type", "text/html; charset=utf-8");
  reply.body =
      "<!DOCTYPE html><html lang=\"en\"><head><title>Sent on</title></head><body><h1>Sent on</h1>"
      "<p>This page opens at another address, to which browsers go by themselves.</p>"
      "</body></html>\n";
  return reply;
}

std::string_view refusal_text(Reason reason) { return words_of(reason).title; }

std::string_view closed_text() { return "Whoever decides what may be opened does not answer."; }

std::string closed_page() {
  return fmt::format(
      "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<title>Closed for the moment</title><style>{}</style></head><body><main>"
      "<h1>Closed for the moment</h1><p>{} "
      "Services go on; load this page again in a few seconds.</p>"
      "<p class=\"soft\">503</p></main></body></html>",
      kStyle, closed_text());
}

std::string escape_html(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      // Other bytes than ASCII may be no UTF-8, and controls are no text.
      default:
        result += c >= ' ' && c < '\x7f' ? c : '?';
    }
  }
  return result;
}

std::string json_string(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c >= ' ' && c < '\x7f' ? c : '?';
  }
  return result + '"';
}

}  // namespace meshd::proxy
