// A workload whose author is not its launcher: one workload of proto/workload.proto without
// `id`, `owner` and `workflow`, which whoever launches it knows and the author does not say.
//
// Threads: any.
// Errors:  kInvalid, "WHERE: FIELD: REASON".
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "policy/declaration.h"
#include "policy/read_yaml.h"

namespace meshd::policy {

struct Launched {
  std::string id, owner;
  std::string workflow;  // empty: part of no run
};

[[nodiscard]] Result<Declaration> read_authored(std::string_view where, const YamlNode& text,
                                                const Launched& launched);

}  // namespace meshd::policy
