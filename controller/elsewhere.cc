#include "controller/elsewhere.h"

#include <fmt/format.h>

#include <charconv>

namespace meshd::controller {
namespace {

constexpr std::string_view kMark = "1 ";  // of the format

std::string_view next_word(std::string_view& text) {
  const auto end = std::min(text.find(' '), text.size());
  const auto word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

// "=NODE", or "=NODE:HASH".
std::optional<NodeNews> read_word(std::string_view word) {
  using Kind = NodeNews::Kind;
  if (word.size() < 2) return std::nullopt;
  NodeNews news;
  news.kind = static_cast<Kind>(word[0]);
  if (news.kind != Kind::kHolds && news.kind != Kind::kTook && news.kind != Kind::kLost) {
    return std::nullopt;
  }
  word.remove_prefix(1);
  const auto colon = word.find(':');
  news.node = word.substr(0, colon);
  if (colon == std::string_view::npos) return news;
  word.remove_prefix(colon + 1);
  std::uint64_t hash = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), hash, 16);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  news.in_force = hash;
  return news;
}

}  // namespace

std::vector<std::string> Elsewhere::lines(std::span<const NodeNews> news) const {
  const auto first = fmt::format("{}{}", kMark, self_);
  std::vector<std::string> lines = {first};
  for (const auto& one : news) {
    auto word = fmt::format(" {}{}", static_cast<char>(one.kind), one.node);
    if (one.in_force) word += fmt::format(":{:x}", *one.in_force);
    if (lines.back().size() + word.size() > kMaxNewsBytes) lines.push_back(first);
    lines.back() += word;
  }
  return lines;
}

std::vector<NodeNews> Elsewhere::hear(std::string_view line, TimePoint now) {
  std::vector<NodeNews> heard;
  if (!line.starts_with(kMark)) return heard;
  line.remove_prefix(kMark.size());
  const std::string who(next_word(line));
  if (who.empty()) return heard;
  if (who == self_) {
    // The time in which we heard nothing says nothing of the others.
    if (!hears(now)) {
      for (auto& [node, entry] : nodes_) entry.heard = now;
      for (auto& [other, at] : others_) at = now;
    }
    heard_self_ = now;
    return heard;
  }
  others_[who] = now;
  while (!line.empty()) {
    auto news = read_word(next_word(line));
    if (!news) continue;
    const auto known = nodes_.find(news->node);
    if (news->kind == NodeNews::Kind::kLost) {
      // Another one may have it by now.
      if (known == nodes_.end() || known->second.controller != who) continue;
      nodes_.erase(known);
    } else {
      nodes_.insert_or_assign(news->node, Entry{who, now});
    }
    heard.push_back(*std::move(news));
  }
  return heard;
}

std::vector<std::pair<std::string, TimePoint>> Elsewhere::expire(TimePoint now) {
  std::vector<std::pair<std::string, TimePoint>> gone;
  if (!hears(now)) return gone;
  std::erase_if(others_, [&](const auto& entry) { return now - entry.second > kNewsLife; });
  std::erase_if(nodes_, [&](const auto& entry) {
    if (now - entry.second.heard <= kNewsLife) return false;
    gone.emplace_back(entry.first, entry.second.heard);
    return true;
  });
  return gone;
}

}  // namespace meshd::controller
