#include "tests/support/node_script.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace meshd {
namespace {

std::unexpected<Error> wrong(std::string what) {
  return fail(ErrorCode::kInvalid, std::move(what));
}

template <class T>
Result<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return wrong(fmt::format("'{}' is not a number that fits here", text));
  }
  return value;
}

Result<Duration> duration(std::string_view text) {
  const auto unit = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto count = TRY(number<std::uint32_t>(text.substr(0, unit)));
  const auto name = text.substr(unit);
  if (name == "ms") return std::chrono::milliseconds(count);
  if (name == "s") return std::chrono::seconds(count);
  if (name == "m") return std::chrono::minutes(count);
  return wrong(fmt::format("'{}' is no time: 500ms, 5s or 2m", text));
}

std::string usage_of(std::string_view usage) { return fmt::format("write it: {}", usage); }

}  // namespace

Words words_of(std::string_view text) {
  Words words;
  constexpr std::string_view kBlank = " \n";
  for (auto at = text.find_first_not_of(kBlank); at != std::string_view::npos;) {
    const auto end = std::min(text.find_first_of(kBlank, at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = text.find_first_not_of(kBlank, end);
  }
  return words;
}

Result<std::vector<ScriptLine>> read_script(const std::string& file, std::string_view text) {
  std::vector<ScriptLine> lines;
  int number = 0, last = 0;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.find_first_not_of(' ') == std::string_view::npos || line.front() == '#') continue;
    if (line.front() != ' ') {
      lines.push_back({file, number, std::string(line)});
    } else if (!lines.empty()) {
      // Newlines for the lines that were passed over, so that those below keep their numbers.
      lines.back().text.append(static_cast<std::size_t>(number - last), '\n').append(line);
    } else {
      return wrong(fmt::format("{}:{}: an indented line with nothing above it", file, number));
    }
    last = number;
  }
  return lines;
}

struct NodeScript::Word {
  std::string_view name, usage;
  std::size_t least, most;  // words after the name
  Status (*run)(NodeScript& script, const ScriptLine& line, const Words& words);
};

const std::vector<NodeScript::Word>& NodeScript::vocabulary() {
  using S = NodeScript;
  using L = ScriptLine;
  using W = Words;
  constexpr std::size_t kAny = 1'000'000;
  static const std::vector<Word> kWords = {
      {"apply", "apply YAML", 1, kAny, [](S& s, const L& l, const W&) { return s.do_apply(l); }},
      {"attach", "attach ID [INODE]", 1, 2,
       [](S& s, const L&, const W& w) { return s.do_attach(w); }},
      {"detach", "detach ID", 1, 1,
       [](S& s, const L&, const W& w) -> Status { return s.answer_ = s.detach(w[1]), Status(); }},
      {"drain", "drain ID", 1, 1,
       [](S& s, const L&, const W& w) -> Status { return s.answer_ = s.drain(w[1]), Status(); }},
      {"delete", "delete ID [force]", 1, 2,
       [](S& s, const L&, const W& w) { return s.do_delete(w); }},
      {"release", "release NAME", 1, 1, [](S& s, const L&, const W& w) { return s.do_release(w); }},
      {"listens", "listens ID PORT [v4|v6]", 2, 3,
       [](S& s, const L&, const W& w) { return s.do_listens(w); }},
      {"tick", "tick 500ms|5s|2m", 1, 1, [](S& s, const L&, const W& w) { return s.do_tick(w); }},
      {"kernel", "kernel refuses [N] | accepts | emptied", 1, 2,
       [](S& s, const L&, const W& w) { return s.do_kernel(w); }},
      {"link", "link ID gone [unheard]", 2, 3,
       [](S& s, const L&, const W& w) { return s.do_link(w); }},
      {"restart", "restart", 0, 0, [](S& s, const L&, const W&) { return s.do_restart(); }},
  };
  return kWords;
}

bool NodeScript::is_happening(const ScriptLine& line) {
  const auto words = words_of(line.text);
  return std::ranges::find(vocabulary(), words.at(0), &Word::name) != vocabulary().end();
}

Status NodeScript::happen(const ScriptLine& line) {
  const auto words = words_of(line.text);
  const auto word = std::ranges::find(vocabulary(), words.at(0), &Word::name);
  const auto complain = [&](std::string_view why) {
    return wrong(fmt::format("{}: {}", line.where(), why));
  };
  if (word == vocabulary().end()) return complain(fmt::format("no such word: {}", words[0]));
  const auto more = words.size() - 1;
  if (more < word->least || more > word->most) return complain(usage_of(word->usage));
  answer_.reset();
  events_before_ = events_.size();
  erased_before_ = kernel_.erased.size();
  auto status = word->run(*this, line, words);
  // What comes out of a declaration's text has its own line in front.
  if (!status && word->name != "apply") return complain(status.error().what);
  return status;
}

Status NodeScript::do_apply(const ScriptLine& line) {
  // The word becomes spaces and what is above it newlines: an error in the YAML then names
  // the script's line.
  constexpr std::string_view kWord = "apply";
  auto text = std::string(static_cast<std::size_t>(line.number - 1), '\n');
  text.append(kWord.size(), ' ').append(line.text.substr(kWord.size()));
  return declare(line.file, text);
}

Status NodeScript::declare(const std::string& file, std::string_view text) {
  auto declarations = TRY(policy::read_declarations(file, text));
  answer_ = std::make_shared<std::optional<Status>>();
  node_->apply(std::move(declarations), now_, into<mesh::v1::ApplyReply>(answer_));
  return {};
}

Status NodeScript::do_attach(const Words& words) {
  const auto inode = words.size() > 2 ? TRY(number<std::uint64_t>(words[2])) : 0;
  answer_ = attach(words[1], inode);
  return {};
}

Status NodeScript::do_delete(const Words& words) {
  const bool force = words.size() > 2;
  if (force && words[2] != "force") return wrong(usage_of("delete ID [force]"));
  answer_ = remove(words[1], force);
  return {};
}

Status NodeScript::do_release(const Words& words) {
  answer_ = std::make_shared<std::optional<Status>>();
  node_->release_name(words[1], now_, into<mesh::v1::Empty>(answer_));
  return {};
}

Status NodeScript::do_listens(const Words& words) {
  const auto port = TRY(number<std::uint16_t>(words[2]));
  const auto family = words.size() > 3 ? words[3] : "";
  if (!family.empty() && family != "v4" && family != "v6") {
    return wrong(usage_of("listens ID PORT [v4|v6]"));
  }
  if (!attached(words[1])) return wrong(words[1] + " is not attached");
  listens(words[1], port, {family != "v6", family != "v4"});
  return {};
}

Status NodeScript::do_tick(const Words& words) {
  pass(TRY(duration(words[1])));
  return {};
}

Status NodeScript::do_kernel(const Words& words) {
  if (words[1] == "refuses") {
    const auto times = words.size() > 2 ? TRY(number<int>(words[2])) : FakeKernel::kForEver;
    kernel_.fail_next(FakeKernel::Call::kTransaction, times);
    return {};
  }
  if (words.size() > 2 || (words[1] != "accepts" && words[1] != "emptied")) {
    return wrong(usage_of("kernel refuses [N] | accepts | emptied"));
  }
  if (words[1] == "accepts") {
    kernel_.work_again();
  } else {
    kernel_.lose_elements();
    node_->on_drift(now_);
  }
  return {};
}

Status NodeScript::do_link(const Words& words) {
  const bool unheard = words.size() > 3;
  if (words[2] != "gone" || (unheard && words[3] != "unheard")) {
    return wrong(usage_of("link ID gone [unheard]"));
  }
  if (!attached(words[1])) return wrong(words[1] + " is not attached");
  const auto link = attachment(words[1]).host_ifname;
  kernel_.lose_link(link);
  if (!unheard) node_->on_link_gone(link, now_);
  return {};
}

Status NodeScript::do_restart() {
  start();
  answer_ = std::make_shared<std::optional<Status>>(node_->converge(now_));
  return {};
}

}  // namespace meshd
