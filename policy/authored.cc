#include "policy/authored.h"

#include <fmt/format.h>

#include "policy/from_proto.h"
#include "policy/from_text.h"

namespace meshd::policy {

Result<Declaration> read_authored(std::string_view where, const YamlNode& text,
                                  const Launched& launched) {
  for (const auto& key : text.keys) {
    if (key.text == "id" || key.text == "owner" || key.text == "workflow") {
      return fail(ErrorCode::kInvalid,
                  fmt::format("{}: {}: is the launcher's to say; leave it out", where, key.text));
    }
  }
  mesh::v1::Workload workload;
  CHECK_OK(parse_tree(where, text, workload));
  workload.set_id(launched.id);
  workload.set_owner(launched.owner);
  workload.set_workflow(launched.workflow);
  auto declaration = from_proto(workload);
  if (!declaration) return std::unexpected(std::move(declaration).error().in(where));
  return declaration;
}

}  // namespace meshd::policy
