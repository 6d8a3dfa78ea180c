#include "policy/outside_changes.h"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "policy/interval.h"
#include "policy/profile.h"

namespace meshd::policy {
namespace {

using Kind = Change::Kind;

// A list of sources or destinations is for one line of a terminal.
constexpr std::size_t kShown = 4;

std::string prefixes_text(const std::vector<Prefix>& prefixes) {
  std::vector<std::string> shown;
  for (const auto& prefix : prefixes) {
    if (shown.size() == kShown) break;
    shown.push_back(prefix.to_string());
  }
  if (prefixes.size() > kShown) {
    shown.back() += fmt::format(" and {} more", prefixes.size() - kShown);
  }
  return fmt::format("{}", fmt::join(shown, ", "));
}

// --- egress --------------------------------------------------------------------------

std::vector<EgressPiece> without(const std::vector<EgressPiece>& from,
                                 const std::vector<EgressPiece>& minus) {
  std::vector<EgressPiece> result;
  for (const auto& piece : from) {
    std::vector<Interval> holes;
    for (const auto& other : minus) {
      if (other.proto == piece.proto && other.prefix.contains(piece.prefix)) {
        holes.push_back({other.first, other.last});
      }
    }
    // Wider and narrower prefixes may both cover it.
    for (const auto& rest : subtract({{piece.first, piece.last}}, join(std::move(holes)))) {
      result.push_back({piece.prefix, piece.proto, static_cast<std::uint16_t>(rest.first),
                        static_cast<std::uint16_t>(rest.last)});
    }
  }
  return result;
}

// Of a piece that differs as a whole, the parts that do not.
std::vector<Prefix> parts_within(const EgressPiece& piece, const std::vector<EgressPiece>& others) {
  std::vector<Prefix> parts;
  for (const auto& other : others) {
    if (other.proto == piece.proto && other.prefix != piece.prefix &&
        piece.prefix.contains(other.prefix) && other.first <= piece.last &&
        piece.first <= other.last) {
      parts.push_back(other.prefix);
    }
  }
  return parts;
}

// "tcp/443", "all UDP", "ping"; empty where nothing is left but port 0, which no socket has.
std::string piece_text(const EgressPiece& piece) {
  const bool tcp = piece.proto == IPPROTO_TCP;
  if (!tcp && piece.proto != IPPROTO_UDP) return "ping";
  const auto first = std::max<std::uint16_t>(piece.first, 1);
  if (first > piece.last) return {};
  if (first == 1 && piece.last == 65535) return tcp ? "all TCP" : "all UDP";
  const auto name = proto_name(tcp ? Proto::kTcp : Proto::kUdp);
  return first == piece.last ? fmt::format("{}/{}", name, first)
                             : fmt::format("{}/{}-{}", name, first, piece.last);
}

void note_pieces(Kind kind, const std::string& id, const std::vector<EgressPiece>& pieces,
                 const std::vector<EgressPiece>& others, std::string_view but,
                 std::vector<Change>& changes) {
  struct Line {
    std::vector<std::string> ports;
    std::vector<Prefix> parts;
  };
  std::map<Prefix, Line> lines;
  for (const auto& piece : pieces) {
    auto text = piece_text(piece);
    if (text.empty()) continue;
    auto& line = lines[piece.prefix];
    line.ports.push_back(std::move(text));
    const auto more = parts_within(piece, others);
    line.parts.insert(line.parts.end(), more.begin(), more.end());
  }
  for (auto& [prefix, line] : lines) {
    std::ranges::sort(line.ports);
    if (line.ports == std::vector<std::string>{"all TCP", "all UDP", "ping"}) {
      line.ports = {"all TCP, UDP and ping"};
    }
    const auto parts = normalise(std::move(line.parts));
    const auto detail =
        parts.empty() ? std::string() : fmt::format("{} {}", but, prefixes_text(parts));
    for (const auto& ports : line.ports) {
      changes.push_back({kind, fmt::format("{} -> {} {}", id, prefix.to_string(), ports), detail});
    }
  }
}

// --- publications --------------------------------------------------------------------

std::string_view access_text(Access access) {
  switch (access) {
    case Access::kOwner:
      return "OWNER";
    case Access::kCanManage:
      return "CAN_MANAGE";
    case Access::kCanWrite:
      return "CAN_WRITE";
    case Access::kCanRead:
      return "CAN_READ";
    case Access::kPublic:
      return "PUBLIC";
  }
  return {};
}

std::string sources_text(const Settings& settings, const Publication& publication) {
  const auto sources = sources_of(settings, publication);
  if (publication.http) {
    return sources.empty() ? "from nobody, since publish.proxies is empty" : "from the proxies";
  }
  return sources.empty() ? "from nobody" : "from " + prefixes_text(normalise(sources));
}

std::vector<Prefix> without(const std::vector<Prefix>& from, const std::vector<Prefix>& minus) {
  std::vector<Prefix> result;
  for (const auto& prefix : from) {
    const bool covered =
        std::ranges::any_of(minus, [&](const Prefix& wide) { return wide.contains(prefix); });
    if (!covered) result.push_back(prefix);
  }
  return result;
}

const Publication* published(const Declaration& declaration, const PublishKey& key) {
  const auto found = std::ranges::find_if(declaration.publish, [&](const Publication& p) {
    return p.proto == key.proto && p.port == key.port;
  });
  return found == declaration.publish.end() ? nullptr : &*found;
}

class Publications {
 public:
  Publications(const World& before, const Outcome& outcome, std::vector<Change>& changes)
      : before_(before), outcome_(outcome), changes_(changes) {}

  void note() {
    for (const auto& [key, port] : outcome_.node_ports) {
      const auto old = before_.node_ports.find(key);
      if (old != before_.node_ports.end()) {
        add(Kind::kPortPublished, key, fmt::format("node port {}, was {}", port, old->second));
      } else {
        add(Kind::kPortPublished, key, fmt::format("node port {}{}", port, terms(key)));
      }
    }
    for (const auto& key : outcome_.node_ports_gone) add(Kind::kPortWithdrawn, key, {});
    for (const auto& [id, declaration] : outcome_.declarations) {
      const auto old = before_.workloads.find(id);
      if (old == before_.workloads.end()) continue;
      for (const auto& publication : declaration.publish) {
        const PublishKey key{id, publication.proto, publication.port};
        const auto* was = published(old->second.declaration, key);
        if (was != nullptr) compare(key, *was, publication);
      }
    }
  }

 private:
  void add(Kind kind, const PublishKey& key, std::string detail) {
    changes_.push_back({kind, fmt::format("{} {}/{}", key.id, proto_name(key.proto), key.port),
                        std::move(detail)});
  }

  // Whom a new one admits.
  std::string terms(const PublishKey& key) const {
    const auto declaration = outcome_.declarations.find(key.id);
    if (declaration == outcome_.declarations.end()) return {};
    const auto* publication = published(declaration->second, key);
    if (publication == nullptr) return {};
    auto text = ", " + sources_text(before_.settings, *publication);
    if (publication->http) text += fmt::format(", access {}", access_text(publication->access));
    return text;
  }

  void compare(const PublishKey& key, const Publication& was, const Publication& is) {
    const auto& settings = before_.settings;
    if (was.http != is.http) {
      add(Kind::kPortWithdrawn, key, "no longer " + sources_text(settings, was));
      add(Kind::kPortPublished, key,
          fmt::format("now {} {}", is.http ? "http," : "raw,", sources_text(settings, is)));
    } else if (!is.http) {
      compare_sources(key, normalise(sources_of(settings, was)),
                      normalise(sources_of(settings, is)));
    }
    // Of a raw publication nobody asks for access.
    if (was.http && is.http && was.access != is.access) {
      add(is.access > was.access ? Kind::kPortPublished : Kind::kPortWithdrawn, key,
          fmt::format("access {}, was {}", access_text(is.access), access_text(was.access)));
    }
  }

  void compare_sources(const PublishKey& key, const std::vector<Prefix>& was,
                       const std::vector<Prefix>& is) {
    if (const auto more = without(is, was); !more.empty()) {
      add(Kind::kPortPublished, key, "also from " + prefixes_text(more));
    }
    const auto less = without(was, is);
    if (less.empty()) return;
    auto detail = "no longer from " + prefixes_text(less);
    std::vector<Prefix> stays;  // parts of what goes
    for (const auto& prefix : is) {
      const auto within = [&](const Prefix& gone) { return gone.contains(prefix); };
      if (std::ranges::any_of(less, within)) stays.push_back(prefix);
    }
    if (!stays.empty()) detail += ", still from " + prefixes_text(stays);
    add(Kind::kPortWithdrawn, key, std::move(detail));
  }

  const World& before_;
  const Outcome& outcome_;
  std::vector<Change>& changes_;
};

}  // namespace

void note_egress(const Declaration* before, const Declaration& after,
                 std::vector<Change>& changes) {
  if (before != nullptr && before->egress == after.egress) return;
  const auto had = before == nullptr ? std::vector<EgressPiece>() : normalise(before->egress);
  const auto has = normalise(after.egress);
  note_pieces(Kind::kFlowAdded, after.id, without(has, had), had, "was open to", changes);
  note_pieces(Kind::kFlowRemoved, after.id, without(had, has), has, "stays open to", changes);
}

void note_publications(const World& before, const Outcome& outcome, std::vector<Change>& changes) {
  Publications(before, outcome, changes).note();
}

}  // namespace meshd::policy
