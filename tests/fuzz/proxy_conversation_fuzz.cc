// All that nginx says of one request, as any bytes, from head to reply: whoever has no token of the
// sample is never let in where one is needed, and each reply is one that HTTP can carry.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "proxy/conversation.h"
#include "proxy/nginx_config.h"
#include "proxy/request.h"
#include "tests/proxy/samples.h"

namespace meshd::proxy {
namespace {

constexpr std::string_view kToken = "mesh_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

void require(bool holds) {
  if (!holds) std::abort();
}

const Directory& sample_directory() {
  static const auto kDirectory = [] {
    DirectoryWriter writer;
    auto opening = sample_opening("w1", "db");
    opening.ports.push_back(sample_port(80, Access::kPublic));
    writer.set(opening);
    writer.set(sample_opening("w2", "db"));
    return writer.directory();
  }();
  return *kDirectory;
}

// One field up to each line's end; what is absent is empty.
Told told_by(std::string_view text) {
  Told told;
  auto& head = told.head;
  for (auto* field :
       {&head.method, &head.host, &told.line_host, &head.uri, &head.cookie, &head.authorization,
        &head.upgrade, &head.origin, &head.accept, &head.client}) {
    const auto end = text.find('\n');
    *field = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return told;
}

void check_reply(const Reply& reply) {
  require(reply.status >= 200 && reply.status <= 599);
  for (const auto& [name, value] : reply.headers) {
    require(!name.empty() && !value.empty());
    require(std::ranges::none_of(value, [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; }));
  }
}

// The container may be sent what merely holds a token's letters (a cookie or a credential of its
// own), and nothing in which we ourselves would find one.
void check_shown(const Allow& allow) {
  RequestHead head;
  head.method = "GET";
  head.uri = "/";
  head.cookie = allow.cookie;
  head.authorization = allow.authorization;
  const auto shown = parse_request(head, kContainerCookie);
  require(shown.has_value());
  require(shown->cookie_token.empty() && shown->pass.empty() && shown->container.empty());
  require(shown->bearer != kToken);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Site kSite{"mesh.example.org", 443, "", 0, 0};
  Conversation one(kSite, told_by({reinterpret_cast<const char*>(data), size}));
  bool asked = false;
  const auto step = one.step(&sample_directory(), [&](const Question& question) {
    asked = true;
    const bool good = question.token == kToken;
    return std::optional(Answer{good ? Answer::Kind::kGood : Answer::Kind::kBadToken,
                                {"", "bob", false},
                                Access::kCanRead});
  });
  if (const auto* allow = std::get_if<Allow>(&step)) {
    require(allow->port == 80 || (allow->port == 8888 && asked));
    require(parse_upstream(allow->upstream).has_value());
    require(one.relay_key(*allow).size() == 40);
    check_reply(auth_reply(*allow, allow->upstream));
    check_shown(*allow);
    auto bound = one.of_instance(*allow);
    const auto again = bound.step(&sample_directory(), [](const Question& question) {
      const bool good = question.token == kToken;
      return std::optional(Answer{good ? Answer::Kind::kGood : Answer::Kind::kBadToken,
                                  {"", "bob", false},
                                  Access::kCanRead});
    });
    require(fate_of(again, allow->upstream) == Fate::kGoesOn);
    for (const bool down : {false, true}) {
      require(!std::holds_alternative<Allow>(one.after_allow(*allow, down)));
    }
  }
  if (const auto* refuse = std::get_if<Refuse>(&step)) {
    check_reply(auth_reply(*refuse));
    check_reply(one.page(*refuse));
  }
  if (const auto* redirect = std::get_if<Redirect>(&step)) {
    require(auth_reply(*redirect).status == 403);
    require(redirect_reply(*redirect).status == 303);
  }
  return 0;
}

}  // namespace meshd::proxy
