#include "policy/read_yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <sstream>

#include "policy/limits.h"

namespace meshd::policy {
namespace {

// Carries a refusal out through yaml-cpp, which reports only by exceptions.
struct Refused {
  int line;
  std::string reason;
};

class TreeBuilder final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) refuse(mark, "a file is one document");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    add(leaf(mark, YamlNode::Kind::kNull));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "aliases are not allowed");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    // yaml-cpp marks plain scalars "?", quoted and block ones "!".
    if (tag != "?" && tag != "!" && !tag.empty()) refuse(mark, "tags are not allowed");
    const bool plain = tag == "?";
    const bool null = plain && (value == "null" || value == "~" || value == "Null" ||
                                value == "NULL" || value.empty());
    auto node = leaf(mark, null ? YamlNode::Kind::kNull : YamlNode::Kind::kScalar);
    node.text = value;
    node.quoted = !plain;
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kSequence);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kMapping);
  }
  void OnMapEnd() override { close(); }

  bool complete() const { return done_; }
  YamlNode take() { return std::move(root_); }

 private:
  [[noreturn]] static void refuse(const YAML::Mark& mark, std::string reason) {
    throw Refused{mark.line + 1, std::move(reason)};
  }
  static void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != 0) refuse(mark, "anchors are not allowed");
  }
  static YamlNode leaf(const YAML::Mark& mark, YamlNode::Kind kind) {
    YamlNode node;
    node.kind = kind;
    node.line = mark.line + 1;
    return node;
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YamlNode::Kind kind) {
    refuse_anchor(mark, anchor);
    if (tag != "?" && !tag.empty()) refuse(mark, "tags are not allowed");
    if (stack_.size() >= kMaxDepth) refuse(mark, "is nested too deeply");
    stack_.push_back({leaf(mark, kind), {}, false});
  }
  void close() {
    auto node = std::move(stack_.back().node);
    stack_.pop_back();
    add(std::move(node));
  }
  void add(YamlNode node) {
    if (++nodes_ > kMaxNodes) throw Refused{node.line, "has too many entries"};
    if (stack_.empty()) {
      root_ = std::move(node);
      done_ = true;
      return;
    }
    auto& top = stack_.back();
    if (top.node.kind == YamlNode::Kind::kSequence) {
      top.node.items.push_back(std::move(node));
    } else if (!top.has_key) {
      add_key(top, std::move(node));
    } else {
      // yaml-cpp finds out at the next token that nothing follows the key.
      if (node.kind == YamlNode::Kind::kNull) node.line = top.key.line;
      top.node.keys.push_back(std::move(top.key));
      top.node.items.push_back(std::move(node));
      top.has_key = false;
    }
  }

  struct Level {
    YamlNode node;
    YamlNode key;
    bool has_key;
  };
  static void add_key(Level& level, YamlNode key) {
    if (key.kind != YamlNode::Kind::kScalar) throw Refused{key.line, "a key must be a word"};
    const bool twice = std::ranges::any_of(
        level.node.keys, [&](const auto& known) { return known.text == key.text; });
    if (twice) throw Refused{key.line, quote(key.text) + " stands twice"};
    // Known fields are under twenty; a mapping that grows would make the check above slow.
    constexpr std::size_t kMaxFields = 256;
    if (level.node.keys.size() >= kMaxFields) throw Refused{key.line, "has too many keys"};
    level.key = std::move(key);
    level.has_key = true;
  }

  std::vector<Level> stack_;
  YamlNode root_;
  std::size_t nodes_ = 0;
  int documents_ = 0;
  bool done_ = false;
};

int line_of(std::string_view text, std::size_t position) {
  return 1 + static_cast<int>(std::ranges::count(text.substr(0, position), '\n'));
}

// The length of the UTF-8 sequence at `at`; 0 when it is none (RFC 3629).
std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
  };
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xc0U) == 0x80U; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first < 0xf0) {
    const bool shortest = first != 0xe0 || byte(1) >= 0xa0;
    const bool surrogate = first == 0xed && byte(1) >= 0xa0;
    return tail(1) && tail(2) && shortest && !surrogate ? 3 : 0;
  }
  if (first >= 0xf0 && first < 0xf5) {
    const bool shortest = first != 0xf0 || byte(1) >= 0x90;
    const bool beyond = first == 0xf4 && byte(1) >= 0x90;
    return tail(1) && tail(2) && tail(3) && shortest && !beyond ? 4 : 0;
  }
  return 0;
}

// Before yaml-cpp sees it: text, and not nested so deeply that its recursion could end the
// stack. Brackets inside quotes and comments count too: no declaration has that many.
std::string text_problem(std::string_view text, std::size_t& where) {
  constexpr int kMaxBrackets = 64;
  int brackets = 0;
  for (std::size_t i = 0; i < text.size();) {
    where = i;
    const char c = text[i];
    const auto length = utf8_length(text, i);
    if (length == 0) return "is not UTF-8 text";
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\r' && c != '\t') || byte == 0x7f) {
      return fmt::format("has the control character 0x{:02x}", byte);
    }
    if (c == '[' || c == '{') ++brackets;
    if ((c == ']' || c == '}') && brackets > 0) --brackets;
    if (brackets > kMaxBrackets) return "is nested too deeply";
    i += length;
  }
  return {};
}

// "- - - - -" nests without brackets: one level per dash at a line's start.
std::string dash_problem(std::string_view text, std::size_t& where) {
  for (std::size_t start = 0; start < text.size();) {
    const auto end = std::min(text.find('\n', start), text.size());
    std::size_t dashes = 0, i = start;
    for (; i < end; ++i) {
      if (text[i] == ' ') continue;
      if ((text[i] != '-' && text[i] != '?' && text[i] != ':') ||
          (i + 1 < end && text[i + 1] != ' ')) {
        break;
      }
      if (++dashes > kMaxDepth) {
        where = i;
        return "is nested too deeply";
      }
    }
    start = end + 1;
  }
  return {};
}

std::unexpected<Error> refuse(std::string_view file, int line, std::string_view reason) {
  return fail(ErrorCode::kInvalid, fmt::format("{}:{}: {}", file, line, reason));
}

}  // namespace

std::string quote(std::string_view text) {
  constexpr std::size_t kShown = 60;
  std::string result = "\"";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    // What is not ASCII too: among it are ends of lines and commands to terminals.
    if (byte < 0x20 || byte >= 0x7f) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      if (c == '"' || c == '\\') result += '\\';
      result += c;
    }
  }
  if (text.size() > kShown) result += "...";
  return result + '"';
}

Result<YamlNode> read_yaml(std::string_view file, std::string_view text) {
  if (text.size() > kMaxFileBytes) return refuse(file, 1, "is larger than 1 MiB");
  std::size_t where = 0;
  for (auto* check : {text_problem, dash_problem}) {
    if (const auto problem = check(text, where); !problem.empty()) {
      return refuse(file, line_of(text, where), problem);
    }
  }
  TreeBuilder builder;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Refused& refused) {
    return refuse(file, refused.line, refused.reason);
  } catch (const YAML::Exception& error) {
    // Some of its texts repeat the byte that they complain about.
    auto message = error.msg;
    std::ranges::replace_if(message, [](char c) { return c < 0x20 || c >= 0x7f; }, '?');
    return refuse(file, error.mark.line + 1, "is not YAML: " + message);
  } catch (const std::exception& error) {
    // yaml-cpp lets a few of the standard library's own through on odd input.
    return refuse(file, 1, fmt::format("is not YAML: {}", error.what()));
  }
  if (!builder.complete()) return refuse(file, 1, "is empty");
  return builder.take();
}

}  // namespace meshd::policy
