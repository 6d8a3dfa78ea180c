#include "arvados/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "arvados/limits.h"

namespace meshd::arvados {
namespace {

using policy::YamlNode;
using Kind = YamlNode::Kind;

// Takes the parser's events; `false` stops it. The parser keeps no stack of its own calls, so
// depth costs memory only, which kMaxDepth bounds.
class TreeBuilder final : public nlohmann::json::json_sax_t {
 public:
  bool null() override { return add(leaf(Kind::kNull)); }
  bool boolean(bool value) override { return scalar(value ? "true" : "false", false); }
  bool number_integer(number_integer_t value) override {
    return scalar(fmt::format("{}", value), false);
  }
  bool number_unsigned(number_unsigned_t value) override {
    return scalar(fmt::format("{}", value), false);
  }
  bool number_float(number_float_t, const string_t& text) override { return scalar(text, false); }
  bool string(string_t& value) override { return scalar(std::move(value), true); }
  bool binary(binary_t&) override { return refuse(ErrorCode::kInvalid, "has binary data"); }

  bool start_object(std::size_t) override { return open(Kind::kMapping); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Kind::kSequence); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    auto& level = stack_.back();
    if (!level.names.insert(value).second) return refuse(ErrorCode::kInvalid, "has a key twice");
    auto node = leaf(Kind::kScalar);
    node.text = std::move(value);
    node.quoted = true;
    level.node.keys.push_back(std::move(node));
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception& exception) override {
    // Good JSON all the same, in which an author has written a number such as 1e999.
    constexpr int kNumberOverflow = 406;
    if (exception.id == kNumberOverflow) {
      return refuse(ErrorCode::kExhausted, "has a number out of range");
    }
    return refuse(ErrorCode::kInvalid, fmt::format("is not JSON at byte {}", position));
  }

  Result<YamlNode> take(bool parsed) {
    if (!error_.what.empty()) return std::unexpected(std::move(error_));
    if (!parsed) return fail(ErrorCode::kInvalid, "is not JSON");
    return std::move(root_);
  }

 private:
  struct Level {
    YamlNode node;
    std::set<std::string> names;  // of the keys so far
  };

  static YamlNode leaf(Kind kind) {
    YamlNode node;
    node.kind = kind;
    return node;
  }
  bool refuse(ErrorCode code, std::string why) {
    if (error_.what.empty()) error_ = Error{code, std::move(why)};
    return false;
  }
  bool scalar(std::string text, bool quoted) {
    auto node = leaf(Kind::kScalar);
    node.text = std::move(text);
    node.quoted = quoted;
    return add(std::move(node));
  }
  bool open(Kind kind) {
    if (stack_.size() >= kMaxDepth) return refuse(ErrorCode::kExhausted, "is nested too deeply");
    stack_.push_back({leaf(kind), {}});
    return true;
  }
  bool close() {
    auto node = std::move(stack_.back().node);
    stack_.pop_back();
    return add(std::move(node));
  }
  bool add(YamlNode node) {
    if (++nodes_ > kMaxNodes) return refuse(ErrorCode::kExhausted, "has too many values");
    if (stack_.empty()) {
      root_ = std::move(node);
    } else {
      stack_.back().node.items.push_back(std::move(node));
    }
    return true;
  }

  std::vector<Level> stack_;
  YamlNode root_;
  std::size_t nodes_ = 0;
  Error error_{ErrorCode::kInvalid, {}};
};

}  // namespace

Result<YamlNode> read_json(std::string_view text) {
  TreeBuilder builder;
  const bool parsed = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take(parsed);
}

const YamlNode* find(const YamlNode& node, std::string_view key) {
  if (node.kind != Kind::kMapping) return nullptr;
  const auto at =
      std::ranges::find_if(node.keys, [&](const auto& known) { return known.text == key; });
  if (at == node.keys.end()) return nullptr;
  return &node.items[static_cast<std::size_t>(at - node.keys.begin())];
}

std::size_t weight(const YamlNode& node) {
  constexpr std::size_t kPunctuation = 4;  // quotes, comma, colon
  std::size_t sum = node.text.size() + kPunctuation;
  for (const auto& key : node.keys) sum += key.text.size() + kPunctuation;
  for (const auto& item : node.items) sum += weight(item);
  return sum;
}

}  // namespace meshd::arvados
