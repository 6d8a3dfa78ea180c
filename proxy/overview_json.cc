#include "proxy/overview_json.h"

#include <fmt/format.h>

#include <array>
#include <concepts>
#include <cstdint>

namespace meshd::proxy {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// Bytes of the character that `text` begins with; 0: it is none (RFC 3629 section 4).
std::size_t character_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto follows = [&](std::size_t i, unsigned least, unsigned most) {
    return text.size() > i && byte(i) >= least && byte(i) <= most;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return follows(1, 0x80, 0xbf) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const unsigned least = first == 0xe0 ? 0xa0 : 0x80, most = first == 0xed ? 0x9f : 0xbf;
    return follows(1, least, most) && follows(2, 0x80, 0xbf) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const unsigned least = first == 0xf0 ? 0x90 : 0x80, most = first == 0xf4 ? 0x8f : 0xbf;
    return follows(1, least, most) && follows(2, 0x80, 0xbf) && follows(3, 0x80, 0xbf) ? 4 : 0;
  }
  return 0;
}

// Members and elements in the order in which they are written.
class Json {
 public:
  Json& open(char bracket) {
    separate();
    text_ += bracket;
    first_ = true;
    return *this;
  }
  Json& close(char bracket) {
    text_ += bracket;
    first_ = false;
    return *this;
  }
  Json& name(std::string_view name) {
    separate();
    text_ += '"';
    text_ += name;
    text_ += "\":";
    first_ = true;  // its value follows without a comma
    return *this;
  }
  void value(std::string_view text) {
    separate();
    text_ += json_text(text);
  }
  void value(const char* text) { value(std::string_view(text)); }
  void value(bool is) {
    separate();
    text_ += is ? "true" : "false";
  }
  void value(std::integral auto number) {
    separate();
    text_ += fmt::to_string(number);
  }
  void member(std::string_view name_of_it, const auto& of_it) {
    name(name_of_it);
    value(of_it);
  }
  void texts(std::string_view name_of_it, const std::vector<std::string>& list) {
    name(name_of_it).open('[');
    for (const auto& one : list) value(std::string_view(one));
    close(']');
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  void separate() {
    if (!first_) text_ += ',';
    first_ = false;
  }
  std::string text_;
  bool first_ = true;
};

std::string_view state_word(Opening::State state) {
  constexpr std::array<std::string_view, 5> kWords = {"WAITING", "ATTACHED", "READY", "DRAINING",
                                                      "ENDED"};
  return kWords.at(static_cast<std::size_t>(state));
}

std::string_view kind_word(Other::Kind kind) {
  constexpr std::array<std::string_view, 4> kWords = {"service", "workload", "owner", "somebody"};
  return kWords.at(static_cast<std::size_t>(kind));
}

std::string_view whose_word(ShownRefusal::Whose whose) {
  constexpr std::array<std::string_view, 3> kWords = {"consumer", "provider", "nobody"};
  return kWords.at(static_cast<std::size_t>(whose));
}

void add_workload(Json& json, const Shown& one, const Site& site) {
  json.open('{');
  json.member("id", one.id);
  json.member("owner", one.owner);
  json.member("workflow", one.workflow);
  json.member("service", one.service);
  json.member("scope", one.service.empty()                    ? ""
                       : one.scope == policy::Scope::kCluster ? "CLUSTER"
                                                              : "WORKFLOW");
  json.member("state", state_word(one.state));
  json.member("node", one.node);
  json.member("stale", one.stale);
  json.texts("serves", one.serves);
  json.texts("outside", one.outside);
  json.name("links").open('[');
  for (const auto& link : one.links) {
    const auto href = link_href(site, one.id, link);
    if (href.empty()) continue;
    json.open('{');
    json.member("port", link.port);
    json.member("label", link.label);
    json.member("href", href);
    json.member("url", url_of(site, link.target, link.path));
    json.member("ready", link.ready);
    json.close('}');
  }
  json.close(']').close('}');
}

void add_edge(Json& json, const ShownEdge& edge) {
  std::uint64_t bytes = 0, packets = 0;
  for (const auto& flow : edge.flows) {
    bytes += flow.bytes;
    packets += flow.packets;
  }
  json.open('{');
  json.member("from", edge.from);
  json.member("to", edge.to);
  json.member("open", edge.open);
  json.texts("ports", edge.ports);
  json.member("bytes_s", bytes);
  json.member("packets_s", packets);
  json.name("flows").open('[');
  for (const auto& flow : edge.flows) {
    json.open('{');
    json.member("port", flow.port);
    json.member("bytes_s", flow.bytes);
    json.member("packets_s", flow.packets);
    json.close('}');
  }
  json.close(']').close('}');
}

// Whether it is the viewer who can add what is missing.
bool is_theirs(const ShownRefusal& refusal, const Viewer& viewer) {
  if (refusal.missing.empty() || viewer.owner.empty()) return false;
  if (refusal.whose == ShownRefusal::Whose::kNobody) return false;
  const bool consumer = refusal.whose == ShownRefusal::Whose::kConsumer;
  return (consumer ? refusal.consumer_owner : refusal.provider_owner) == viewer.owner;
}

void add_refusal(Json& json, const ShownRefusal& refusal, const Viewer& viewer) {
  json.open('{');
  json.member("from", refusal.consumer);
  json.member("from_owner", refusal.consumer_owner);
  json.member("to", refusal.provider);
  json.member("to_owner", refusal.provider_owner);
  json.member("port",
              refusal.port == 0 ? "" : port_text(refusal.proto, refusal.port, refusal.port));
  json.member("count", refusal.count);
  json.member("last", refusal.last_ms);
  json.member("missing", refusal.missing);
  json.member("whose", whose_word(refusal.whose));
  json.member("yours", is_theirs(refusal, viewer));
  json.close('}');
}

}  // namespace

std::string json_text(std::string_view text) {
  std::string result = "\"";
  while (!text.empty()) {
    const auto bytes = character_bytes(text);
    const auto c = static_cast<unsigned char>(text.front());
    if (bytes == 0) {
      result += kReplacement;
    } else if (c < 0x20 || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c == 0x7f) {
      result += fmt::format("\\u{:04x}", c);
    } else {
      result += text.substr(0, bytes);
    }
    text.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  return result + '"';
}

std::string link_href(const Site& site, std::string_view id, const PageLink& link) {
  auto url = url_of(site, link.target, link.path);
  // A cookie knows hosts, not ports: at a site of one host the sign-in is there already.
  const bool straight = link.access == policy::Access::kPublic ||
                        std::holds_alternative<PortTarget>(link.target) || url.empty();
  return straight ? url : fmt::format("/open/{}/{}", id, link.port);
}

std::string state_json(const Overview& overview, const View& view, const Viewer& viewer,
                       const Site& site) {
  Json json;
  json.open('{');
  json.member("zone", site.zone.empty() ? site.host : site.zone);
  json.member("now", overview.wall_ms);
  json.name("you").open('{');
  json.member("owner", viewer.owner);
  json.member("name", viewer.name);
  json.member("admin", viewer.admin);
  json.close('}');
  json.member("left_out", view.left_out);
  json.name("workloads").open('[');
  for (const auto* one : view.workloads) add_workload(json, *one, site);
  json.close(']').name("others").open('[');
  for (const auto& other : view.others) {
    json.open('{');
    json.member("key", other.key);
    json.member("kind", kind_word(other.kind));
    json.member("label", other.label);
    json.close('}');
  }
  json.close(']').name("edges").open('[');
  for (const auto& edge : view.edges) add_edge(json, edge);
  json.close(']').name("refusals").open('[');
  for (const auto& refusal : view.refusals) add_refusal(json, refusal, viewer);
  json.close(']').close('}');
  return json.take();
}

}  // namespace meshd::proxy
