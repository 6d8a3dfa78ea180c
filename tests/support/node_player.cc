#include "tests/support/node_player.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <map>
#include <set>

#include "meshd/lower_ruleset.h"
#include "meshd/report.h"

namespace meshd {
namespace {

bool is_about_answer(const ScriptLine& line) {
  const auto words = words_of(line.text);
  return words.size() > 1 && words[0] == "expect" &&
         (words[1] == "ok" || words[1] == "pending" || words[1] == "refused");
}

// The words from `first` on.
std::string rest(const Words& words, std::size_t first) {
  if (first >= words.size()) return {};
  return fmt::format(
      "{}", fmt::join(words.begin() + static_cast<std::ptrdiff_t>(first), words.end(), " "));
}

bool matches(const std::string& pattern, const std::string& text) {
  return fnmatch(pattern.c_str(), text.c_str(), 0) == 0;
}

std::string listed(std::string_view what, const std::vector<std::string>& lines) {
  if (lines.empty()) return fmt::format("{}: none", what);
  return fmt::format("{}:\n  {}", what, fmt::join(lines, "\n  "));
}

template <class T>
bool read_number(const std::string& text, T& number) {
  const auto* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stopped == end;
}

}  // namespace

Status NodePlayer::play(const std::string& file, std::string_view text) {
  const auto lines = TRY(read_script(file, text));
  std::size_t expectations = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto& line = lines[i];
    std::string complaint;
    if (is_happening(line)) {
      CHECK_OK(happen(line));
      const bool said = i + 1 < lines.size() && is_about_answer(lines[i + 1]);
      if (answer_ && !said) complaint = check_answer({"ok"});
    } else {
      complaint = expect(words_of(line.text));
      ++expectations;
    }
    if (complaint.empty()) complaint = out_of_step();
    if (!complaint.empty()) {
      return fail(ErrorCode::kInvalid, fmt::format("{}: {}", line.where(), complaint));
    }
  }
  if (expectations == 0) return fail(ErrorCode::kInvalid, file + ":1: nothing is expected");
  return {};
}

std::string NodePlayer::expect(const Words& words) {
  struct Expectation {
    std::size_t least, most;  // words after it
    std::string (NodePlayer::*check)(const Words&);
  };
  static const std::map<std::string, Expectation, std::less<>> kKnown = {
      {"ok", {0, 0, &NodePlayer::check_answer}},
      {"pending", {0, 0, &NodePlayer::check_answer}},
      {"refused", {1, 100, &NodePlayer::check_answer}},
      {"element", {2, 100, &NodePlayer::check_element}},
      {"name", {3, 3, &NodePlayer::check_name}},
      {"name6", {3, 3, &NodePlayer::check_name}},
      {"state", {2, 2, &NodePlayer::check_state}},
      {"verdict", {4, 100, &NodePlayer::check_verdict}},
      {"generations", {1, 1, &NodePlayer::check_generations}},
      {"event", {1, 100, &NodePlayer::check_event}},
      {"erased", {1, 100, &NodePlayer::check_erased}},
  };
  if (words[0] != "expect" || words.size() < 2) return "no such word: " + words[0];
  if (words.size() > 3 && words[2] == "elements") return check_count(words);
  const bool none = words[1] == "no" && words.size() > 2;
  const Words inner(words.begin() + (none ? 2 : 1), words.end());
  const auto known = kKnown.find(inner[0]);
  if (known == kKnown.end()) return "no such expectation: " + inner[0];
  const auto more = inner.size() - 1;
  if (more < known->second.least || more > known->second.most) {
    return fmt::format("{} takes {} words or more, and not {}", inner[0], known->second.least,
                       more);
  }
  if (none && inner[0] != "element" && inner[0] != "event" && inner[0] != "erased") {
    return "'no' goes with element, event and erased";
  }
  // Of what does not exist "no" would hold for ever.
  mesh::v1::Event::Kind::Value kind{};
  if (inner[0] == "event" && !mesh::v1::Event::Kind::Value_Parse(inner[1], &kind)) {
    return "no such event: " + inner[1];
  }
  if (inner[0] == "element" && !raise_set(inner[1])) return "no such set: " + inner[1];
  auto complaint = (this->*known->second.check)(inner);
  if (!none) return complaint;
  return complaint.empty() ? "but there is: " + rest(inner, 1) : std::string();
}

std::string NodePlayer::check_answer(const Words& words) {
  if (!answer_) return "nothing was asked of the node";
  const auto got = told(answer_);
  const bool refused = got != "OK" && got != "pending";
  if (words[0] == "ok" && got == "OK") return {};
  if (words[0] == "pending" && got == "pending") return {};
  if (words[0] == "refused" && refused && got.find(rest(words, 1)) != std::string::npos) return {};
  return "the answer is: " + got;
}

// --- the kernel -------------------------------------------------------------------------

std::vector<std::string> NodePlayer::elements_like(const std::string& pattern) const {
  auto found = elements_in_kernel();
  std::erase_if(found,
                [&](const auto& text) { return fnmatch(pattern.c_str(), text.c_str(), 0) != 0; });
  return found;
}

std::string NodePlayer::check_element(const Words& words) {
  if (!elements_like(rest(words, 1)).empty()) return {};
  return listed("in the kernel", elements_like(words[1] + " *"));
}

std::string NodePlayer::check_count(const Words& words) {
  std::size_t wanted = 0;
  if (!read_number(words[1], wanted)) return "how many? " + words[1];
  if (!raise_set(words[3])) return "no such set: " + words[3];
  const auto found = elements_like(rest(words, 3));
  if (found.size() == wanted) return {};
  return listed(fmt::format("there are {}", found.size()), found);
}

std::string NodePlayer::check_erased(const Words& words) {
  std::vector<std::string> erased;
  for (auto i = erased_before_; i < kernel_.erased.size(); ++i) {
    for (const auto& address : kernel_.erased[i].addresses) erased.push_back(address.to_string());
    for (const auto& t : kernel_.erased[i].translations) {
      erased.push_back(fmt::format("{}:{} -> {}{}", t.from.to_string(), t.first, t.to.to_string(),
                                   t.only_unanswered ? ", unanswered" : ""));
    }
  }
  const auto pattern = rest(words, 1);
  const bool found = std::ranges::any_of(
      erased, [&](const auto& text) { return fnmatch(pattern.c_str(), text.c_str(), 0) == 0; });
  return found ? std::string() : listed("erased since", erased);
}

// --- names and states -------------------------------------------------------------------

std::string NodePlayer::check_name(const Words& words) {
  const auto address = IpAddress::parse(words[1]);
  if (!address && !attached(words[1])) return words[1] + " is not attached";
  const auto client = address ? *address : *attachment(words[1]).v4;
  constexpr std::uint16_t kA = 1, kAaaa = 28;
  const auto resolved = names_->resolve(client, words[2], words[0] == "name" ? kA : kAaaa);
  auto got = resolved.answers.empty() ? resolved.rcode : resolved.answers.front().data;
  if (got == "NOERROR") got = "NODATA";
  if (got == words[3] && resolved.answers.size() <= 1) return {};
  return fmt::format("the answer is {} {}", got, resolved.reason);
}

std::string NodePlayer::check_state(const Words& words) {
  const auto& workloads = node_->world().workloads;
  const auto found = workloads.find(words[1]);
  const auto got = found == workloads.end()
                       ? std::string("GONE")
                       : mesh::v1::WorkloadState::Value_Name(state_of(found->second));
  return got == words[2] ? std::string() : "it is " + got;
}

std::string NodePlayer::check_verdict(const Words& words) {
  std::uint16_t port = 0;
  if (!read_number(words[3], port)) return "no port: " + words[3];
  const auto explained = node_->explain(words[1], words[2], Proto::kTcp, port, now_);
  if (!explained) return explained.error().what;
  constexpr std::array<std::string_view, 3> kNames = {"REFUSED", "ALLOWED", "HELD"};
  const auto got = kNames.at(static_cast<std::size_t>(explained->verdict));
  if (got == words[4] && explained->reason.find(rest(words, 5)) != std::string::npos) return {};
  return fmt::format("it is {}: {}", got, explained->reason);
}

std::string NodePlayer::check_event(const Words& words) {
  std::vector<std::string> since;
  for (auto i = events_before_; i < events_.size(); ++i) {
    auto text = mesh::v1::Event::Kind::Value_Name(events_[i].kind());
    for (const auto& more : {events_[i].id(), events_[i].detail()}) {
      if (!more.empty()) text += " " + more;
    }
    if (matches(rest(words, 1), text)) return {};
    since.push_back(std::move(text));
  }
  return listed("told since", since);
}

// --- generations ------------------------------------------------------------------------

std::string NodePlayer::generations_text() const {
  const auto& g = node_->generations();
  return fmt::format("stored {}, planned {}, installed {}, named {}; behind: {}", g.stored,
                     g.planned, g.installed, g.named,
                     node_->behind().empty() ? "no" : node_->behind());
}

bool NodePlayer::generations_equal() const {
  const auto& g = node_->generations();
  return g.stored == store_->generation() && g.stored == g.planned && g.planned == g.installed &&
         g.installed == g.named;
}

std::string NodePlayer::check_generations(const Words& words) {
  const auto& g = node_->generations();
  const bool behind = g.installed < g.planned && !node_->behind().empty();
  if (words[1] == "equal" ? generations_equal() : words[1] == "behind" && behind) return {};
  return generations_text();
}

std::string NodePlayer::out_of_step() const {
  if (!node_->behind().empty()) return {};
  const auto there = elements_in_kernel(), planned = elements_planned();
  std::vector<std::string> differ;
  std::ranges::set_symmetric_difference(std::set(there.begin(), there.end()),
                                        std::set(planned.begin(), planned.end()),
                                        std::back_inserter(differ));
  if (!differ.empty()) return listed("kernel and plan differ", differ);
  std::set<std::string> links;
  for (const auto& link : node_->links()) links.insert(link.host_ifname);
  for (const auto& [name, link] : kernel_.links()) {
    if (!links.contains(name)) return name + " is nobody's link";
  }
  return generations_equal() ? std::string() : "not equal: " + generations_text();
}

}  // namespace meshd
