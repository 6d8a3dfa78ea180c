#include "policy/from_text.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "policy/read_yaml.h"

namespace meshd::policy {
namespace {

namespace pb = google::protobuf;

std::string_view kind_name(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "null";
    case YamlNode::Kind::kScalar:
      return "a single value";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMapping:
      return "a mapping";
  }
  return {};
}

// Steps from one word to the other; a typo is one or two.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t cost = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, cost});
    }
  }
  return row[b.size()];
}

// What YAML 1.2 (and JSON) read as something else than text when it is not quoted; null is a
// kind of its own. Exponents only where they cannot be part of an id: see from_text.h.
std::string_view other_type(std::string_view plain) {
  for (const auto* word : {"true", "True", "TRUE", "false", "False", "FALSE"}) {
    if (plain == word) return "a truth value";
  }
  const auto all_of = [](std::string_view text, std::string_view among) {
    return !text.empty() && text.find_first_not_of(among) == std::string_view::npos;
  };
  const bool signed_number = plain.starts_with('-') || plain.starts_with('+');
  const auto digits = signed_number ? plain.substr(1) : plain;
  if (all_of(digits, "0123456789")) return "a number";
  if (digits.starts_with("0x") && all_of(digits.substr(2), "0123456789abcdefABCDEF")) {
    return "a number";
  }
  if (digits.starts_with("0o") && all_of(digits.substr(2), "01234567")) return "a number";
  for (const auto* word : {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"}) {
    if (digits == word) return "a number";
  }
  const auto mantissa = digits.substr(0, digits.find_first_of("eE"));
  const bool point = std::ranges::count(mantissa, '.') == 1;
  if (!all_of(mantissa, "0123456789.") || mantissa == ".") return {};
  if (mantissa == digits) return point ? "a number" : "";
  const auto exponent = digits.substr(mantissa.size() + 1);
  const bool exponent_signed = exponent.starts_with('-') || exponent.starts_with('+');
  if (!all_of(exponent.substr(exponent_signed ? 1 : 0), "0123456789")) return {};
  return point || signed_number || exponent_signed ? "a number" : "";
}

// A line 0 is none: the tree was not text.
std::string line_text(std::string_view file, int line) {
  return line == 0 ? std::string(file) : fmt::format("{}:{}", file, line);
}

class Reader {
 public:
  explicit Reader(ParsedFile& parsed) : parsed_(parsed) {}

  Status message(const YamlNode& node, pb::Message& into, const std::string& path) {
    if (node.kind != YamlNode::Kind::kMapping) return wrong_kind(node, path, "a mapping");
    const auto& type = *into.GetDescriptor();
    for (std::size_t i = 0; i < node.keys.size(); ++i) {
      const auto& key = node.keys[i];
      const auto& value = node.items[i];
      const auto* field = type.FindFieldByName(key.text);
      if (field == nullptr) return unknown(key, type, path);
      const auto field_path = path.empty() ? key.text : path + "." + key.text;
      parsed_.lines.emplace(field_path, key.line);
      if (field->is_repeated()) {
        CHECK_OK(list(value, into, *field, field_path));
      } else {
        CHECK_OK(single(value, into, *field, field_path));
      }
    }
    return {};
  }

 private:
  std::unexpected<Error> refuse(const YamlNode& node, const std::string& path,
                                std::string_view reason) const {
    const auto at = line_text(parsed_.file, node.line);
    return fail(ErrorCode::kInvalid, path.empty() ? fmt::format("{}: {}", at, reason)
                                                  : fmt::format("{}: {}: {}", at, path, reason));
  }
  std::unexpected<Error> wrong_kind(const YamlNode& node, const std::string& path,
                                    std::string_view wanted) const {
    return refuse(node, path, fmt::format("must be {}, not {}", wanted, kind_name(node)));
  }
  std::unexpected<Error> unknown(const YamlNode& key, const pb::Descriptor& type,
                                 const std::string& path) const {
    std::string_view nearest;
    std::size_t best = 3;
    for (int i = 0; i < type.field_count(); ++i) {
      const auto steps = distance(key.text.substr(0, 64), type.field(i)->name());
      if (steps < best) {
        best = steps;
        nearest = type.field(i)->name();
      }
    }
    auto reason = "unknown field " + quote(key.text);
    constexpr std::string_view kHosts[] = {"name", "host", "hostname", "fqdn", "domain", "dns"};
    if (type.full_name() == "mesh.v1.EgressRule" &&
        std::ranges::find(kHosts, key.text) != std::end(kHosts)) {
      reason += fmt::format("; {}", kEgressByAddress);
    } else if (!nearest.empty()) {
      reason += fmt::format("; did you mean {}?", nearest);
    }
    return refuse(key, path, reason);
  }

  Status list(const YamlNode& node, pb::Message& into, const pb::FieldDescriptor& field,
              const std::string& path) {
    if (node.kind != YamlNode::Kind::kSequence) return wrong_kind(node, path, "a list");
    if (node.items.empty() && (field.name() == "ports" || field.name() == "allow_from")) {
      return refuse(node, path, "is an empty list; leave the field out instead");
    }
    for (std::size_t i = 0; i < node.items.size(); ++i) {
      const auto item_path = fmt::format("{}[{}]", path, i);
      parsed_.lines.emplace(item_path, node.items[i].line);
      const auto& item = node.items[i];
      auto* reflection = into.GetReflection();
      if (field.cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE) {
        CHECK_OK(message(item, *reflection->AddMessage(&into, &field), item_path));
      } else {
        // All our other lists are of text.
        reflection->AddString(&into, &field, TRY(text(item, item_path)));
      }
    }
    return {};
  }

  Status single(const YamlNode& node, pb::Message& into, const pb::FieldDescriptor& field,
                const std::string& path) {
    if (node.kind == YamlNode::Kind::kNull) {
      return refuse(node, path, "is null; leave the field out instead");
    }
    auto* reflection = into.GetReflection();
    switch (field.cpp_type()) {
      case pb::FieldDescriptor::CPPTYPE_MESSAGE: {
        auto& inner = *reflection->MutableMessage(&into, &field);
        if (auto* duration = dynamic_cast<pb::Duration*>(&inner)) {
          return read_duration(node, *duration, path);
        }
        return message(node, inner, path);
      }
      case pb::FieldDescriptor::CPPTYPE_STRING:
        reflection->SetString(&into, &field, TRY(text(node, path)));
        return {};
      case pb::FieldDescriptor::CPPTYPE_UINT32:
        reflection->SetUInt32(&into, &field, TRY(number(node, field, path)));
        return {};
      case pb::FieldDescriptor::CPPTYPE_BOOL:
        reflection->SetBool(&into, &field, TRY(boolean(node, path)));
        return {};
      case pb::FieldDescriptor::CPPTYPE_ENUM: {
        const auto* value = TRY(enumerator(node, *field.enum_type(), path));
        reflection->SetEnum(&into, &field, value);
        return {};
      }
      default:
        return refuse(node, path, "has a type that this reader does not know");
    }
  }

  Result<std::string> text(const YamlNode& node, const std::string& path) const {
    if (node.kind != YamlNode::Kind::kScalar) return wrong_kind(node, path, "text");
    if (node.quoted) return node.text;
    if (const auto other = other_type(node.text); !other.empty()) {
      return refuse(node, path,
                    fmt::format("must be text, and {} is {} unless it stands in quotes",
                                node.text.substr(0, 60), other));
    }
    return node.text;
  }

  Result<std::uint32_t> number(const YamlNode& node, const pb::FieldDescriptor& field,
                               const std::string& path) const {
    if (node.kind != YamlNode::Kind::kScalar) return wrong_kind(node, path, "a number");
    std::uint32_t value = 0;
    const auto* end = node.text.data() + node.text.size();
    const auto [stop, error] = std::from_chars(node.text.data(), end, value);
    // 010 is eight to some readers and ten to others.
    const bool octal = node.text.size() > 1 && node.text.front() == '0';
    if (node.quoted || error != std::errc() || stop != end || octal) {
      return refuse(node, path, "must be a whole number, not " + quote(node.text));
    }
    // Here and not later: an explicit 0 looks like an absent field in the message.
    if (field.name().ends_with("port") && (value == 0 || value > 65535)) {
      return refuse(node, path, fmt::format("must be 1 to 65535, not {}", value));
    }
    return value;
  }

  Result<bool> boolean(const YamlNode& node, const std::string& path) const {
    if (node.kind == YamlNode::Kind::kScalar && !node.quoted) {
      if (node.text == "true") return true;
      if (node.text == "false") return false;
    }
    return refuse(node, path, "must be true or false");
  }

  Result<const pb::EnumValueDescriptor*> enumerator(const YamlNode& node,
                                                    const pb::EnumDescriptor& type,
                                                    const std::string& path) const {
    if (node.kind != YamlNode::Kind::kScalar) return wrong_kind(node, path, "a word");
    std::string known;
    for (int i = 0; i < type.value_count(); ++i) {
      const auto& value = *type.value(i);
      if (value.name() == "UNSPECIFIED") continue;
      if (value.name() == node.text) return &value;
      known += (known.empty() ? "" : ", ") + value.name();
    }
    return refuse(node, path, fmt::format("must be one of {}, not {}", known, quote(node.text)));
  }

  // "120s", "1.5s": protobuf's own form of a duration.
  Status read_duration(const YamlNode& node, pb::Duration& into, const std::string& path) const {
    const auto bad = [&] { return refuse(node, path, "must be a time in seconds like 120s"); };
    if (node.kind != YamlNode::Kind::kScalar || !node.text.ends_with('s')) return bad();
    const auto digits = std::string_view(node.text).substr(0, node.text.size() - 1);
    const auto point = digits.find('.');
    const auto whole = digits.substr(0, point);
    std::int64_t seconds = 0;
    const auto [stop, error] = std::from_chars(whole.begin(), whole.end(), seconds);
    if (error != std::errc() || stop != whole.end() || whole.empty() || seconds < 0) return bad();
    std::string fraction;
    if (point != std::string_view::npos) fraction = digits.substr(point + 1);
    if (fraction.size() > 9 || (point != std::string_view::npos && fraction.empty()) ||
        !std::ranges::all_of(fraction, [](char c) { return c >= '0' && c <= '9'; })) {
      return bad();
    }
    fraction.resize(9, '0');
    into.set_seconds(seconds);
    into.set_nanos(std::stoi(fraction));
    return {};
  }

  ParsedFile& parsed_;
};

}  // namespace

std::string ParsedFile::where(std::string_view path) const {
  for (std::string_view around = path;;) {
    const auto found = lines.find(around);
    if (found != lines.end()) return line_text(file, found->second);
    const auto cut = around.find_last_of(".[");
    if (cut == std::string_view::npos) return file;
    around = around.substr(0, cut);
  }
}

Result<ParsedFile> parse_text(std::string_view file, std::string_view text,
                              google::protobuf::Message& into) {
  return parse_tree(file, TRY(read_yaml(file, text)), into);
}

Result<ParsedFile> parse_tree(std::string_view file, const YamlNode& tree,
                              google::protobuf::Message& into) {
  ParsedFile parsed;
  parsed.file = file;
  CHECK_OK(Reader(parsed).message(tree, into, ""));
  return parsed;
}

}  // namespace meshd::policy
