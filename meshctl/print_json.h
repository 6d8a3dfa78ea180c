// Answers as JSON: protobuf's own mapping with the field names of the .proto files, every
// field always present, 64-bit counts as strings.
//
// Invariant: the same message gives the same bytes, fields in the order of the .proto file.
// Errors:    kInternal when protobuf refuses its own message (text that is not UTF-8).
// Source:    proto3 JSON mapping.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "base/result.h"
#include "proto/node.pb.h"

namespace meshd::ctl {

enum class Layout {
  kIndented,  // two blanks a level
  kLine,      // one object a line, for streams
};

[[nodiscard]] Result<std::string> render_json(const google::protobuf::Message& message,
                                              Layout layout = Layout::kIndented);

// A workload shows as its declaration's fields followed by `state`, `attachment` and
// `problems`, not nested as in the message.
[[nodiscard]] Result<std::string> render_json(const mesh::v1::WorkloadList& list,
                                              Layout layout = Layout::kIndented);

}  // namespace meshd::ctl
