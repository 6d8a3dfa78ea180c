// Text into a protobuf message, strictly: what the message does not know is an error that
// names file, line, field and reason. Used for declarations and for the configuration.
//
// Rules:   field names as in the .proto file; enums by name; whole numbers unquoted;
//          durations "120s"; a null or an empty list where absence has a meaning is
//          refused (everywhere for nulls; `ports` and `allow_from` for lists). What YAML and
//          JSON read as a number or a truth value is no text: `owner: 123` must be quoted.
//          But "4e0123456789" is text, since ids in hexadecimal look like that and are
//          written without quotes by common libraries.
// Threads: any.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace google::protobuf {
class Message;
}

namespace meshd::policy {

struct YamlNode;

// Why a declaration that names a host for `egress` is refused.
inline constexpr std::string_view kEgressByAddress =
    "egress goes by address, since what a name means changes behind the rule's back";

struct ParsedFile {
  std::string file;
  std::map<std::string, int, std::less<>> lines;  // field path -> line

  // "FILE:LINE" of a field, "workloads[0].peers[2].ports[0].port"; of the nearest field
  // around it where it is not in the text itself.
  [[nodiscard]] std::string where(std::string_view path) const;
};

[[nodiscard]] Result<ParsedFile> parse_text(std::string_view file, std::string_view text,
                                            google::protobuf::Message& into);
// Of a tree that came otherwise than as a file's text; errors name lines where it has them.
[[nodiscard]] Result<ParsedFile> parse_tree(std::string_view file, const YamlNode& tree,
                                            google::protobuf::Message& into);

}  // namespace meshd::policy
