// Between protobuf messages and the domain. from_proto() is where untrusted input becomes
// domain types: past it no string is unchecked and every default is filled in.
//
// Threads: any.
// Errors:  kInvalid; `what` is "FIELD: REASON" with the field's path inside the workload
//          ("serves[0].port"); read_declarations() puts file and line in front.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "policy/types.h"
#include "proto/workload.pb.h"

namespace meshd::policy {

[[nodiscard]] Result<Declaration> from_proto(const mesh::v1::Workload& workload);
// With every default written out, so that from_proto(to_proto(d)) is d.
[[nodiscard]] mesh::v1::Workload to_proto(const Declaration& declaration);
[[nodiscard]] mesh::v1::Access::Value to_proto(Access access);

// One file of declarations: "FILE:LINE: workloads[2].serves[0].port: REASON".
[[nodiscard]] Result<std::vector<Declaration>> read_declarations(std::string_view file,
                                                                 std::string_view text);

}  // namespace meshd::policy
