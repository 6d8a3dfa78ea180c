#include "meshctl/print_json.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>

#include <memory>
#include <string_view>

namespace meshd::ctl {
namespace {

namespace pb = mesh::v1;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The default of Workload.hold, which stands in the .proto file: a declaration that leaves
// it out means this, and a zero in its place would be a lie.
constexpr int kDefaultHoldSeconds = 120;

// protobuf prints no sub-message that is not set; this sets them. Google's own types
// (Duration) are values, not groups of fields, and stay as they are.
void complete(Message& message) {
  const auto* reflection = message.GetReflection();
  const auto* descriptor = message.GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const auto* field = descriptor->field(i);
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (field->message_type()->file()->package() == "google.protobuf") continue;
    if (!field->is_repeated()) {
      complete(*reflection->MutableMessage(&message, field));
      continue;
    }
    for (int n = 0; n < reflection->FieldSize(message, field); ++n) {
      complete(*reflection->MutableRepeatedMessage(&message, field, n));
    }
  }
}

Result<std::string> to_line(const Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) {
    return fail(ErrorCode::kInternal,
                fmt::format("meshd's answer is no valid JSON: {}", status.message().ToString()));
  }
  return text;
}

// Lays out JSON that protobuf wrote on one line. It knows strings, brackets and commas,
// which is all that layout needs; the bytes in between are left as they are.
std::string indent(std::string_view line) {
  std::string out;
  std::size_t depth = 0;
  bool in_string = false;
  const auto new_line = [&] {
    out += '\n';
    out.append(depth * 2, ' ');
  };
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (in_string) {
      out += c;
      if (c == '\\' && i + 1 < line.size()) out += line[++i];
      if (c == '"') in_string = false;
      continue;
    }
    const bool opens = c == '{' || c == '[';
    const bool closes = c == '}' || c == ']';
    const bool empty = opens && i + 1 < line.size() && (line[i + 1] == '}' || line[i + 1] == ']');
    if (empty) {
      out += c;
      out += line[++i];
    } else if (opens) {
      out += c;
      ++depth;
      new_line();
    } else if (closes) {
      --depth;
      new_line();
      out += c;
    } else {
      out += c;
      if (c == ',') new_line();
      if (c == ':') out += ' ';
      in_string = c == '"';
    }
  }
  return out;
}

std::string lay_out(std::string line, Layout layout) {
  auto text = layout == Layout::kLine ? std::move(line) : indent(line);
  text += '\n';
  return text;
}

Result<std::string> workload_line(const pb::WorkloadInfo& workload) {
  auto declaration = workload.declaration();
  complete(declaration);
  if (!declaration.has_hold()) declaration.mutable_hold()->set_seconds(kDefaultHoldSeconds);
  auto rest = workload;
  rest.clear_declaration();
  rest.mutable_attachment();
  rest.mutable_launch();
  auto first = TRY(to_line(declaration));
  const auto second = TRY(to_line(rest));
  // {a} and {b} become {a,b}. Neither is empty: scalar fields are always printed.
  first.back() = ',';
  return first.append(second, 1);
}

}  // namespace

Result<std::string> render_json(const Message& message, Layout layout) {
  const std::unique_ptr<Message> copy(message.New());
  copy->CopyFrom(message);
  complete(*copy);
  return lay_out(TRY(to_line(*copy)), layout);
}

Result<std::string> render_json(const pb::WorkloadList& list, Layout layout) {
  std::string line = R"({"workloads":[)";
  for (const auto& workload : list.workloads()) {
    if (line.back() != '[') line += ',';
    line += TRY(workload_line(workload));
  }
  line += "]}";
  return lay_out(std::move(line), layout);
}

}  // namespace meshd::ctl
