// Names: what may be one, and how they are put together and taken apart. The only place
// where ids and names are checked.
//
//   <id>.id.<zone>                  one instance
//   <name>.<workflow>.wf.<zone>     a service of a workflow run
//   <name>.svc.<zone>               a service of the cluster
//
// Source: RFC 1035 section 2.3.1 and RFC 1123 section 2.1 (labels), RFC 5890 (xn--).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "policy/types.h"

namespace meshd::policy {

enum class LabelKind { kId, kName, kWorkflow, kPortName };

// Why `text` cannot be a label of that kind; empty when it can.
[[nodiscard]] std::string label_problem(LabelKind kind, std::string_view text);
[[nodiscard]] std::string owner_problem(std::string_view text);
// A whole domain name, lower case, without a final dot: for the zone.
[[nodiscard]] std::string zone_problem(std::string_view text);
// As Arvados names all it has: zzzzz-dz642-a1b2c3d4e5f6g7h.
[[nodiscard]] bool is_uuid(std::string_view text);

[[nodiscard]] std::string instance_fqdn(std::string_view zone, std::string_view id);
[[nodiscard]] std::string service_fqdn(std::string_view zone, const ServiceKey& key);
[[nodiscard]] std::vector<std::string> search_list(std::string_view zone,
                                                   std::string_view workflow);

// What a full name means; absent when it is none of ours. Case does not matter, nor does
// a final dot.
struct ParsedName {
  std::string id;                     // an instance, or
  std::optional<ServiceKey> service;  // a service
};
[[nodiscard]] std::optional<ParsedName> parse_fqdn(std::string_view zone, std::string_view text);

// For people: "db", "db of workflow run-1".
[[nodiscard]] std::string service_text(const ServiceKey& key);

}  // namespace meshd::policy
