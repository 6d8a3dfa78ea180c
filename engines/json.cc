#include "engines/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "engines/limits.h"

namespace meshd::engines {
namespace {

using Kind = Json::Kind;

// Takes the parser's events; `false` stops it.
class Builder final : public nlohmann::json::json_sax_t {
 public:
  bool null() override { return add({}); }
  bool boolean(bool value) override { return scalar(Kind::kBool, value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override {
    return scalar(Kind::kNumber, fmt::format("{}", value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return scalar(Kind::kNumber, fmt::format("{}", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return scalar(Kind::kNumber, text);
  }
  bool string(string_t& value) override { return scalar(Kind::kString, std::move(value)); }
  bool binary(binary_t&) override { return refuse(ErrorCode::kInvalid, "has binary data"); }

  bool start_object(std::size_t) override { return open(Kind::kObject); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Kind::kArray); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    auto& level = stack_.back();
    if (!level.names.insert(value).second) return refuse(ErrorCode::kInvalid, "has a key twice");
    level.node.keys.push_back(std::move(value));
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    return refuse(ErrorCode::kInvalid, fmt::format("is not JSON at byte {}", position));
  }

  Result<Json> take(bool parsed) {
    if (!error_.what.empty()) return std::unexpected(std::move(error_));
    if (!parsed) return fail(ErrorCode::kInvalid, "is not JSON");
    return std::move(root_);
  }

 private:
  struct Level {
    Json node;
    std::set<std::string> names;  // of the keys so far
  };

  bool refuse(ErrorCode code, std::string why) {
    if (error_.what.empty()) error_ = Error{code, std::move(why)};
    return false;
  }
  bool scalar(Kind kind, std::string text) {
    Json node;
    node.kind = kind;
    node.text = std::move(text);
    return add(std::move(node));
  }
  bool open(Kind kind) {
    if (stack_.size() >= kMaxDepth) return refuse(ErrorCode::kExhausted, "is nested too deeply");
    stack_.emplace_back().node.kind = kind;
    return true;
  }
  bool close() {
    auto node = std::move(stack_.back().node);
    stack_.pop_back();
    return add(std::move(node));
  }
  bool add(Json node) {
    if (++values_ > kMaxValues) return refuse(ErrorCode::kExhausted, "has too many values");
    if (stack_.empty()) {
      root_ = std::move(node);
    } else {
      stack_.back().node.items.push_back(std::move(node));
    }
    return true;
  }

  std::vector<Level> stack_;
  Json root_;
  std::size_t values_ = 0;
  Error error_{ErrorCode::kInvalid, {}};
};

void render_text(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

// As deep as kMaxDepth and what we add ourselves.
void render_into(const Json& json, std::string& out) {  // NOLINT(misc-no-recursion)
  switch (json.kind) {
    case Kind::kNull:
      out += "null";
      return;
    case Kind::kBool:
    case Kind::kNumber:
      out += json.text;
      return;
    case Kind::kString:
      return render_text(json.text, out);
    case Kind::kArray:
    case Kind::kObject:
      break;
  }
  const bool is_object = json.kind == Kind::kObject;
  out += is_object ? '{' : '[';
  for (std::size_t i = 0; i < json.items.size(); ++i) {
    if (i > 0) out += ',';
    if (is_object) {
      render_text(json.keys[i], out);
      out += ':';
    }
    render_into(json.items[i], out);
  }
  out += is_object ? '}' : ']';
}

bool same_letters(std::string_view a, std::string_view b) {
  const auto lower = [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  return std::ranges::equal(a, b, {}, lower, lower);
}

}  // namespace

Json Json::string(std::string_view text) {
  Json json;
  json.kind = Kind::kString;
  json.text = text;
  return json;
}

Json Json::number(long value) {
  Json json;
  json.kind = Kind::kNumber;
  json.text = fmt::format("{}", value);
  return json;
}

Json Json::array(std::vector<Json> items) {
  Json json;
  json.kind = Kind::kArray;
  json.items = std::move(items);
  return json;
}

Json Json::object() {
  Json json;
  json.kind = Kind::kObject;
  return json;
}

const Json* Json::find(std::string_view key) const {
  if (kind != Kind::kObject) return nullptr;
  const auto at = std::ranges::find(keys, key);
  return at == keys.end() ? nullptr : &items[static_cast<std::size_t>(at - keys.begin())];
}

const Json* Json::find_any_case(std::string_view key) const {
  if (const auto* const exact = find(key)) return exact;
  if (kind != Kind::kObject) return nullptr;
  const auto at =
      std::ranges::find_if(keys, [&](const auto& known) { return same_letters(known, key); });
  return at == keys.end() ? nullptr : &items[static_cast<std::size_t>(at - keys.begin())];
}

std::string_view Json::text_at(std::string_view key) const {
  const auto* const value = find(key);
  return value != nullptr && value->kind == Kind::kString ? std::string_view(value->text)
                                                          : std::string_view();
}

Json& Json::set(std::string_view key, Json value) {
  const auto at = std::ranges::find(keys, key);
  if (at == keys.end()) {
    keys.emplace_back(key);
    return items.emplace_back(std::move(value));
  }
  return items[static_cast<std::size_t>(at - keys.begin())] = std::move(value);
}

Result<Json> read_json(std::string_view text) {
  Builder builder;
  const bool parsed = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take(parsed);
}

bool is_utf8(std::string_view text) { return read_json(render(Json::string(text))).has_value(); }

std::string render(const Json& json) {
  std::string text;
  render_into(json, text);
  return text;
}

}  // namespace meshd::engines
